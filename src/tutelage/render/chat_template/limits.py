"""What one rendering may cost: characters, steps, depth and seconds, counted where a template can make them grow."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from jinja2.runtime import markup_join
from markupsafe import Markup

from tutelage.errors import TemplateError
from tutelage.render.chat_template.traced_json import traced_repr
from tutelage.render.chat_template.tracing import TracedText, escaped, joined

MAX_CHARACTERS = 10_000_000
"""Largest text or intermediate value. Our choice: 2.5 million tokens, beyond the longest contexts served today."""

MAX_SECONDS = 10.0
"""Longest rendering. Our choice: an ordinary one takes 0.0001 s."""

BUILT_FACTOR = 10
"""All values made on the way may hold this many times MAX_CHARACTERS. Our choice: 400 MB at the very worst."""

MAX_STEPS = 1_000_000
"""Loop rounds and calls. Our choice: 1,000 messages with 1,000 steps each."""

MAX_DEPTH = 64
"""Calls inside calls. Our choice: ten times the deepest tool schemas, and within Python's own limit."""

ITEM_CHARACTERS = 64
"""What an item of a list counts as: the bytes of a short Python string."""

MAX_INTEGER_BITS = 65_536
"""Largest whole number. Our choice: printing one stops at 4,300 digits, which is 14,284 bits, anyway."""

MAX_SLOW_CHARACTERS = 100_000
"""Largest input of the filters whose time can grow with its square. Our choice: well under a second each."""

NODE_CHARACTERS = 8
"""What a value inside another counts as when it is printed: its commas, brackets and digits."""

_TICK_STEPS = 256
_TICK_CHARACTERS = 65_536


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits of one rendering; `name` is the template's, for the error."""

    name: str
    characters: int = MAX_CHARACTERS
    seconds: float = MAX_SECONDS


class Meter:
    """Counts what one rendering uses, and ends it with a TemplateError where it uses too much.

    Every operation whose result can be larger than its operands asks here first (`allow`) or reports (`built`) what it
    made from operands that are within the limits. Time is looked at every few steps and after every large value.
    """

    __slots__ = ("_built", "_deadline", "_large", "_limits", "_steps", "_tick", "depth", "tracing")

    def __init__(self, limits: Limits, *, tracing: bool) -> None:
        self._limits = limits
        self._deadline = time.monotonic() + limits.seconds
        self._built = limits.characters * BUILT_FACTOR
        self._large = min(_TICK_CHARACTERS, limits.characters)
        self._steps = MAX_STEPS
        self._tick = 0
        self.depth = 0
        self.tracing = tracing

    def overrun(self, what: str, expected: str) -> NoReturn:
        """End the rendering."""
        raise TemplateError(
            "The chat template goes beyond the limits of rendering",
            where=self._limits.name,
            found=what,
            expected=expected,
            fix="do not use this template; if one very long row asks for so much, take that row out",
        )

    def step(self, count: int = 1) -> None:
        """`count` rounds or calls more."""
        self._steps -= count
        if self._steps < 0:
            self.overrun("endless loops or calls", f"at most {MAX_STEPS:,} loop rounds and calls")
        self._tick += count
        if self._tick >= _TICK_STEPS:
            self._tick = 0
            self.check_time()

    def check_time(self) -> None:
        """End the rendering if its time is over."""
        if time.monotonic() > self._deadline:
            self.overrun("it is still running", f"at most {self._limits.seconds:g} s")

    def allow(self, characters: int) -> None:
        """A value of about this size is about to be made."""
        if characters > self._limits.characters:
            self.overrun(f"a value of {characters:,} characters", f"at most {self._limits.characters:,} characters")
        if characters > self._large:
            self.check_time()

    def built(self, characters: int) -> None:
        """A value of this size was made."""
        self._built -= characters
        if characters > self._large:
            self.allow(characters)
        if self._built < 0:
            self.overrun("too much text on the way", f"at most {BUILT_FACTOR} x {self._limits.characters:,} characters")

    def charged(self, value: T) -> T:
        """`value`, counted."""
        if isinstance(value, (str, bytes)):
            self.built(len(value))
        elif isinstance(value, (list, tuple, dict)):
            self.built(len(value) * ITEM_CHARACTERS)
        return value

    def printed(self, value: Any) -> str:
        """`str(value)`, counted."""
        if type(value) is str:
            self._built -= len(value)
            if self._built < 0 or len(value) > self._large:
                self.built(0)
                self.allow(len(value))
            return value
        if not isinstance(value, str):
            self.allow(self.size(value))
        text = str(value)
        self.built(len(text))
        return traced_repr(value, text) if self.tracing and type(value) in (list, tuple, dict) else text

    def str_join(self, values: Iterable[Any]) -> str:
        """What `~` makes."""
        return self.concat([self.printed(value) for value in values])

    def escape(self, value: Any) -> Markup:
        """What `{% autoescape true %}` makes of a value."""
        return self.charged(escaped(value if isinstance(value, str) else self.printed(value)))

    def markup_join(self, values: Iterable[Any]) -> str:
        """What `~` makes where `{% autoescape %}` may be on; as in jinja2, the first safe text makes all safe."""
        pieces = [value if isinstance(value, str) else self.printed(value) for value in values]
        self.allow(sum(map(len, pieces)))
        return self.charged(markup_join(pieces))

    def concat(self, pieces: Sequence[str]) -> str:
        """The pieces as one text, counted."""
        self.built(sum(map(len, pieces)))
        return joined("", pieces) if self.tracing else "".join(pieces)

    def loop(self, values: Any) -> Any:
        """What a loop goes over: `values` itself where it is short, else something that counts its rounds."""
        if type(values) is not list and isinstance(values, Iterator):
            return self._counted(values)
        try:
            rounds = len(values)
        except TypeError:
            return values
        if rounds <= _TICK_STEPS:
            self.step(rounds)
            return values
        return _LongLoop(self, values, rounds)

    def _counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.step()
            yield value

    def listed(self, values: Any) -> list[Any]:
        """`list(values)`, counted."""
        items = list(self.loop(values))
        self.built(len(items) * ITEM_CHARACTERS)
        return items

    def comparable(self, value: Any) -> Any:
        """`value`, about to be compared or searched."""
        kind = type(value)
        if kind is str or kind is TracedText:
            if len(value) > self._large:
                self.check_time()
        elif kind in (list, tuple, dict):
            self.allow(self.size(value))
        elif isinstance(value, Iterator):
            return self._counted(value)
        return value

    def size(self, value: Any) -> int:
        """About how many characters `value` prints as. Stops counting beyond the limit."""
        return self.shape(value)[0]

    def shape(self, value: Any) -> tuple[int, int]:
        """(about how many characters `value` prints as, how deep it is nested). Stops counting beyond the limit.

        Lists that hold each other many times print as more than any memory holds; so nothing is printed here.
        """
        limit = self._limits.characters
        total, depth, level = NODE_CHARACTERS, 0, [value]
        while level and total <= limit:
            nested: list[Any] = []
            for item in level:
                if isinstance(item, (str, bytes)):
                    total += len(item)
                elif isinstance(item, dict):
                    total += 2 * NODE_CHARACTERS * len(item)
                    if total > limit:
                        break
                    nested += item
                    nested += item.values()
                elif isinstance(item, (list, tuple, set, frozenset)):
                    total += NODE_CHARACTERS * len(item)
                    if total > limit:  # before what it holds is put aside, which may be all that memory has
                        break
                    nested += item
                elif isinstance(item, int):
                    total += item.bit_length() // 3
            level, depth = nested, depth + 1
        return total, depth - 1


class _LongLoop:
    """The values of a long loop, with their number, as loops ask for it."""

    def __init__(self, meter: Meter, values: Iterable[Any], rounds: int) -> None:
        self._meter, self._values, self._rounds = meter, values, rounds

    def __len__(self) -> int:
        return self._rounds

    def __iter__(self) -> Iterator[Any]:
        return self._meter._counted(self._values)

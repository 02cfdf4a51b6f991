"""Where each rendered character came from: strings that carry their origin through a template's own operations.

Shape legend: C = characters of one rendered text.

A run is (source, start, length): `length` characters that stand in source number `source` from `start` on.
(-1, -1, length) is text of the template's own, or text whose origin is not known; -2 and -3 in its place are the
brackets, quotes, names and numbers that a list or an object got as it was printed, by Python and as JSON.
"""
# ruff: noqa: D102 the methods of TracedText are those of str

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, SupportsIndex

import markupsafe
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

Run = tuple[int, int, int]
Runs = tuple[Run, ...]

TEMPLATE_TEXT, PYTHON, JSON = -1, -2, -3
MAX_RUNS = 100_000
"""A string in more pieces than this counts as the template's own. Our choice: 100,000 runs take about 10 MB."""

_HTML_SPECIAL = re.compile("[&<>'\"]")


@dataclass(frozen=True, slots=True)
class Source:
    """A string the template was given.

    `message` is its index in the conversation; None for tools, documents and arguments. `field` is the path to it:
    "content", "tool_calls[0].function.arguments.city", "tools[0].function.name", "argument.bos_token".
    """

    message: int | None
    field: str


@dataclass(frozen=True, slots=True)
class Traced:
    """A rendered text with the origin of each of its characters.

    Attributes:
        text: exactly what `ChatTemplate.render` gives.
        sources: the strings the template was given.
        source: int32 [C], an index into `sources`; below 0 is text that the template writes itself (TEMPLATE_TEXT, also
            for an unknown origin), or what Python (PYTHON) or JSON (JSON) writes around the items of a list or object.
        offset: int32 [C], the position inside that string; -1 where there is none.
        followed: False where tracing met something it could not follow and every origin is unknown.
    """

    text: str
    sources: tuple[Source, ...]
    source: NDArray[np.int32]
    offset: NDArray[np.int32]
    followed: bool = True


class TracedText(str):
    """A str whose characters know their origin. It compares, hashes, prints and converts as the str it is."""

    __slots__ = ("_runs",)
    _runs: Runs

    def __new__(cls, text: str, runs: Runs) -> TracedText:
        """`runs` [runs] cover `text` from its first character to its last."""
        instance = super().__new__(cls, text)
        instance._runs = runs if len(runs) <= MAX_RUNS else _template_runs(len(text))
        return instance

    def __str__(self) -> str:
        return self

    def __getitem__(self, key: SupportsIndex | slice[Any, Any, Any]) -> str:
        text = str.__getitem__(self, key)
        if not isinstance(key, slice):
            at = key.__index__() % len(self)
            return TracedText(text, _cut(self._runs, at, at + 1))
        start, stop, step = key.indices(len(self))
        if step == 1:
            return TracedText(text, _cut(self._runs, start, stop))
        characters = list(cuts(self._runs, [(at, at + 1) for at in range(len(self))]))
        return TracedText(text, _merged(characters[key]))

    def __iter__(self) -> Iterator[str]:
        for text, runs in zip(
            str.__iter__(self), cuts(self._runs, ((n, n + 1) for n in range(len(self)))), strict=True
        ):
            yield TracedText(text, runs)

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, str) or isinstance(other, Markup):
            return NotImplemented
        return TracedText(str.__add__(self, other), _merged((self._runs, runs_of(other))))

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, str):
            return NotImplemented
        return TracedText(str.__add__(other, self), _merged((runs_of(other), self._runs)))

    def __mul__(self, times: SupportsIndex) -> Any:
        text = str.__mul__(self, times)
        return text if text is NotImplemented else TracedText(text, _merged([self._runs] * times.__index__()))

    __rmul__ = __mul__

    def __format__(self, specification: str) -> str:
        return self if specification == "" else str.__format__(self, specification)

    def strip(self, chars: str | None = None) -> str:
        text = str.strip(self, chars)
        start = len(self) - len(str.lstrip(self, chars)) if text else 0
        return self[start : start + len(text)]

    def lstrip(self, chars: str | None = None) -> str:
        return self[len(self) - len(str.lstrip(self, chars)) :]

    def rstrip(self, chars: str | None = None) -> str:
        return self[: len(str.rstrip(self, chars))]

    def removeprefix(self, prefix: str, /) -> str:
        return self[len(self) - len(str.removeprefix(self, prefix)) :]

    def removesuffix(self, suffix: str, /) -> str:
        return self[: len(str.removesuffix(self, suffix))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._pieces_in_order(str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._pieces_in_order(str.rsplit(self, sep, maxsplit), sep)

    def splitlines(self, keepends: Any = False) -> list[str]:
        lines, spans, start = str.splitlines(self, keepends), [], 0
        for line, full_line in zip(lines, str.splitlines(self, True), strict=True):
            spans.append((start, start + len(line)))
            start += len(full_line)
        return self._pieces_at(lines, spans)

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        head, separator, tail = self._pieces_in_order(list(str.partition(self, sep)), "")
        return head, separator, tail

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        head, separator, tail = self._pieces_in_order(list(str.rpartition(self, sep)), "")
        return head, separator, tail

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        text = str.replace(self, old, new, count)
        if old == "":
            return text
        pieces = self.split(old, count)
        return TracedText(text, _merged(_between(runs_of(new), pieces)))

    def join(self, pieces: Iterable[str], /) -> str:
        return joined(self, list(pieces))

    def upper(self) -> str:
        return self._mapped_characters(str.upper)

    def lower(self) -> str:
        return self._mapped_characters(str.lower)

    def title(self) -> str:
        return self._mapped_characters(str.title)

    def capitalize(self) -> str:
        return self._mapped_characters(str.capitalize)

    def casefold(self) -> str:
        return self._mapped_characters(str.casefold)

    def swapcase(self) -> str:
        return self._mapped_characters(str.swapcase)

    def ljust(self, width: SupportsIndex, fillchar: str = " ", /) -> str:
        return self._padded(str.ljust(self, width, fillchar), 0)

    def rjust(self, width: SupportsIndex, fillchar: str = " ", /) -> str:
        text = str.rjust(self, width, fillchar)
        return self._padded(text, len(text) - len(self))

    def center(self, width: SupportsIndex, fillchar: str = " ", /) -> str:
        text = str.center(self, width, fillchar)
        padding = len(text) - len(self)
        return self._padded(text, padding // 2 + (padding & width.__index__() & 1))

    def _padded(self, text: str, left_padding: int) -> str:
        return TracedText(
            text,
            _merged((_template_runs(left_padding), self._runs, _template_runs(len(text) - len(self) - left_padding))),
        )

    def _mapped_characters(self, change: Callable[[str], str]) -> str:
        text = change(self)
        if len(text) == len(self):
            return TracedText(text, self._runs)
        # Some characters have no single counterpart: they become several characters of the same origin.
        lengths = [len(change(character)) for character in str.__iter__(self)]
        if sum(lengths) != len(text):
            return text
        character_runs = cuts(self._runs, [(at, at + 1) for at in range(len(self))])
        return TracedText(
            text, tuple(run for runs, length in zip(character_runs, lengths, strict=True) for run in runs * length)
        )

    def _pieces_in_order(self, pieces: list[str], separator: str | None) -> list[str]:
        """`pieces` stand in this text in this order, `separator` between them; None is any white space."""
        spans, at = [], 0
        for piece in pieces:
            start = str.find(self, piece, at) if separator is None else at
            spans.append((start, start + len(piece)))
            at = start + len(piece) + len(separator or "")
        return self._pieces_at(pieces, spans)

    def _pieces_at(self, pieces: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[str]:
        return [TracedText(piece, runs) for piece, runs in zip(pieces, cuts(self._runs, spans), strict=True)]


class TracedMarkup(Markup):
    """Text marked as safe, with its origins; an operation not named here gives text of unknown origin."""

    __slots__ = ("_runs",)
    _runs: Runs

    def __new__(cls, text: Any = "", encoding: str | None = None, errors: str = "strict") -> TracedMarkup:
        instance = super().__new__(cls, text, encoding, errors)
        instance._runs = runs_of(text) if isinstance(text, str) else _template_runs(len(instance))
        return instance

    def __str__(self) -> str:
        return TracedText(str.__str__(self), self._runs)

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, str):
            return NotImplemented
        return TracedMarkup(joined("", [str(self), str(escaped(other))]))

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, str):
            return NotImplemented
        return TracedMarkup(joined("", [str(escaped(other)), str(self)]))


def runs_of(text: str) -> Runs:
    """Runs that cover `text`."""
    if isinstance(text, (TracedText, TracedMarkup)):
        return text._runs
    return _template_runs(len(text))


def joined(separator: str, pieces: Sequence[str]) -> str:
    """`separator.join(pieces)`, with origins."""
    text = str.join(separator, pieces)
    return TracedText(text, _merged(_between(runs_of(separator), pieces)))


def expanded(text: str, pattern: re.Pattern[str], rewrite: Callable[[str], str]) -> str:
    """`written(text)`, which writes each character that `pattern` matches otherwise and leaves the rest.

    Each character of what stands for another has that one's origin. With more than MAX_RUNS such characters the result
    is of unknown origin.
    """
    if next(islice(pattern.finditer(text), MAX_RUNS, None), None) is not None:
        return rewrite(str.__str__(text))
    spans: list[tuple[int, int]] = []
    outputs: list[str | None] = []
    at = 0
    for match in pattern.finditer(text):
        spans += [(at, match.start()), match.span()]
        outputs += [None, rewrite(match.group())]
        at = match.end()
    spans.append((at, len(text)))
    outputs.append(None)
    plain, texts, parts = str.__str__(text), [], []
    for (start, stop), runs, output in zip(spans, cuts(runs_of(text), spans), outputs, strict=True):
        texts.append(plain[start:stop] if output is None else output)
        parts.append(runs if output is None else runs * len(output))
    return TracedText("".join(texts), _merged(parts))


def cut_at(text: str, pattern: re.Pattern[str]) -> list[str]:
    """What `pattern` matches in `text` and what stands between, in order, none of it empty."""
    edges = [edge for match in pattern.finditer(text) for edge in match.span()]
    spans = [(start, stop) for start, stop in zip([0, *edges], [*edges, len(text)], strict=True) if start < stop]
    return [
        TracedText(text[start:stop], runs)
        for (start, stop), runs in zip(spans, cuts(runs_of(text), spans), strict=True)
    ]


def escaped(text: Any) -> Markup:
    """What `markupsafe.escape` gives, with origins."""
    if isinstance(text, Markup):
        return text
    if not isinstance(text, TracedText):
        return markupsafe.escape(text)
    return TracedMarkup(expanded(text, _HTML_SPECIAL, lambda fragment: str(markupsafe.escape(fragment))))


def with_origins(value: Any, message: int | None, field: str, sources: list[Source]) -> Any:
    """`value` with each str in it replaced by one that knows where it stands; dict keys stay as they are."""
    if type(value) is str:
        sources.append(Source(message, field))
        return TracedText(value, ((len(sources) - 1, 0, len(value)),) if value else ())
    if type(value) is dict:
        prefix = f"{field}." if field else ""
        return {key: with_origins(item, message, f"{prefix}{key}", sources) for key, item in value.items()}
    if type(value) is list:
        return [with_origins(item, message, f"{field}[{index}]", sources) for index, item in enumerate(value)]
    if type(value) is tuple:
        return tuple(with_origins(item, message, f"{field}[{index}]", sources) for index, item in enumerate(value))
    return value


def origins(text: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(source, offset) of each character, both int32 [C]."""
    table = np.array(runs_of(text) or np.empty((0, 3)), dtype=np.int32)
    lengths = table[:, 2]
    source = np.repeat(table[:, 0], lengths)
    first = table[:, 1] - (np.cumsum(lengths, dtype=np.int32) - lengths)
    offset = np.repeat(first, lengths) + np.arange(len(source), dtype=np.int32)
    offset[source < 0] = TEMPLATE_TEXT
    return source, offset


def in_notation(text: str, notation: int) -> str:
    """`text`, the print of a list or an object, with all that came from no source as `notation` (PYTHON, JSON)."""
    runs = runs_of(text)
    return TracedText(text, tuple((notation, notation, run[2]) if run[0] == TEMPLATE_TEXT else run for run in runs))


def cuts(runs: Runs, spans: Iterable[tuple[int, int]]) -> Iterator[Runs]:
    """The runs of each (start, stop); spans ascend and do not overlap."""
    index, position = 0, 0
    for start, stop in spans:
        while index < len(runs) and position + runs[index][2] <= start:
            position += runs[index][2]
            index += 1
        piece_runs: list[Run] = []
        at, run_index = position, index
        while run_index < len(runs) and at < stop:
            source, origin, length = runs[run_index]
            first, last = max(start - at, 0), min(stop - at, length)
            if last > first:
                piece_runs.append((source, origin if source < 0 else origin + first, last - first))
            at += length
            run_index += 1
        yield tuple(piece_runs)


def _cut(runs: Runs, start: int, stop: int) -> Runs:
    return next(cuts(runs, ((start, stop),)))


def _template_runs(length: int) -> Runs:
    return ((TEMPLATE_TEXT, TEMPLATE_TEXT, length),) if length > 0 else ()


def _between(separator: Runs, pieces: Iterable[str]) -> Iterator[Runs]:
    for index, piece in enumerate(pieces):
        if index and separator:
            yield separator
        yield runs_of(piece)


def _merged(parts: Iterable[Runs]) -> Runs:
    """One after the other; runs that continue each other become one."""
    merged: list[Run] = []
    for runs in parts:
        for run in runs:
            if merged:
                source, start, length = merged[-1]
                if source == run[0] and (source < 0 or start + length == run[1]):
                    merged[-1] = (source, start, length + run[2])
                    continue
            merged.append(run)
    return tuple(merged)

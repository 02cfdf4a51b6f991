"""What a shape asks of a row: a path to values, and what they must be. Written in the facts as `path: type`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

ITEMS_SEEN: Final = 200
"""Items of a list that a condition looks at: the first show what it holds."""

ANY_BEGINNING: Final = "*"

_STEP = re.compile(r'(?:"([^"]+)"|([^."\[\]{}]+))((?:\[(?:\?|-1)?\]|\{\??\})*)(?:\.|$)')
_EACH = re.compile(r"\[(?:\?|-1)?\]|\{\??\}")
_PATTERN: Final = "text ~ "

Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Condition:
    """One `path: type` of the facts.

    Attributes:
        text: as the facts write it.
        steps: names of members; `[]` each item of a list, `[?]` any of them, `[-1]` the last, `{}` and `{?}`
            likewise of an object. The first may begin with a star: any column that ends with what follows.
        is_met: whether a value that the path leads to is what is asked for.
    """

    text: str
    steps: tuple[str, ...]
    is_met: Check

    @property
    def key(self) -> str:
        """The column that the path begins with."""
        return self.steps[0]

    @property
    def ending(self) -> str:
        """The end of the column's name, where nothing else of it is known; else empty."""
        return self.key[1:] if self.key.startswith(ANY_BEGINNING) else ""

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has what is asked for."""
        if not self.ending:
            return _holds(row, self.steps, self.is_met)
        columns = (value for name, value in row.items() if name.endswith(self.ending))
        return any(_holds(value, self.steps[1:], self.is_met) for value in columns)


def condition(text: str) -> Condition:
    """The condition that a line of the facts states; without a type any value but null will do.

    The type is one of `text`, `list`, `object`, `number`, `bool`, `any`, `json` (a JSON document in a string), `ids`
    (a list of whole numbers), several with ` | ` between them, texts in quotes for what a value must say, or
    `text ~ PATTERN` for a text with a place where a regular expression matches.

    Raises:
        ValueError: it cannot be read.
    """
    path, _, type_text = _split(text)
    steps: list[str] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise ValueError(f"no path of members: {text!r}")
        steps += [match[1] or match[2], *_EACH.findall(match[3])]
        position = match.end()
    return Condition(text, tuple(steps), _check(type_text or "any", text))


def _split(text: str) -> tuple[str, str, str]:
    """Path and type, which the first colon outside quotes parts."""
    quoted = False
    for position, character in enumerate(text):
        quoted ^= character == '"'
        if character == ":" and not quoted:
            return text[:position].strip(), ":", text[position + 1 :].strip()
    return text.strip(), "", ""


def _check(type_text: str, text: str) -> Check:
    if type_text.startswith(_PATTERN):
        pattern = re.compile(type_text.removeprefix(_PATTERN))
        return lambda value: isinstance(value, str) and pattern.search(value) is not None
    names = [name.strip() for name in type_text.split(" | ")]
    words = frozenset(json.loads(name) for name in names if name.startswith('"'))
    checks = [_TYPES[name] for name in names if name in _TYPES]
    if len(checks) + len(words) < len(names):
        raise ValueError(f"no type of a value: {text!r}")
    if not words:
        return checks[0] if len(checks) == 1 else lambda value: any(check(value) for check in checks)
    return lambda value: (isinstance(value, str) and value in words) or any(check(value) for check in checks)


def _holds(value: Any, steps: tuple[str, ...], is_met: Check) -> bool:
    if value is None:
        return False
    if not steps:
        return is_met(value)
    step, following = steps[0], steps[1:]
    if step in {"[]", "[?]"}:
        items: Iterable[Any] = value[:ITEMS_SEEN] if isinstance(value, list) else ()
    elif step == "[-1]":
        items = value[-1:] if isinstance(value, list) else ()
    elif step in {"{}", "{?}"}:
        items = list(value.values())[:ITEMS_SEEN] if isinstance(value, dict) else ()
    else:
        return isinstance(value, Mapping) and _holds(value.get(step), following, is_met)
    if "?" in step:
        return any(_holds(item, following, is_met) for item in items)
    return bool(items) and all(_holds(item, following, is_met) for item in items)


def _is_json(value: Any) -> bool:
    if not isinstance(value, str) or value.lstrip()[:1] not in {"{", "["}:
        return False
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value[:ITEMS_SEEN])


_TYPES: Final[dict[str, Check]] = {
    "text": lambda value: isinstance(value, str),
    "list": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "any": lambda value: value is not None,
    "json": _is_json,
    "ids": _is_ids,
}

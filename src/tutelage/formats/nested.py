"""JSON documents that stand inside a row as text, and what each nested value of a row is held to: depth, keys, text."""

from __future__ import annotations

import json
import marshal
import math
import re
from collections import Counter
from typing import Any, Final

from tutelage.formats.names import DEFAULT_FIELDS
from tutelage.formats.rawrow import LONE_SURROGATE, RowError, has_surrogate, may_hold_surrogate

DEPTH_MAX: Final = 100
"""Lists and objects inside one another, the outermost counted. Templates and pickle recurse, and Python stops at a
thousand frames. Source: parsers that bound it stop at 64 (.NET's System.Text.Json) to 128 (serde_json)."""

SHARED_BYTES_KEPT: Final = 1 << 21
"""Of values that rows have alike, as `marshal` writes them; in memory they take up to ten times as much."""

UNSHARED_MAX: Final = 256
"""So many values more that no row before had than such as one had: a file's values are then each row's own."""

_SHARED_COLUMNS = frozenset(DEFAULT_FIELDS.tools)
_CONTAINERS = frozenset({dict, list})
_PLAIN = frozenset({str, int, bool})
_PYTHON_TOKEN = re.compile(
    r"\s++|[{}\[\]:,]|'(?:[^'\\\n]|\\.)*+'|\"(?:[^\"\\\n]|\\.)*+\"|-?\d++(?:\.\d++)?(?:[eE][+-]?\d++)?|[A-Za-z]++"
)
_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_PYTHON_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PYTHON_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0"}


def document(text: str, reason: str, where: str, *, not_json: str | None = None) -> Any:
    """The value of a JSON document that a cell, an argument or a block holds as text.

    Args:
        text: the document.
        reason: why the row is dropped where the text is no JSON.
        where: what holds it, for the sentence.
        not_json: as in `extent_of`; decoding itself takes NaN and numbers that become infinite.

    Raises:
        RowError: `reason`; `lone_surrogate`, `duplicate_key` or `nested_too_deep` for a document that is JSON.
    """
    try:
        value = _DECODER.decode(text)
    except ValueError as error:
        raise RowError(reason, f"{where}: not JSON ({error}): {text[:60]!r}") from error
    except RecursionError as error:
        raise RowError("nested_too_deep", _too_deep(where)) from error
    has_doubled, is_finite = _DECODER.has_doubled, _DECODER.is_finite
    if may_hold_surrogate(text) and has_surrogate(value):
        raise RowError("lone_surrogate", f"{where}: {LONE_SURROGATE}")
    if not (is_finite and is_simple(text)):
        holds_null(value, where, not_json=not_json)
    if has_doubled and (key := doubled_within(value)) is not None:
        raise RowError("duplicate_key", f"{where}: {stands_twice(key)}")
    return value


def holds_null(value: Any, where: str, *, not_json: str | None = None) -> bool:
    """Whether there is a null in a nested value, which is held to the depth and the numbers of JSON.

    Args:
        value: any value of JSON or of a table.
        where: what holds it, for the sentence.
        not_json: why the row is dropped where something in it cannot be written as JSON: NaN, infinities, and the dates
            and bytes of tables; None lets it pass.

    Raises:
        RowError: `nested_too_deep`, or `not_json`.
    """
    level = [value]
    nulls = False
    for levels_left in range(DEPTH_MAX, -1, -1):
        below: list[Any] = []
        for inner in level:
            kind = type(inner)
            if kind is str:
                continue
            if kind is dict or kind is list or kind is DoubledObject:
                if not levels_left:
                    raise RowError("nested_too_deep", _too_deep(where))
                below += inner if kind is list else inner.values()
            elif inner is None:
                nulls = True
            elif not_json is not None and kind not in _PLAIN:
                _require_number(inner, not_json, where)
        if not below:
            break
        level = below
    return nulls


def is_simple(text: str) -> bool:
    """Whether a JSON text shows that its value holds no null, and is nested no deeper than `holds_null` lets pass.

    Brackets nest no deeper than they are many; those between quotes, and the word, only make the text not simple.
    """
    return "null" not in text and text.count("{") + text.count("[") <= DEPTH_MAX


def _require_number(value: Any, reason: str, where: str) -> None:
    if type(value) is not float:
        raise RowError(reason, f"{where}: a {type(value).__name__} is a value that JSON cannot write")
    if not math.isfinite(value):
        raise RowError(reason, f"{where}: {value} is a number that JSON cannot write")


def _too_deep(where: str) -> str:
    return f"{where}: lists or objects are nested more than {DEPTH_MAX} deep"


class ExactDecoder(json.JSONDecoder):
    """Decodes JSON as `json.loads` does, and notices what that passes over: a key that stands twice in one object.

    Attributes:
        has_doubled: whether one did in the last value; each such object is a `DoubledObject`.
        is_finite: whether the last value holds finite numbers alone.
    """

    def __init__(self) -> None:
        def made_of(items: list[tuple[str, Any]]) -> dict[str, Any]:
            made = dict(items)
            return made if len(made) == len(items) else self._doubled(items)

        super().__init__(object_pairs_hook=made_of, parse_float=self._number, parse_constant=self._number)
        self.has_doubled, self.is_finite = False, True

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """The value that begins at `idx`, and where it ends.

        Raises:
            JSONDecodeError: there is none.
        """
        self.has_doubled, self.is_finite = False, True
        return super().raw_decode(s, idx)

    def _number(self, text: str) -> float:
        number = float(text)  # of NaN and Infinity, too
        self.is_finite &= math.isfinite(number)
        return number

    def _doubled(self, items: list[tuple[str, Any]]) -> DoubledObject:
        self.has_doubled = True
        doubled = DoubledObject(items)
        counts = Counter(key for key, _ in items)
        doubled.key = next(key for key, count in counts.items() if count > 1)
        return doubled


class SharedValues:
    """Values that many rows of a file have alike, such as their tools, each kept once.

    Whoever reads them may then know them by identity.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, Any] = {}
        self._bytes_left = SHARED_BYTES_KEPT
        self._unshared = 0

    def share(self, fields: dict[str, Any]) -> None:
        """Put the equal value of an earlier row in the place of each that rows of a file have alike."""
        if self._unshared > UNSHARED_MAX:
            return
        for name in _SHARED_COLUMNS:
            value = fields.get(name)
            if type(value) in _CONTAINERS:
                fields[name] = self._known_for(value)

    def _known_for(self, value: Any) -> Any:
        try:
            key = marshal.dumps(value, 2)  # tells 1 from True, which `==` does not
        except ValueError:  # nested too deep
            return value
        known = self._known.get(key)
        if known is not None:
            self._unshared = max(0, self._unshared - 1)
            return known
        self._unshared += 1
        if len(key) <= self._bytes_left:
            self._bytes_left -= len(key)
            self._known[key] = value
        return value


class SharedEnds:
    """Ends that many lines of a file have alike, such as `"tools": [...]}`: decoded once, and cut off later lines.

    An end begins with a key and closes one object and no more. So a line that ends in it, and that without it and with
    a bracket in its place is an object, is that object with the same key and value behind the others.
    """

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        self._name, self._mark = "", ""
        self._bytes_left = SHARED_BYTES_KEPT
        self._unshared = 0

    def decoded(self, text: str, decoder: json.JSONDecoder) -> dict[str, Any] | None:
        """The row of a line that ends in a known way; None where it does not, or is not plainly such a row."""
        if not self._mark or self._unshared > UNSHARED_MAX or (place := text.rfind(self._mark)) < 0:
            return None
        known = self._known.get(text[place:])
        if known is None:
            return None
        head = text[:place].rstrip(" \t\r\n")
        try:
            value, end = decoder.raw_decode(f"{head[:-1]}}}")
        except (ValueError, RecursionError):
            return None
        if head[-1:] != "," or end != len(head) or type(value) is not dict or not value or self._name in value:
            return None
        self._unshared = max(0, self._unshared - 1)
        value[self._name] = known
        return value

    def learn(self, text: str, value: Any) -> None:
        """Keep how a line ends whose row has been decoded whole."""
        if self._unshared > UNSHARED_MAX or type(value) is not dict or not value:
            return
        name = next(reversed(value))
        if name not in _SHARED_COLUMNS or type(value[name]) not in _CONTAINERS:
            return
        self._unshared += 1
        mark = f'"{name}":'
        end = text[max(0, text.rfind(mark)) :]
        if len(end) > self._bytes_left or (self._name and name != self._name) or not self._is_end(end, name):
            return
        self._name, self._mark = name, mark
        self._bytes_left -= len(end)
        self._known[end] = value[name]

    def _is_end(self, end: str, name: str) -> bool:
        try:
            alone = _DECODER.decode("{" + end)
        except (ValueError, RecursionError):
            return False
        return list(alone) == [name] and _DECODER.is_finite and not _DECODER.has_doubled


class DoubledObject(dict[str, Any]):
    """A JSON object in which a key stood twice; it holds the last of the two.

    Attributes:
        key: the first such key.
    """

    key: str = ""


def doubled_within(value: Any) -> str | None:
    """The key of the outermost `DoubledObject` inside a value; None where there is none."""
    level = [value]
    while level:
        below: list[Any] = []
        for inner in level:
            if isinstance(inner, DoubledObject):
                return inner.key
            if isinstance(inner, dict):
                below += inner.values()
            elif isinstance(inner, list):
                below += inner
        level = below
    return None


def stands_twice(key: str) -> str:
    """The sentence for a key that stands twice."""
    return f"`{key[:60]}` stands twice in one object, and a reader of JSON keeps the last alone"


_DECODER: Final = ExactDecoder()


def json_of_python(text: str) -> str | None:
    """A value in Python's notation (single quotes, True, None) as JSON text; None where it is something else."""
    pieces: list[str] = []
    place = 0
    while place < len(text):
        match = _PYTHON_TOKEN.match(text, place)
        if match is None:
            return None
        token, place = match[0], match.end()
        if token[0] in "'\"":
            pieces.append(json.dumps(_PYTHON_ESCAPE.sub(_unescaped, token[1:-1])))
        elif token[0].isalpha():
            word = _PYTHON_WORDS.get(token)
            if word is None:
                return None
            pieces.append(word)
        else:
            pieces.append(token)
    return "".join(pieces)


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        return chr(int(escape[1:], 16))
    return _PYTHON_ESCAPES.get(escape, escape if escape in "\\'\"" else match[0])

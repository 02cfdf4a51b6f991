"""JSON documents that stand inside a row as text, and what each nested value of a row is held to: depth, keys, text."""

from __future__ import annotations

import json
import marshal
import math
import re
from collections import Counter
from typing import Any, Final

from tutelage.formats.names import DEFAULT_FIELDS
from tutelage.formats.quick_decoder import QuickDecoder
from tutelage.formats.rawrow import LONE_SURROGATE, RowError, has_surrogate, may_hold_surrogate

DEPTH_MAX: Final = 100
"""Lists and objects inside one another, the outermost counted. Templates and pickle recurse, and Python stops at a
thousand frames. Source: parsers that bound it stop at 64 (.NET's System.Text.Json) to 128 (serde_json)."""

SHARED_BYTES_KEPT: Final = 1 << 21
"""Of values that rows have alike, as `marshal` writes them; in memory they take up to ten times as much."""

UNSHARED_MAX: Final = 256
"""So many values more that no row before had than such as one had: a file's values are then each row's own."""

SHARED_COLUMNS: Final = frozenset(DEFAULT_FIELDS.tools)
"""Columns that rows of a file often have alike."""

_CONTAINERS = frozenset({dict, list})
_PLAIN = frozenset({str, int, bool})
_PYTHON_TOKEN = re.compile(
    r"\s++|[{}\[\]:,]|'(?:[^'\\\n]|\\.)*+'|\"(?:[^\"\\\n]|\\.)*+\"|-?\d++(?:\.\d++)?(?:[eE][+-]?\d++)?|[A-Za-z]++"
)
_PYTHON_LITERALS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_PYTHON_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PYTHON_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0"}


def document(text: str, reason: str, where: str, *, not_json: str | None = None) -> Any:
    """The value of a JSON document that a cell, an argument or a block holds as text.

    Args:
        text: the document.
        reason: why the row is dropped where the text is no JSON.
        where: what holds it, for the sentence.
        not_json: as in `holds_null`; decoding itself takes NaN and numbers that become infinite.

    Raises:
        RowError: `reason`; `lone_surrogate`, `duplicate_key` or `nested_too_deep` for a document that is JSON.
    """
    quick_value = _QUICK.container(text.encode("utf-8", "surrogatepass"))
    if quick_value is not None:
        if not is_simple(text):
            holds_null(quick_value, where, not_json=not_json)
        return quick_value
    try:
        value = _DECODER.decode(text)
    except ValueError as error:
        raise RowError(reason, f"{where}: not JSON ({error}): {text[:60]!r}") from error
    except RecursionError as error:
        raise RowError("nested_too_deep", _depth_sentence(where)) from error
    has_duplicate_key, is_finite = _DECODER.has_duplicate_key, _DECODER.is_finite
    if may_hold_surrogate(text) and has_surrogate(value):
        raise RowError("lone_surrogate", f"{where}: {LONE_SURROGATE}")
    if not (is_finite and is_simple(text)):
        holds_null(value, where, not_json=not_json)
    if has_duplicate_key and (key := duplicate_key_in(value)) is not None:
        raise RowError("duplicate_key", f"{where}: {duplicate_key_sentence(key)}")
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
        next_level: list[Any] = []
        for inner in level:
            value_type = type(inner)
            if value_type is str:
                continue
            if value_type is dict or value_type is list or value_type is DuplicateKeyObject:
                if not levels_left:
                    raise RowError("nested_too_deep", _depth_sentence(where))
                next_level += inner if value_type is list else inner.values()
            elif inner is None:
                nulls = True
            elif not_json is not None and value_type not in _PLAIN:
                _require_number(inner, not_json, where)
        if not next_level:
            break
        level = next_level
    return nulls


def is_simple(text: str | bytes) -> bool:
    """Whether a JSON text shows that its value holds no null, and is nested no deeper than `holds_null` lets pass.

    Brackets nest no deeper than they are many; those between quotes, and the word, only make the text not simple.
    """
    if isinstance(text, bytes):
        return b"null" not in text and text.count(b"{") + text.count(b"[") <= DEPTH_MAX
    return "null" not in text and text.count("{") + text.count("[") <= DEPTH_MAX


def _require_number(value: Any, reason: str, where: str) -> None:
    if type(value) is not float:
        raise RowError(reason, f"{where}: a {type(value).__name__} is a value that JSON cannot write")
    if not math.isfinite(value):
        raise RowError(reason, f"{where}: {value} is a number that JSON cannot write")


def _depth_sentence(where: str) -> str:
    return f"{where}: lists or objects are nested more than {DEPTH_MAX} deep"


class ExactDecoder(json.JSONDecoder):
    """Decodes JSON as `json.loads` does, and notices what that passes over: a key that stands twice in one object.

    Attributes:
        has_duplicate_key: whether one did in the last value; each such object is a `DuplicateKeyObject`.
        is_finite: whether the last value holds finite numbers alone.
    """

    def __init__(self) -> None:
        def object_from(items: list[tuple[str, Any]]) -> dict[str, Any]:
            fields = dict(items)
            return fields if len(fields) == len(items) else self._duplicate_key_object(items)

        super().__init__(object_pairs_hook=object_from, parse_float=self._number, parse_constant=self._number)
        self.has_duplicate_key, self.is_finite = False, True

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """The value that begins at `idx`, and where it ends.

        Raises:
            JSONDecodeError: there is none.
        """
        self.has_duplicate_key, self.is_finite = False, True
        return super().raw_decode(s, idx)

    def _number(self, text: str) -> float:
        number = float(text)  # of NaN and Infinity, too
        self.is_finite &= math.isfinite(number)
        return number

    def _duplicate_key_object(self, items: list[tuple[str, Any]]) -> DuplicateKeyObject:
        self.has_duplicate_key = True
        duplicate = DuplicateKeyObject(items)
        counts = Counter(key for key, _ in items)
        duplicate.key = next(key for key, count in counts.items() if count > 1)
        return duplicate


class SharedValues:
    """Values that many rows of a file have alike, such as their tools, each kept once.

    Whoever reads them may then know them by identity.
    """

    def __init__(self) -> None:
        self._cache: dict[bytes, Any] = {}
        self._bytes_left = SHARED_BYTES_KEPT
        self._unshared = 0

    def share(self, fields: dict[str, Any]) -> None:
        """Put the equal value of an earlier row in the place of each that rows of a file have alike."""
        if self._unshared > UNSHARED_MAX:
            return
        for name in SHARED_COLUMNS:
            value = fields.get(name)
            if type(value) in _CONTAINERS:
                fields[name] = self._shared(value)

    def _shared(self, value: Any) -> Any:
        try:
            key = marshal.dumps(value, 2)  # tells 1 from True, which `==` does not
        except ValueError:  # nested too deep
            return value
        shared_value = self._cache.get(key)
        if shared_value is not None:
            self._unshared = max(0, self._unshared - 1)
            return shared_value
        self._unshared += 1
        if len(key) <= self._bytes_left:
            self._bytes_left -= len(key)
            self._cache[key] = value
        return value


class SharedEndings:
    """Ends that many lines of a file have alike, such as `"tools": [...]}`: decoded once, and cut off later lines.

    An end begins with a key and closes one object and no more. So a line that ends in it, and that without it and with
    a bracket in its place is an object, is that object with the same key and value behind the others.

    Attributes:
        key_text: what the known ends begin with; nothing while none is known.
    """

    def __init__(self) -> None:
        self._cache: dict[bytes, Any] = {}
        self._name, self.key_text = "", b""
        self._bytes_left = SHARED_BYTES_KEPT
        self._unshared = 0

    def decoded(self, line: bytes, decoder: QuickDecoder) -> dict[str, Any] | None:
        """The row of a line that ends in a known way; None where it does not, or is not plainly such a row."""
        if not self.key_text or self._unshared > UNSHARED_MAX or (position := line.rfind(self.key_text)) < 0:
            return None
        ending_value = self._cache.get(line[position:])
        if ending_value is None:
            return None
        head = line[:position].rstrip(b" \t\r\n")
        value = decoder.container(head[:-1] + b"}") if head[-1:] == b"," else None
        if not value or self._name in value:
            return None
        self._unshared = max(0, self._unshared - 1)
        row: dict[str, Any] = value  # it ends in a brace
        row[self._name] = ending_value
        return row

    def add(self, line: bytes, value: Any) -> None:
        """Keep how a line ends whose row has been decoded whole."""
        if self._unshared > UNSHARED_MAX or type(value) is not dict or not value:
            return
        name = next(reversed(value))
        if name not in SHARED_COLUMNS or type(value[name]) not in _CONTAINERS:
            return
        self._unshared += 1
        key_text = f'"{name}":'.encode()
        ending = line[max(0, line.rfind(key_text)) :]
        if len(ending) > self._bytes_left or (self._name and name != self._name) or not self._is_ending(ending, name):
            return
        self._name, self.key_text = name, key_text
        self._bytes_left -= len(ending)
        self._cache[ending] = value[name]

    def _is_ending(self, ending: bytes, name: str) -> bool:
        parsed = _QUICK.container(b"{" + ending)
        return type(parsed) is dict and list(parsed) == [name]


class DuplicateKeyObject(dict[str, Any]):
    """A JSON object in which a key stood twice; it holds the last of the two.

    Attributes:
        key: the first such key.
    """

    key: str = ""


def duplicate_key_in(value: Any) -> str | None:
    """The key of the outermost `DuplicateKeyObject` inside a value; None where there is none."""
    level = [value]
    while level:
        next_level: list[Any] = []
        for inner in level:
            if isinstance(inner, DuplicateKeyObject):
                return inner.key
            if isinstance(inner, dict):
                next_level += inner.values()
            elif isinstance(inner, list):
                next_level += inner
        level = next_level
    return None


def duplicate_key_sentence(key: str) -> str:
    """The sentence for a key that stands twice."""
    return f"`{key[:60]}` stands twice in one object, and a reader of JSON keeps the last alone"


_DECODER: Final = ExactDecoder()
_QUICK: Final = QuickDecoder()


def json_of_python(text: str) -> str | None:
    """A value in Python's notation (single quotes, True, None) as JSON text; None where it is something else."""
    pieces: list[str] = []
    position = 0
    while position < len(text):
        match = _PYTHON_TOKEN.match(text, position)
        if match is None:
            return None
        token, position = match[0], match.end()
        if token[0] in "'\"":
            pieces.append(json.dumps(_PYTHON_ESCAPE.sub(_unescaped, token[1:-1])))
        elif token[0].isalpha():
            literal = _PYTHON_LITERALS.get(token)
            if literal is None:
                return None
            pieces.append(literal)
        else:
            pieces.append(token)
    return "".join(pieces)


def _unescaped(match: re.Match[str]) -> str:
    escape = match[1]
    if len(escape) > 1:
        return chr(int(escape[1:], 16))
    return _PYTHON_ESCAPES.get(escape, escape if escape in "\\'\"" else match[0])

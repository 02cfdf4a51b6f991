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

_COLON_AFTER_SPACE = re.compile(r":(?<=[ \t\r\n]:)")  # begins with a letter: sought many times faster than a set
_SPACE_BEFORE_COLON = re.compile(r'"[ \t\r\n]++:')
SHARED_BYTES_KEPT: Final = 1 << 21
"""Of values that rows have alike, as `marshal` writes them; in memory they take up to ten times as much."""

_UNSHARED_MAX: Final = 256
"""So many values more that no row before had than such as one had: a file's values are then each row's own."""

_SHARED_COLUMNS = frozenset(DEFAULT_FIELDS.tools)
_CONTAINERS = frozenset({dict, list})
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
        value = json.loads(text)
    except ValueError as error:
        raise RowError(reason, f"{where}: not JSON ({error}): {text[:60]!r}") from error
    except RecursionError as error:
        raise RowError("nested_too_deep", _too_deep(where)) from error
    if may_hold_surrogate(text) and has_surrogate(value):
        raise RowError("lone_surrogate", f"{where}: {LONE_SURROGATE}")
    if extent_of(value, where, not_json=not_json)[0] < pairs_in(text) and (key := doubled_key(text)) is not None:
        raise RowError("duplicate_key", f"{where}: {stands_twice(key)}")
    return value


def extent_of(value: Any, where: str, *, not_json: str | None = None) -> tuple[int, bool]:
    """How many key-value pairs all objects of a nested value hold together, and whether there is a null in it.

    Args:
        value: any value of JSON or of a table.
        where: what holds it, for the sentence.
        not_json: why the row is dropped where something in it cannot be written as JSON: NaN, infinities, and the dates
            and bytes of tables; None lets it pass.

    Raises:
        RowError: `nested_too_deep`, or `not_json`.
    """
    level = [value]
    pairs, nulls = 0, False
    for _ in range(DEPTH_MAX + 1):
        below: list[Any] = []
        for inner in level:
            kind = type(inner)
            if kind is str:
                continue
            if kind is dict:
                pairs += len(inner)
                below += inner.values()
            elif kind is list:
                below += inner
            elif inner is None:
                nulls = True
            elif not_json is not None and kind is not int and kind is not bool:
                _require_number(inner, not_json, where)
        if not below:
            return pairs, nulls
        level = below
    raise RowError("nested_too_deep", _too_deep(where))


def _require_number(value: Any, reason: str, where: str) -> None:
    if type(value) is not float:
        raise RowError(reason, f"{where}: a {type(value).__name__} is a value that JSON cannot write")
    if not math.isfinite(value):
        raise RowError(reason, f"{where}: {value} is a number that JSON cannot write")


def _too_deep(where: str) -> str:
    return f"{where}: lists or objects are nested more than {DEPTH_MAX} deep"


def pairs_in(text: str) -> int:
    """How many key-value pairs a JSON text writes, or more, but for words between quotes that look like some."""
    return _pairs_or_more(text) - _pairs_quoted(text)


def _pairs_or_more(text: str) -> int:
    """Quotes before a colon, white space between them or not: each pair has such, words inside a string may."""
    pairs = text.count('":')
    if _COLON_AFTER_SPACE.search(text) is not None:
        pairs += len(_SPACE_BEFORE_COLON.findall(text))
    return pairs


def _pairs_quoted(text: str) -> int:
    """How many of them are no pairs of the text for sure: their quote is escaped, so it stands inside a string."""
    quoted = text.count('\\":') if "\\" in text else 0
    # Behind two backslashes the quote may be the end of a key that ends in a backslash.
    return quoted - text.count('\\\\":') if quoted else 0


class SharedValues:
    """Values that many rows of a file have alike, such as their tools: each kept once, with its count of pairs.

    Whoever reads them may then know them by identity.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Any, int]] = {}
        self._bytes_left = SHARED_BYTES_KEPT
        self._unshared = 0

    def pairs_of(self, fields: dict[str, Any], name: str) -> int:
        """The pairs in a field; an equal value of an earlier row takes its place."""
        value = fields[name]
        if self._unshared > _UNSHARED_MAX:
            return _all_pairs(value)
        try:
            key = marshal.dumps(value, 2)  # tells 1 from True, which `==` does not
        except ValueError:  # nested too deep
            return _all_pairs(value)
        known = self._known.get(key)
        if known is not None:
            self._unshared = max(0, self._unshared - 1)
            fields[name] = known[0]
            return known[1]
        self._unshared += 1
        pairs = _all_pairs(value)
        if len(key) <= self._bytes_left:
            self._bytes_left -= len(key)
            self._known[key] = value, pairs
        return pairs


def doubled_in_row(text: str, fields: dict[str, Any], shared: SharedValues) -> str | None:
    """The key that stands twice in one object of a decoded row; None where each stands once.

    Decoding keeps the last of two and says nothing, so the pairs that the text writes are counted against those that
    came out. The counts that take least time come first: what is no less than the pairs written and no more than
    those that came out is both.
    """
    pairs, held = _pairs_or_more(text), len(fields)
    for value in fields.values():
        if type(value) is list:
            for item in value:
                if type(item) is dict:
                    held += len(item)
    if held == pairs:
        return None
    held = len(fields)
    for name, value in fields.items():
        if type(value) in _CONTAINERS:
            held += shared.pairs_of(fields, name) if name in _SHARED_COLUMNS else _all_pairs(value)
    if held == pairs or held == pairs - _pairs_quoted(text):
        return None
    return doubled_key(text)


def doubled_key(text: str) -> str | None:
    """The key that stands twice in the outermost such object of a JSON text that decodes."""
    return doubled_within(json.loads(text, object_pairs_hook=_kept))


class DoubledObject(dict[str, Any]):
    """A JSON object in which a key stood twice; it holds the last of the two.

    Attributes:
        key: the first such key.
    """

    key: str = ""


def _kept(items: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(items)
    if len(made) == len(items):
        return made
    doubled = DoubledObject(made)
    counts = Counter(key for key, _ in items)
    doubled.key = next(key for key, count in counts.items() if count > 1)
    return doubled


def with_doubled(text: str, value: Any) -> Any:
    """`value`, decoded from a JSON text, in which each object with a key that stood twice is a `DoubledObject`."""
    return value if _all_pairs(value) == pairs_in(text) else json.loads(text, object_pairs_hook=_kept)


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


def _all_pairs(value: dict[str, Any] | list[Any]) -> int:
    pairs = 0
    waiting: list[Any] = [value]
    for outer in waiting:  # which grows meanwhile
        if type(outer) is dict:
            pairs += len(outer)
            for inner in outer.values():
                if type(inner) in _CONTAINERS:
                    waiting.append(inner)
        else:
            for inner in outer:
                if type(inner) in _CONTAINERS:
                    waiting.append(inner)
    return pairs


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

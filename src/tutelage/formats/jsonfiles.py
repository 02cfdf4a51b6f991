"""Rows of JSON files: one object a line, an array of objects, an object that wraps one array, or a single object."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from tutelage.formats.bytestream import ByteStream
from tutelage.formats.names import TURN_KEYS
from tutelage.formats.nested import (
    DoubledObject,
    ExactDecoder,
    SharedEnds,
    SharedValues,
    doubled_within,
    stands_twice,
)
from tutelage.formats.rawrow import RawRow, RawRows, bad_bytes, may_hold_surrogate, row_or_drop
from tutelage.types import Address, Drop

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_ROW_START = re.compile(r"\n([ \t]*)\{")
_SPACE_BEFORE = re.compile(r"[ \t\r\n]*\n([ \t]*)\Z")
_MARK = "\ufeff"
_LINE_ENDS = frozenset({"\n", "", "\r\n"})


def json_lines(stream: ByteStream, shown: str, *, glance: bool = False) -> RawRows:
    """Rows of a JSON lines file, in constant memory; blank lines are no rows.

    Args:
        stream: the file.
        shown: its name in addresses.
        glance: leave out the search for keys that stand twice, and the addresses of good rows, for a pass that only
            counts columns.
    """
    number, shared, whole = 0, SharedValues(), Address(shown, 1)
    decoder, ends = _DECODER if glance else ExactDecoder(), SharedEnds()
    for line in stream.lines():
        number += 1
        if line.isspace() or not line:
            continue
        try:
            text = line.decode("utf-8")
            ended = ends.decoded(text, decoder)
            value = _value(text, decoder) if ended is None else ended
        except (ValueError, RecursionError) as error:
            yield _second_look(line, Address(shown, number), error)
            continue
        halves = may_hold_surrogate(text)
        if isinstance(decoder, ExactDecoder):
            row = checked_row(Address(shown, number), value, text, decoder, look_for_surrogates=halves)
            if ended is None and isinstance(row, RawRow):
                shared.share(value)
                ends.learn(text, value)
            yield row
            continue
        if ended is None:
            ends.learn(text, value)
        if type(value) is dict and not halves:
            yield RawRow(whole, value)
        else:
            yield row_or_drop(Address(shown, number), value, look_for_surrogates=halves)
    if stream.damage is not None:
        yield stream.damage_drop(Address(shown, number + 1))


def _value(text: str, decoder: json.JSONDecoder) -> Any:
    """What `json.loads` gives, a little sooner for a line that begins with its value and ends right after it."""
    try:
        value, end = decoder.raw_decode(text)
    except json.JSONDecodeError:
        return decoder.decode(text)
    return value if text[end:] in _LINE_ENDS else decoder.decode(text)


def checked_row(
    address: Address, value: Any, text: str, decoder: ExactDecoder, *, look_for_surrogates: bool
) -> RawRow | Drop:
    """A decoded JSON text as a row, or the Drop that says why it is none: no object, no text, or a key lost in it.

    Args:
        address: of the row.
        value: what the text decodes to.
        text: as the file has it.
        decoder: that decoded it last.
        look_for_surrogates: the text escapes half of a surrogate pair.
    """
    row = row_or_drop(address, value, look_for_surrogates=look_for_surrogates)
    if isinstance(row, RawRow):
        if decoder.has_doubled and (key := doubled_within(value)) is not None:
            return Drop(address, "duplicate_key", stands_twice(key))
        row.text = text if decoder.is_finite else None
    return row


def _second_look(line: bytes, address: Address, error: Exception) -> RawRow | Drop:
    """A line that did not decode: the reason, or the row where a byte-order mark stood before it."""
    if isinstance(error, UnicodeDecodeError):
        return Drop(address, "invalid_utf8", bad_bytes(line.decode("utf-8", "surrogateescape")) or str(error))
    text = line.decode("utf-8")
    if text.startswith(_MARK):
        decoder = ExactDecoder()
        try:
            value = decoder.decode(text[1:])
            return checked_row(address, value, text[1:], decoder, look_for_surrogates=True)
        except (ValueError, RecursionError) as inner:
            text, error = text[1:], inner
    cut = not text.endswith("\n")
    tail = "; the file ends in this line, so it was probably cut short" if cut else ""
    return Drop(address, "bad_json", _sentence(text, error, of_line=True) + tail)


def _sentence(text: str, error: Exception, *, of_line: bool) -> str:
    if isinstance(error, json.JSONDecodeError):
        place = f"column {error.colno}" if of_line else f"line {error.lineno}, column {error.colno}"
        found = text[error.pos : error.pos + 30].strip()
        return f"{place}: {error.msg}, found {found!r}" if found else f"{place}: {error.msg}, found the end"
    if isinstance(error, RecursionError):
        return "lists or objects are nested too deep to read"
    return str(error)


def json_document(
    stream: ByteStream, shown: str, *, is_row: Callable[[Mapping[str, Any]], bool], note: Callable[[str], None]
) -> RawRows:
    """Rows of a JSON document, held in memory whole.

    Args:
        stream: the file.
        shown: its name in addresses; list items count from 0.
        is_row: whether an object is a row by itself, and so no wrapper around a list of rows.
        note: told what cannot be said of one row.
    """
    text = stream.read_all().decode("utf-8", "surrogateescape")
    if stream.damage is not None:
        note(f"{shown} is a damaged gzip file; only the rows before the damage were read")
    checks = _Checks(escaped=bad_bytes(text) is not None, surrogates=may_hold_surrogate(text), damaged=stream.damage)
    start = _skip(text, 0)
    if text[start : start + 1] == "[":
        yield from _arrays(text, start, shown, checks, note)
        return
    yield from _objects(text, start, shown, checks, is_row)


class _Checks:
    """What to look for in each row of a document; found once for the whole text, as most files need none of it."""

    def __init__(self, *, escaped: bool, surrogates: bool, damaged: str | None) -> None:
        self.escaped, self.surrogates, self.damaged = escaped, surrogates, damaged
        self.shared, self.decoder = SharedValues(), ExactDecoder()

    def row(self, address: Address, value: Any, source: str) -> RawRow | Drop:
        """The row that was decoded last."""
        if self.escaped and (detail := bad_bytes(source)) is not None:
            return Drop(address, "invalid_utf8", detail)
        row = checked_row(address, value, source, self.decoder, look_for_surrogates=self.surrogates)
        if isinstance(row, RawRow):
            self.shared.share(value)
        return row

    def failure(self, address: Address, text: str, error: Exception, where: int) -> Drop:
        at_end = _skip(text, where) == len(text) or (isinstance(error, ValueError) and "Unterminated" in str(error))
        if at_end and self.damaged is not None:
            return Drop(address, "damaged_gzip", f"the gzip stream is damaged ({self.damaged}); the rest is lost")
        tail = "; the file ends here, so it was probably cut short" if at_end else ""
        return Drop(address, "bad_json", _sentence(text, error, of_line=False) + tail)


def _arrays(text: str, start: int, shown: str, checks: _Checks, note: Callable[[str], None]) -> RawRows:
    """Items of an array, and of those that follow it; anything else after an array is one Drop."""
    index, place = 0, start
    while place < len(text):
        if text[place] != "[":
            address = Address(shown, text.count("\n", 0, place) + 1)
            yield Drop(address, "bad_json", f"after the end of the array, found {text[place : place + 30]!r}")
            return
        index, place = yield from _array(text, (place, index), shown, checks, note)


def _array(
    text: str, start: tuple[int, int], shown: str, checks: _Checks, note: Callable[[str], None]
) -> Generator[RawRow | Drop, None, tuple[int, int]]:
    """Items of an array one by one, so that a damaged item costs itself and not the file.

    Starts at the place of its `[` with the index of its first item; returns the index and place after it.
    """
    opening, index = start
    place = _skip(text, opening + 1)
    before = _SPACE_BEFORE.match(text, opening + 1, place)
    indent = "" if before is None else before[1]
    own_lines = before is not None
    while text[place : place + 1] != "]":
        address = Address(shown, index, "item")
        try:
            value, end = checks.decoder.raw_decode(text, place)
            after = _skip(text, end)
            if text[after : after + 1] not in {",", "]"}:
                raise json.JSONDecodeError("Expecting ',' or ']' after an item", text, after)
        except (ValueError, RecursionError) as error:
            where = error.pos if isinstance(error, json.JSONDecodeError) else place
            yield checks.failure(address, text, error, where)
            resumed = _next_row(text, place, indent) if own_lines else None
            if resumed is None:
                line = text.count("\n", 0, where) + 1
                note(f"{shown} is damaged at line {line}: nothing after item {index} could be read")
                return index, len(text)
            index, place = index + 1, resumed
            continue
        yield checks.row(address, value, text[place:end])
        index += 1
        place = _skip(text, after + 1) if text[after] == "," else after
    return index, _skip(text, place + 1)


def _next_row(text: str, place: int, indent: str) -> int | None:
    """Where the next line with a `{` at the array's own indent stands."""
    for match in _ROW_START.finditer(text, place):
        if match[1] == indent:
            return match.end() - 1
    return None


def _objects(
    text: str, start: int, shown: str, checks: _Checks, is_row: Callable[[Mapping[str, Any]], bool]
) -> RawRows:
    """One object, or several one after another; a single one that is no row may wrap a list of rows."""
    place, counted, line = start, 0, 1
    while place < len(text):
        line, counted = line + text.count("\n", counted, place), place
        address = Address(shown, line)
        try:
            value, end = checks.decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            where = error.pos if isinstance(error, json.JSONDecodeError) else place
            yield checks.failure(address, text, error, where)
            resumed = _next_row(text, place, "")
            if resumed is None:
                return
            place = resumed
            continue
        source = text[place:end]
        alone, place = place == start and _skip(text, end) == len(text), _skip(text, end)
        if not alone or _wrapped(value, is_row) is None:
            yield checks.row(address, value, source)
        else:
            yield from _wrapped_rows(value, address, is_row, checks)


def _wrapped(value: Any, is_row: Callable[[Mapping[str, Any]], bool]) -> list[Any] | None:
    """The one list of objects inside an object that is no row itself."""
    if not isinstance(value, dict):
        return None
    lists = [one for one in value.values() if isinstance(one, list) and one and isinstance(one[0], dict)]
    if len(lists) != 1:
        return None
    first = lists[0][0]
    items_are_turns = any(key in first for key in TURN_KEYS["role"])
    if is_row(value) and (items_are_turns or not is_row(first)):
        return None
    return list(lists[0])


def _wrapped_rows(
    value: Any, address: Address, is_row: Callable[[Mapping[str, Any]], bool], checks: _Checks
) -> Iterator[RawRow | Drop]:
    if isinstance(value, DoubledObject):
        yield Drop(address, "duplicate_key", stands_twice(value.key))
        return
    for index, item in enumerate(_wrapped(value, is_row) or ()):
        place = Address(address.file, index, "item")
        if (key := doubled_within(item)) is not None:
            yield Drop(place, "duplicate_key", stands_twice(key))
        elif checks.escaped and (detail := bad_bytes(json.dumps(item, ensure_ascii=False))) is not None:
            yield Drop(place, "invalid_utf8", detail)
        else:
            yield row_or_drop(place, item, look_for_surrogates=checks.surrogates)


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    assert match is not None
    return match.end()

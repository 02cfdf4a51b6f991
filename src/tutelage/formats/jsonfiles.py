"""Rows of JSON files: one object a line, an array of objects, an object that wraps one array, or a single object."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from tutelage.formats.bytestream import ByteStream
from tutelage.formats.names import TURN_KEYS, WRAPPER_KEYS
from tutelage.formats.nested import (
    SHARED_COLUMNS,
    DuplicateKeyObject,
    ExactDecoder,
    SharedEndings,
    SharedValues,
    duplicate_key_in,
    duplicate_key_sentence,
)
from tutelage.formats.quick_decoder import QuickDecoder
from tutelage.formats.quick_documents import items_of, opening_of
from tutelage.formats.rawrow import (
    LONE_SURROGATE,
    RawRow,
    RawRows,
    bad_bytes,
    has_surrogate,
    json_type,
    may_hold_surrogate,
)
from tutelage.types import Address, Drop

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_ROW_START = re.compile(r"\n([ \t]*)\{")
_ITEM_INDENT = re.compile(r"[ \t\r\n]*\n([ \t]*)\Z")
_CANARY = re.compile(rb'[ \t\n\r]*\{\s*"canary"\s*:')
"""How BIG-bench and its parts begin: an object that says it is a benchmark, around its questions."""

_BOM = "\ufeff"
_SIDE_BY_SIDE = re.compile(rb"\}[ \t]*\{")
RowTests = tuple[Callable[[Mapping[str, Any]], bool], Callable[[Mapping[str, Any]], bool], Callable[[str], None]]
"""Whether an object is a row by itself, whether it is one for sure, whatever list it holds, and what takes a note."""


def json_lines(stream: ByteStream, display_name: str) -> RawRows:
    """Rows of a JSON lines file, in constant memory; blank lines are no rows.

    Args:
        stream: the file.
        display_name: its name in addresses.
    """
    line_number, quick, exact = 0, QuickDecoder(), ExactDecoder()
    shared_values, shared_endings = SharedValues(), SharedEndings()
    for line in stream.lines():
        line_number += 1
        value = shared_endings.decoded(line, quick) if shared_endings.key_text else None
        if value is None:
            value = quick.container(line)
            if type(value) is not dict:
                yield from _exact_rows(line, Address(display_name, line_number), exact, shared_values)
                continue
            if not SHARED_COLUMNS.isdisjoint(value):
                shared_values.share(value)
                shared_endings.add(line, value)
        yield RawRow(Address(display_name, line_number), value, False, line)
    if stream.damage is not None:
        yield stream.damage_drop(Address(display_name, line_number + 1))


def _exact_rows(line: bytes, address: Address, decoder: ExactDecoder, shared_values: SharedValues) -> RawRows:
    """The row of a line that the quick decoder passed on, or the Drop; nothing of a blank line."""
    if line.isspace() or not line:
        return
    try:
        text = line.decode("utf-8")
        value = decoder.decode(text)
    except (ValueError, RecursionError) as error:
        yield from _side_by_side(line, address, decoder) or [_retry_without_bom(line, address, error)]
        return
    row = checked_row(address, value, line, decoder, check_surrogates=may_hold_surrogate(text))
    if isinstance(row, RawRow):
        shared_values.share(value)
    yield row


def checked_row(
    address: Address, value: Any, text: str | bytes, decoder: ExactDecoder, *, check_surrogates: bool
) -> RawRow | Drop:
    """A decoded JSON text as a row, or the Drop that says why it is none: no object, no text, or a key lost in it.

    Args:
        address: of the row.
        value: what the text decodes to.
        text: as the file has it.
        decoder: that decoded it last.
        check_surrogates: the text escapes half of a surrogate pair.
    """
    row = _row_or_drop(address, value, check_surrogates=check_surrogates)
    if isinstance(row, RawRow):
        if decoder.has_duplicate_key and (key := duplicate_key_in(value)) is not None:
            return Drop(address, "duplicate_key", duplicate_key_sentence(key))
        row.text = text if decoder.is_finite else None
    return row


def _row_or_drop(address: Address, value: Any, *, check_surrogates: bool) -> RawRow | Drop:
    """A decoded JSON value as a row, or the Drop that says why it is none."""
    if not isinstance(value, dict):
        excerpt = "" if isinstance(value, list) else f": {json.dumps(value)[:60]}"
        return Drop(address, "not_an_object", f"a row must be a JSON object, found {json_type(value)}{excerpt}")
    if check_surrogates and has_surrogate(value):
        return Drop(address, "lone_surrogate", LONE_SURROGATE)
    return RawRow(address, value)


def _side_by_side(line: bytes, address: Address, decoder: ExactDecoder) -> list[RawRow | Drop]:
    """The rows of a line that holds several objects with nothing between them; none where it holds anything else."""
    rows: list[RawRow | Drop] = []
    if _SIDE_BY_SIDE.search(line) is None:
        return rows
    try:
        text = line.decode("utf-8").strip()
        position = 0
        while position < len(text):
            value, end = decoder.raw_decode(text, position)
            source = text[position:end]
            rows.append(checked_row(address, value, source, decoder, check_surrogates=may_hold_surrogate(source)))
            position = _skip_whitespace(text, end)
    except (ValueError, RecursionError):
        return []
    return rows


def _retry_without_bom(line: bytes, address: Address, error: Exception) -> RawRow | Drop:
    """A line that did not decode: the reason, or the row where a byte-order mark stood before it."""
    if isinstance(error, UnicodeDecodeError):
        return Drop(address, "invalid_utf8", bad_bytes(line.decode("utf-8", "surrogateescape")) or str(error))
    text = line.decode("utf-8")
    if text.startswith(_BOM):
        decoder = ExactDecoder()
        try:
            value = decoder.decode(text[1:])
            return checked_row(address, value, text[1:], decoder, check_surrogates=True)
        except (ValueError, RecursionError) as inner_error:
            text, error = text[1:], inner_error
    is_truncated = not text.endswith("\n")
    tail = "; the file ends in this line, so it was probably cut short" if is_truncated else ""
    return Drop(address, "bad_json", _decode_error_text(text, error, of_line=True) + tail)


def _decode_error_text(text: str, error: Exception, *, of_line: bool) -> str:
    if isinstance(error, json.JSONDecodeError):
        position = f"column {error.colno}" if of_line else f"line {error.lineno}, column {error.colno}"
        excerpt = text[error.pos : error.pos + 30].strip()
        return f"{position}: {error.msg}, found {excerpt!r}" if excerpt else f"{position}: {error.msg}, found the end"
    if isinstance(error, RecursionError):
        return "lists or objects are nested too deep to read"
    return str(error)


def json_document(
    stream: ByteStream,
    display_name: str,
    *,
    is_row: Callable[[Mapping[str, Any]], bool],
    note: Callable[[str], None],
    is_whole: Callable[[Mapping[str, Any]], bool] = lambda _row: False,
) -> RawRows:
    """Rows of a JSON document, held in memory whole.

    Args:
        stream: the file.
        display_name: its name in addresses; list items count from 0.
        is_row: whether an object is a row by itself, and so no wrapper around a list of rows.
        note: told what cannot be said of one row.
        is_whole: whether an object is a row for sure, whatever list it holds.
    """
    document = stream.read_all()
    if _CANARY.match(document):
        note(f"{display_name} holds a canary: it is a benchmark, and to train on it makes it measure nothing")
    tests = (is_row, is_whole, note)
    if stream.damage is None and (rows := _quick_rows(document, display_name, tests)) is not None:
        yield from rows
        return
    text = document.decode("utf-8", "surrogateescape")
    del document  # it may be as large as the text
    if stream.damage is not None:
        note(f"{display_name} is a damaged gzip file; only the rows before the damage were read")
    checks = _Checks(escaped=bad_bytes(text) is not None, surrogates=may_hold_surrogate(text), damaged=stream.damage)
    start = _skip_whitespace(text, 0)
    if text[start : start + 1] == "[":
        yield from _arrays(text, start, display_name, checks, note)
        return
    yield from _objects(text, start, display_name, checks, tests)


def _quick_rows(document: bytes, display_name: str, tests: RowTests) -> RawRows | None:
    """The rows of a document that is one array, or one object that is plainly JSON; None for any other."""
    opening, line = opening_of(document)
    if opening == b"[":
        items = items_of(document)
        return None if items is None else _items(items, display_name)
    value = QuickDecoder().container(document) if opening == b"{" else None
    if value is None:
        return None
    address = Address(display_name, line)
    if _wrapped_list(value, tests) is None:
        return iter((RawRow(address, value, False, document),))
    return _wrapped_rows(value, address, tests, None)


def _items(items: Iterator[bytes], display_name: str) -> RawRows:
    quick, checks = QuickDecoder(), _Checks(escaped=False, surrogates=False, damaged=None)
    for index, item in enumerate(items):
        address = Address(display_name, index, "item")
        value = quick.container(item)
        if type(value) is not dict:
            yield checks.item(address, item)
            continue
        if not SHARED_COLUMNS.isdisjoint(value):
            checks.shared.share(value)
        yield RawRow(address, value, False, item)


class _Checks:
    """What to look for in each row of a document; found once for the whole text, as most files need none of it."""

    def __init__(self, *, escaped: bool, surrogates: bool, damaged: str | None) -> None:
        self.escaped, self.surrogates, self.damaged = escaped, surrogates, damaged
        self.shared, self.decoder = SharedValues(), ExactDecoder()

    def row(self, address: Address, value: Any, source: str) -> RawRow | Drop:
        """The row that was decoded last."""
        if self.escaped and (detail := bad_bytes(source)) is not None:
            return Drop(address, "invalid_utf8", detail)
        row = checked_row(address, value, source, self.decoder, check_surrogates=self.surrogates)
        if isinstance(row, RawRow):
            self.shared.share(value)
        return row

    def item(self, address: Address, item: bytes) -> RawRow | Drop:
        """The row of an item whose end is known, whatever is in it."""
        text = item.decode("utf-8", "surrogateescape")
        self.escaped, self.surrogates = bad_bytes(text) is not None, may_hold_surrogate(text)
        try:
            value = self.decoder.decode(text)
        except (ValueError, RecursionError) as error:
            return Drop(address, "bad_json", _decode_error_text(text, error, of_line=False))
        return self.row(address, value, text)

    def failure(self, address: Address, text: str, error: Exception, position: int) -> Drop:
        at_end = _skip_whitespace(text, position) == len(text) or (
            isinstance(error, ValueError) and "Unterminated" in str(error)
        )
        if at_end and self.damaged is not None:
            return Drop(address, "damaged_gzip", f"the gzip stream is damaged ({self.damaged}); the rest is lost")
        tail = "; the file ends here, so it was probably cut short" if at_end else ""
        return Drop(address, "bad_json", _decode_error_text(text, error, of_line=False) + tail)


def _arrays(text: str, start: int, display_name: str, checks: _Checks, note: Callable[[str], None]) -> RawRows:
    """Items of an array, and of those that follow it; anything else after an array is one Drop."""
    index, position = 0, start
    while position < len(text):
        if text[position] != "[":
            address = Address(display_name, text.count("\n", 0, position) + 1)
            yield Drop(address, "bad_json", f"after the end of the array, found {text[position : position + 30]!r}")
            return
        index, position = yield from _array(text, (position, index), display_name, checks, note)


def _array(
    text: str, start: tuple[int, int], display_name: str, checks: _Checks, note: Callable[[str], None]
) -> Generator[RawRow | Drop, None, tuple[int, int]]:
    """Items of an array one by one, so that a damaged item costs itself and not the file.

    Starts at the place of its `[` with the index of its first item; returns the index and place after it.
    """
    opening, index = start
    position = _skip_whitespace(text, opening + 1)
    indent_match = _ITEM_INDENT.match(text, opening + 1, position)
    indent = "" if indent_match is None else indent_match[1]
    items_on_own_lines = indent_match is not None
    while text[position : position + 1] != "]":
        address = Address(display_name, index, "item")
        try:
            value, end = checks.decoder.raw_decode(text, position)
            next_position = _skip_whitespace(text, end)
            if text[next_position : next_position + 1] not in {",", "]"}:
                raise json.JSONDecodeError("Expecting ',' or ']' after an item", text, next_position)
        except (ValueError, RecursionError) as error:
            error_position = error.pos if isinstance(error, json.JSONDecodeError) else position
            yield checks.failure(address, text, error, error_position)
            resume_position = _next_row_position(text, position, indent) if items_on_own_lines else None
            if resume_position is None:
                line = text.count("\n", 0, error_position) + 1
                note(f"{display_name} is damaged at line {line}: nothing after item {index} could be read")
                return index, len(text)
            index, position = index + 1, resume_position
            continue
        yield checks.row(address, value, text[position:end])
        index += 1
        position = _skip_whitespace(text, next_position + 1) if text[next_position] == "," else next_position
    return index, _skip_whitespace(text, position + 1)


def _next_row_position(text: str, position: int, indent: str) -> int | None:
    """Where the next line with a `{` at the array's own indent stands."""
    for match in _ROW_START.finditer(text, position):
        if match[1] == indent:
            return match.end() - 1
    return None


def _objects(text: str, start: int, display_name: str, checks: _Checks, tests: RowTests) -> RawRows:
    """One object, or several one after another; a single one that is no row may wrap a list of rows."""
    position, counted_position, line = start, 0, 1
    while position < len(text):
        line, counted_position = line + text.count("\n", counted_position, position), position
        address = Address(display_name, line)
        try:
            value, end = checks.decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            error_position = error.pos if isinstance(error, json.JSONDecodeError) else position
            yield checks.failure(address, text, error, error_position)
            resume_position = _next_row_position(text, position, "")
            if resume_position is None:
                return
            position = resume_position
            continue
        source = text[position:end]
        is_only_value, position = (
            position == start and _skip_whitespace(text, end) == len(text),
            _skip_whitespace(text, end),
        )
        if not is_only_value or _wrapped_list(value, tests) is None:
            yield checks.row(address, value, source)
        else:
            yield from _wrapped_rows(value, address, tests, checks)


def _wrapped_list(value: Any, tests: RowTests) -> tuple[str, list[Any]] | None:
    """The one list of objects inside an object that is no row itself, or of several the one named for rows."""
    is_row, is_whole, _ = tests
    if not isinstance(value, dict) or is_whole(value):
        return None
    names = _lists_of_objects(value)
    if len(names) > 1 and not is_row(value):
        names = [name for name in names if name in WRAPPER_KEYS]
    if len(names) != 1:
        return None
    items = value[names[0]]
    first_item = items[0]
    items_are_turns = any(key in first_item for key in TURN_KEYS["role"])
    if is_row(value) and (items_are_turns or not is_row(first_item)):
        return None
    return names[0], list(items)


def _lists_of_objects(value: Mapping[str, Any]) -> list[str]:
    return [name for name, inner in value.items() if isinstance(inner, list) and inner and isinstance(inner[0], dict)]


def _wrapped_rows(value: Any, address: Address, tests: RowTests, checks: _Checks | None) -> RawRows:
    """The rows of the list in an object, held to the checks; None: all of the object was."""
    if isinstance(value, DuplicateKeyObject):
        yield Drop(address, "duplicate_key", duplicate_key_sentence(value.key))
        return
    name, items = _wrapped_list(value, tests) or ("", [])
    if others := [f"`{other}`" for other in _lists_of_objects(value) if other != name]:
        tests[2](f"{address.file}: its rows are those of `{name}`; {', '.join(others)} are not read")
    for index, item in enumerate(items):
        item_address = Address(address.file, index, "item")
        if checks is None:
            yield _row_or_drop(item_address, item, check_surrogates=False)
        elif (key := duplicate_key_in(item)) is not None:
            yield Drop(item_address, "duplicate_key", duplicate_key_sentence(key))
        elif checks.escaped and (detail := bad_bytes(json.dumps(item, ensure_ascii=False))) is not None:
            yield Drop(item_address, "invalid_utf8", detail)
        else:
            yield _row_or_drop(item_address, item, check_surrogates=checks.surrogates)


def _skip_whitespace(text: str, position: int) -> int:
    match = _WHITESPACE.match(text, position)
    assert match is not None
    return match.end()

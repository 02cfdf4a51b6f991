"""Rows of CSV, TSV and plain-text files."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain

from tutelage.errors import DataError
from tutelage.formats.bytestream import ByteStream
from tutelage.formats.rawrow import RawRow, RawRows, bad_bytes
from tutelage.types import Address, Drop

QUOTED_LINES_MAX = 5000
"""An open quote is followed this far and no further: a lost one must not cost a pass over the file each time."""

# Possessive, so that a broken line is refused in one pass: without it a long one is tried in every other way first.
_QUOTED = r'"[^"]*+(?:""[^"]*+)*+'
_FIELDS = rf'(?:(?:{_QUOTED}"|[^",]*+),)*+'
_CLOSED = re.compile(rf'{_FIELDS}(?:{_QUOTED}"\r?\n?|[^",]*+)')
_OPEN = re.compile(rf"{_FIELDS}{_QUOTED}")
_CELL = re.compile(rf'({_QUOTED}")|([^",]*+)')
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,31}|[A-Za-z_][\w-]{0,31}(?:\.[\w-]{1,32}){1,8}")
"""A short word, or a path of them, as tables of traces name their columns."""

Record = tuple[int, list[str] | None, str]
"""Line (from 1), the cells or None where the line is broken, and a sentence or the record's own text."""


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """What decides whether the first line of a table names its columns.

    Attributes:
        known_names: names that mean something by themselves.
        named: the columns the user named; one of them in the first line makes it a header.
        by_index: the user named columns by their place ("0", "2"); then places are the names, header or not.
    """

    known_names: Collection[str]
    named: Collection[str] = ()
    by_index: bool = False


def csv_rows(stream: ByteStream, display_name: str, names: ColumnNames, note: Callable[[str], None]) -> RawRows:
    """Rows of a comma-separated file with strict quotes."""
    return _table(_csv_records(_text_lines(stream)), stream, display_name, names, note)


def tsv_rows(stream: ByteStream, display_name: str, names: ColumnNames, note: Callable[[str], None]) -> RawRows:
    """Rows of a tab-separated file; quotes are letters like any other."""
    records: Iterator[Record] = (
        (number, _without_line_end(line).split("\t"), line)
        for number, line in _text_lines(stream)
        if line.strip("\r\n")
    )
    return _table(records, stream, display_name, names, note)


def _text_lines(stream: ByteStream) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(stream.lines(), start=1):
        yield number, line.decode("utf-8", "surrogateescape")


def _without_line_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


def _table(
    records: Iterator[Record], stream: ByteStream, display_name: str, columns: ColumnNames, note: Callable[[str], None]
) -> RawRows:
    first_record = next(records, None)
    line_number = 0
    if first_record is not None:
        line_number, cells, text = first_record
        header = _header(cells and [_without_bad_bytes(cell) for cell in cells], columns)
        names = header
        if header is not None and (problem := bad_bytes(text)) is not None:
            raise _header_encoding_error(f"{display_name}:{line_number}", problem)
        if header is None or columns.by_index:
            names = [str(index) for index in range(len(cells or ()))]
        if header is None:
            note(f"{display_name} has no header; its columns are named {', '.join(names or ())}")
        for line_number, cells, detail in records if header is not None else chain([first_record], records):
            yield _row(Address(display_name, line_number), names or [], cells, detail)
    if stream.damage is not None:
        yield stream.damage_drop(Address(display_name, line_number + 1))


def _without_bad_bytes(cell: str) -> str:
    """A cell with a letter in place of each byte that is no UTF-8: what it would be if it were."""
    return (
        cell
        if cell.isascii()
        else "".join("x" if "\udc80" <= character <= "\udcff" else character for character in cell)
    )


def _header_encoding_error(where: str, problem: str) -> DataError:
    return DataError(
        "The names of the columns are not UTF-8",
        where=where,
        found=problem,
        expected="UTF-8",
        fix="convert it: iconv -f ENCODING -t UTF-8 OLD > NEW",
    )


def _row(address: Address, names: list[str], cells: list[str] | None, detail: str) -> RawRow | Drop:
    if cells is None:
        return Drop(address, "bad_csv", detail)
    if not detail.isascii() and (problem := bad_bytes(detail)) is not None:
        return Drop(address, "invalid_utf8", problem)
    if len(cells) != len(names):
        return Drop(address, "bad_csv", f"{len(cells)} fields, the table has {len(names)}: {detail[:60]!r}")
    return RawRow(address, dict(zip(names, cells, strict=True)))


def _header(cells: list[str] | None, columns: ColumnNames) -> list[str] | None:
    """The column names, where the first line holds names: all known, or all short words and no two alike.

    An empty first cell is the row number that pandas writes; it is named "0".
    """
    if not cells:
        return None
    names = [cell.strip() for cell in cells]
    if names[0] == "" and len(names) > 1:
        names[0] = "0"
    column_names = names[1:] if names[0] == "0" else names
    if len(set(names)) != len(names):
        return None
    if all(name in columns.known_names for name in column_names):
        return names
    if columns.by_index:
        return None
    has_named_column = any(name in columns.named for name in column_names)
    return (
        names
        if has_named_column or all(name in columns.known_names or _NAME.fullmatch(name) for name in column_names)
        else None
    )


def _csv_records(lines: Iterator[tuple[int, str]]) -> Iterator[Record]:
    """Records of a CSV file; a broken one costs its first physical line, and the next line starts afresh."""
    buffered_lines: list[tuple[int, str]] = []
    while True:
        if buffered_lines:
            number, line = buffered_lines.pop(0)
        else:
            following = next(lines, None)
            if following is None:
                return
            number, line = following
        if not line.strip("\r\n"):
            continue
        if '"' not in line:
            yield number, _without_line_end(line).split(","), line
            continue
        cells, lines_used, problem = _quoted_record(line, lines, buffered_lines)
        if cells is None:
            yield number, None, problem
            continue
        text = line + "".join(continuation for _, continuation in buffered_lines[:lines_used])
        del buffered_lines[:lines_used]
        yield number, cells, text


def _quoted_record(
    line: str, lines: Iterator[tuple[int, str]], buffered_lines: list[tuple[int, str]]
) -> tuple[list[str] | None, int, str]:
    """The cells of the record that starts with `line`, how many lines of `buffered_lines` it takes, or what is wrong.

    Lines read ahead are left in `buffered_lines`, so that a broken record can give them back.
    """
    pieces = [line]
    lines_used = 0
    while True:
        # A later line starts inside the quoted field; the quote in front says so.
        state = _scan('"' + pieces[-1] if lines_used else line)
        if state == "closed":
            cells = _cells(_without_line_end("".join(pieces)))
            return cells, lines_used, "" if cells else "a quote stands inside a field that is not quoted as a whole"
        if state == "bad":
            return None, 0, f"a bare quote: {line[:60]!r} (write it twice, and quotes around the field)"
        if lines_used == len(buffered_lines):
            following = next(lines, None)
            if following is not None:
                buffered_lines.append(following)
        if lines_used == len(buffered_lines) or lines_used == QUOTED_LINES_MAX:
            return None, 0, f"a quote is opened and never closed: {line[:60]!r}"
        pieces.append(buffered_lines[lines_used][1])
        lines_used += 1


def _scan(line: str) -> str:
    """Whether a record's first line is "closed", "open" (it ends inside a quoted field) or "bad"."""
    if _CLOSED.fullmatch(line):
        return "closed"
    return "open" if _OPEN.fullmatch(line) else "bad"


def _cells(record: str) -> list[str] | None:
    cells: list[str] = []
    position = 0
    while True:
        match = _CELL.match(record, position)
        if match is None:
            return None
        quoted, bare = match.groups()
        cells.append(bare if quoted is None else quoted[1:-1].replace('""', '"'))
        position = match.end()
        if position == len(record):
            return cells
        if record[position] != ",":
            return None
        position += 1


def text_rows(stream: ByteStream, display_name: str, note: Callable[[str], None]) -> RawRows:
    """Paragraphs of a plain-text file, each a row with one field `text`; its address is its first line.

    Line ends are no content: those of other systems, with a carriage return, are read as a newline.
    """
    note(f"{display_name} is plain text: every paragraph (up to a blank line) is one document")
    paragraph: list[str] = []
    number = 0
    for number, line in enumerate(_newline_ended(_text_lines(stream), display_name, note), start=1):
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield _paragraph(Address(display_name, number - len(paragraph)), paragraph)
            paragraph = []
    if paragraph:
        yield _paragraph(Address(display_name, number + 1 - len(paragraph)), paragraph)
    if stream.damage is not None:
        yield stream.damage_drop(Address(display_name, number + 1))


def _newline_ended(lines: Iterator[tuple[int, str]], display_name: str, note: Callable[[str], None]) -> Iterator[str]:
    is_noted = False
    for _, line in lines:
        if "\r" not in line:
            yield line
            continue
        if not is_noted:
            note(f"{display_name}: its lines end in a carriage return; they are read as ended by a newline")
            is_noted = True
        yield from _LINE.findall(line.replace("\r\n", "\n").replace("\r", "\n"))


def _paragraph(address: Address, lines: list[str]) -> RawRow | Drop:
    text = _without_line_end("".join(lines))
    bad = bad_bytes(text)
    return RawRow(address, {"text": text}) if bad is None else Drop(address, "invalid_utf8", bad)

"""The first pass over a file: how many rows, which keys, which shapes they fit, and so the shape of the file.

The rows of a file whose text is short are kept from this pass; those of a longer one are read in a second.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec.structs import replace

from tutelage.errors import DataError
from tutelage.formats.bytestream import ByteStream
from tutelage.formats.jsonfiles import json_document, json_lines
from tutelage.formats.names import DEFAULT_FIELDS, METADATA_COLUMNS, SHAPES, SHAPES_BY_PRIORITY, FileKind, nearest
from tutelage.formats.parquetfiles import arrow_rows, parquet_rows
from tutelage.formats.rawrow import RawRow, RawRows
from tutelage.formats.row_shapes.catalog import row_shapes
from tutelage.formats.row_shapes.recognition import Pattern, Recognition, is_recognized, pattern_of
from tutelage.formats.shapes import ShapeTable
from tutelage.formats.sources import SourceFile
from tutelage.formats.tables import ColumnNames, csv_rows, text_rows, tsv_rows
from tutelage.types import Address, Drop

KEYS_SHOWN: Final = 20
KEPT_CHARACTERS: Final = 8 << 20
"""Text of a file whose rows are kept. Our choice: rows of ordinary text take three times as much in memory and are
parsed once; those of a longer file are parsed twice, so that memory does not grow with it."""
ROW_CHARACTERS: Final = 256
"""What a row counts as beyond its text: a file may hold millions of rows of a few characters."""
VALUE_CHARACTERS: Final = 8
"""What a value counts as that is no text: its commas, brackets, digits or its key."""


@dataclass(slots=True)
class Survey:
    """What the rows of one file hold.

    Attributes:
        rows: all rows, broken ones too.
        keys: column name -> rows in which it holds a value.
        shapes: shape -> rows whose most telling shape it is.
        fitting: shape -> rows that fit it, whatever else they fit.
        broken: reason -> rows that could not be read at all.
        first_broken: the first of them.
        patterns: the columns that hold a value -> rows in which they and no others do.
        recognized: those of the patterns whose rows have a shape of the catalog -> its name; several names where
            several shapes say equally much.
    """

    rows: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    fitting: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    first_broken: Drop | None = None
    patterns: Counter[Pattern] = field(default_factory=Counter)
    recognized: dict[Pattern, tuple[str, ...]] = field(default_factory=dict)

    @property
    def shape(self) -> str | None:
        """The shape of most rows, the more telling one in a tie; None if no row fits any."""
        known = dict.fromkeys(name for names in self.recognized.values() for name in names)
        by_priority = (*sorted(known, key=lambda name: -len(row_shapes()[name].needs)), *SHAPES_BY_PRIORITY)
        return max(by_priority, key=lambda name: self.shapes[name]) if self.shapes else None


def raw_rows(
    file: SourceFile,
    kind: FileKind,
    *,
    table: ShapeTable,
    columns: Mapping[str, str] | None,
    note: Callable[[str], None],
) -> RawRows:
    """One pass over the rows of a file."""
    stream = ByteStream(file.path, file.display_name)
    if kind == "json_lines":
        rows = json_lines(stream, file.display_name)
        return _counted_as_items(rows) if file.unit == "item" else rows
    if kind == "json_document":
        return json_document(
            stream,
            file.display_name,
            is_row=lambda row: table.best(row) is not None,
            is_whole=is_recognized,
            note=note,
        )
    if kind == "parquet":
        return parquet_rows(file.path, file.display_name)
    if kind == "arrow":
        return arrow_rows(file.path, file.display_name)
    if kind == "text":
        return text_rows(stream, file.display_name, note)
    named_columns = set((columns or {}).values())
    by_index = bool(named_columns) and all(name.isdigit() for name in named_columns)
    names = ColumnNames(DEFAULT_FIELDS.all_columns(), named_columns, by_index)
    return (csv_rows if kind == "csv" else tsv_rows)(stream, file.display_name, names, note)


def _counted_as_items(rows: RawRows) -> RawRows:
    """Rows that a program handed in, a line each: their addresses count from 0, as its list does."""
    for row in rows:
        address = Address(row.address.file, row.address.number - 1, "item")
        if isinstance(row, RawRow):
            row.address = address
            yield row
        else:
            yield replace(row, address=address)


def surveyed(
    file: SourceFile,
    kind: FileKind,
    *,
    table: ShapeTable,
    columns: Mapping[str, str] | None,
    note: Callable[[str], None],
    recognize: bool = True,
    prepare: Callable[[RawRow], RawRow] | None = None,
) -> tuple[Survey, RawRows]:
    """What the rows of a file hold, and the rows themselves, which can be drawn once.

    Args:
        file: the file, of which a whole pass is made at once.
        kind: of its content.
        table: the names of columns.
        columns: which the user named.
        note: told once what is worth saying of the file as a whole.
        recognize: hold the rows against the shapes of the catalog, too.
        prepare: what stands for each row that could be decoded; None: the row.
    """

    def one_pass(tell: Callable[[str], None]) -> RawRows:
        rows = raw_rows(file, kind, table=table, columns=columns, note=tell)
        if prepare is None:
            return rows
        return (prepare(row) if isinstance(row, RawRow) else row for row in rows)

    kept = _KeptRows()
    recognition = Recognition(table.needs) if recognize else None
    rows = kept.from_pass(one_pass(note))
    result = survey(rows, table, recognition)
    if kept.is_whole:
        return result, kept.drained()
    # The second pass has nothing to say that the first did not.
    return result, one_pass(lambda _note: None)


class _KeptRows:
    """The rows of a pass, as long as they are not too many to keep."""

    def __init__(self) -> None:
        self.is_whole = True
        self._rows: deque[RawRow | Drop] = deque()
        self._characters_left = KEPT_CHARACTERS

    def from_pass(self, rows: RawRows) -> RawRows:
        """The rows of the pass, kept on their way."""
        for row in rows:
            self._keep(row)
            yield row
            if not self.is_whole:
                yield from rows

    def drained(self) -> RawRows:
        """The rows that were kept, each forgotten as it goes."""
        while self._rows:
            yield self._rows.popleft()

    def _keep(self, row: RawRow | Drop) -> None:
        self._characters_left -= ROW_CHARACTERS
        if isinstance(row, RawRow):
            self._characters_left -= len(row.text) if row.text is not None else _characters(row.fields)
        self._rows.append(row)
        if self._characters_left < 0:
            self.is_whole = False
            self._rows.clear()


def _characters(value: Any) -> int:
    """About how many characters a value would take as JSON."""
    total, level = 0, [value]
    while level:
        total += VALUE_CHARACTERS * len(level)
        total += sum(len(inner) for inner in level if isinstance(inner, (str, bytes)))
        containers = [inner for inner in level if isinstance(inner, (dict, list, tuple))]
        level = [inner for outer in containers for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return total


def survey(rows: RawRows, table: ShapeTable, recognition: Recognition | None = None) -> Survey:
    """Count the keys and shapes of all rows."""
    result = Survey()
    patterns = result.patterns
    settled = set() if recognition is None else recognition.settled
    latest: Pattern | None = None  # whose rows follow one another, as most do: they are counted together
    latest_rows = 0
    for row in rows:
        if isinstance(row, Drop):
            result.broken[row.reason] += 1
            result.first_broken = result.first_broken or row
            continue
        pattern = pattern_of(row.fields)
        if pattern == latest:
            latest_rows += 1
            continue
        patterns[pattern] += 1
        if recognition is not None and pattern not in settled:
            recognition.add(pattern, row.fields)
        elif latest is None:
            latest = pattern
    if latest is not None:
        patterns[latest] += latest_rows
    result.rows = patterns.total() + result.broken.total()
    _count_shapes(result, table, recognition)
    return result


def _count_shapes(result: Survey, table: ShapeTable, recognition: Recognition | None) -> None:
    # Shapes depend on which columns hold a value, and rows share few such patterns.
    for pattern, count in result.patterns.items():
        present: dict[str, Any] = dict.fromkeys(pattern, True)
        for key in pattern:
            result.keys[key] += count
        best = table.best(present)
        if recognition is not None and (names := recognition.winners(pattern)):
            result.recognized[pattern] = names
            best = names[0]
        if best is not None:
            result.shapes[best] += count
        for shape in SHAPES:
            if table.fits(present, shape):
                result.fitting[shape] += count
    if recognition is not None:
        result.fitting.update(recognition.fitting)


def resolve_shape(
    file_survey: Survey, requested_shape: str, columns: Mapping[str, str] | None, display_name: str
) -> str:
    """The shape to read the file by.

    Raises:
        DataError: no rows; none readable; a named column that no row has; or no row that fits the shape.
    """
    if not file_survey.rows:
        raise DataError("The file holds no rows", where=display_name, fix="check how it was written or copied")
    if not file_survey.keys:
        first_drop = file_survey.first_broken
        fixes = {
            "invalid_utf8": "convert it: iconv -f ENCODING -t UTF-8 OLD > NEW",
            "damaged_gzip": "copy or download it again",
        }
        raise DataError(
            "No row of the file can be read",
            where=str(first_drop.address) if first_drop else display_name,
            found=f"{first_drop.reason}: {first_drop.detail}" if first_drop else "rows without a value",
            expected="rows that are objects, or lines of a table",
            fix=fixes.get(first_drop.reason if first_drop else "", "mend the file, from that row on"),
        )
    for column in (columns or {}).values():
        if column not in file_survey.keys:
            raise DataError(
                f"No row has the column '{column}'",
                where=display_name,
                found=_key_counts(file_survey.keys) + nearest(column, list(file_survey.keys)),
                fix="name one of the columns found; as they hold for every file, read files with other columns alone",
            )
    shape = file_survey.shape if requested_shape == "auto" else requested_shape
    if shape is None or (requested_shape != "auto" and not file_survey.fitting[shape]):
        raise DataError(
            "No row fits a known shape" if requested_shape == "auto" else f"No row fits the shape '{requested_shape}'",
            where=display_name,
            found="keys " + _key_counts(file_survey.keys),
            expected=", ".join(SHAPES),
            fix="say which columns are meant: --columns prompt=KEY,response=KEY; or --format NAME",
        )
    if shape in row_shapes():
        require_readable(shape, file_survey, display_name, auto=requested_shape == "auto")
    return shape


def survey_notes(file_survey: Survey, shape: str, table: ShapeTable, display_name: str, *, auto: bool) -> list[str]:
    """What is worth saying of the file as a whole: rows of other shapes, and columns passed over or not used.

    Args:
        file_survey: what its rows hold.
        shape: the shape of the file.
        table: the names of columns.
        display_name: the file's name.
        auto: whether a row that holds nothing of the file's shape is read by its own.
    """
    notes = recognized_notes(shape, file_survey, display_name, auto=auto)
    others = {name: count for name, count in file_survey.shapes.items() if name != shape}
    if auto and file_survey.shapes[shape] and others:
        kinds = ", ".join(f"{count} {name}" for name, count in others.items())
        notes.append(
            f"{display_name} is mixed: {file_survey.shapes[shape]} rows are {shape}, {kinds}; "
            "each is read by its own shape"
        )
    unused: dict[str, None] = {}
    columns_by_shape: dict[str, set[str]] = {}
    for pattern in file_survey.patterns:
        present: dict[str, Any] = dict.fromkeys(pattern, True)
        if pattern in file_survey.recognized or shape in row_shapes():
            continue
        row_shape = table.choose(present, shape) if auto else shape
        columns_by_shape.setdefault(row_shape, set()).update(pattern)
        used = table.fields.used(row_shape)
        unused.update(dict.fromkeys(key for key in pattern if key not in used))
    for row_shape in sorted(columns_by_shape.keys() & {"alpaca", "prompt_completion"}):
        for group in table.fields.required(row_shape):
            first, *fallbacks = [f"`{name}`" for name in group if name in columns_by_shape[row_shape]] or [""]
            if fallbacks:
                notes.append(
                    f"{display_name}: {first} is used where it holds a value, {', '.join(fallbacks)} otherwise"
                )
    labels = [name for name in unused if name in METADATA_COLUMNS]
    for names, what in (
        (labels, "kept beside the rows, not trained"),
        ([name for name in unused if name not in METADATA_COLUMNS], "not used"),
    ):
        if names:
            remainder = f" and {len(names) - KEYS_SHOWN} more" if len(names) > KEYS_SHOWN else ""
            notes.append(f"{display_name}: columns {what}: {', '.join(names[:KEYS_SHOWN])}{remainder}")
    return notes


def recognized_notes(shape: str, file_survey: Survey, display_name: str, *, auto: bool) -> list[str]:
    """Which shape of the catalog the rows have, and by which columns it is known; nothing for a base shape."""
    if shape not in row_shapes() or not auto:
        return []
    known = row_shapes()[shape]
    rows = f"{file_survey.shapes[shape]} of {file_survey.rows} rows"
    return [f"{display_name} is read as {shape} ({known.title}): {known.columns_text} are as it has them in {rows}"]


def require_readable(shape: str, file_survey: Survey, display_name: str, *, auto: bool) -> None:
    """Refuse a file whose rows have a shape that is not read, or two shapes alike.

    Raises:
        DataError: it is.
    """
    names = next((names for names in file_survey.recognized.values() if shape in names), (shape,))
    if auto and len(names) > 1:
        raise DataError(
            "The rows fit several shapes equally well",
            where=display_name,
            found=" and ".join(f"{name} ({row_shapes()[name].title})" for name in names),
            expected="rows of a shape that can be told",
            fix=f"say which is meant: --format {names[0]}",
        )
    known = row_shapes()[shape]
    if known.refuse:
        raise DataError(
            f"Rows of this shape are not trained on: {known.title}",
            where=display_name,
            found=f"{known.columns_text} in {file_survey.shapes[shape] or file_survey.rows} of {file_survey.rows} rows",
            expected=known.refuse,
            fix=known.fix,
        )


def _key_counts(keys: Counter[str]) -> str:
    listing = ", ".join(f"{key} ({count})" for key, count in keys.most_common(KEYS_SHOWN))
    return listing + (f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else "")

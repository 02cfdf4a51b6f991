"""Bytes -> Conversation: finds the files, reads their rows, and says what each row means and where it came from.

`read` gives conversations; a row that cannot become one goes to the ledger with its address and reason. `describe`
says what the files hold and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tutelage.formats.names import SHAPES, Fields, FileKind, fields_for, shape_for
from tutelage.formats.rawrow import RawRow, RawRows, RowError
from tutelage.formats.remarks import FileRemarks, RowContext, TreePaths
from tutelage.formats.row_shapes.catalog import row_shapes
from tutelage.formats.row_shapes.reading import GatheredRow, Reading, gathered, readings
from tutelage.formats.row_shapes.recognition import pattern_of
from tutelage.formats.shapes import ShapeTable, conversation_from
from tutelage.formats.sniff import sniff
from tutelage.formats.sources import SourceFile, find_files
from tutelage.formats.survey import Survey, resolve_shape, survey_notes, surveyed
from tutelage.ledger import Ledger
from tutelage.types import Change, Conversation, Drop

__all__ = ["SHAPES", "FileSummary", "SourceSummary", "describe", "read", "row_shapes"]

Begin = Callable[[SourceFile, int, int], None]
Prepare = Callable[[RawRow], RawRow]


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What one file holds.

    Attributes:
        file: its name as addresses show it.
        kind: what its content is, whatever its name says.
        rows: all rows, broken ones too.
        shape: the shape it is read by; None if no row fits any.
        shapes: shape -> rows of that shape.
        keys: column name -> rows in which it holds a value.
        broken: reason -> rows that could not be read at all.
        notes: remarks on the file as a whole.
    """

    file: str
    kind: FileKind
    rows: int
    shape: str | None
    shapes: Mapping[str, int]
    keys: Mapping[str, int]
    broken: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """What all files of the sources hold, in the order they are read."""

    files: tuple[FileSummary, ...]
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def keys(self) -> dict[str, int]:
        """Column name -> rows in which it holds a value, all files together."""
        total: dict[str, int] = {}
        for file in self.files:
            for key, count in file.keys.items():
                total[key] = total.get(key, 0) + count
        return total


@dataclass(frozen=True, slots=True)
class _Request:
    files: tuple[tuple[SourceFile, FileKind], ...]
    shape: str
    fields: Fields
    columns: Mapping[str, str] | None
    notes: tuple[str, ...]
    tree_paths: TreePaths = "kept"
    prepare: Prepare | None = None

    @property
    def recognizes(self) -> bool:
        """Whether rows are held against the catalog: the user named neither a base shape nor columns."""
        return self.shape not in SHAPES and not self.columns


def read(
    sources: Sequence[str],
    *,
    ledger: Ledger,
    shape: str = "auto",
    columns: Mapping[str, str] | None = None,
    max_rows: int | None = None,
    files: Sequence[SourceFile] | None = None,
    tree_paths: TreePaths = "kept",
    begin: Begin = lambda _file, _rows, _rows_before: None,
    prepare: Prepare | None = None,
) -> Iterator[Conversation]:
    """The conversations of all sources, in order.

    Files are found and looked into at once; rows are read as the iterator is drawn, each file first to its end for its
    shape. The rows of a short file are kept from this pass, those of a longer one are read again
    (`survey.KEPT_CHARACTERS`). So memory does not grow with a file, but for JSON documents, which are held whole.

    Args:
        sources: paths, globs, folders, or hub ids `owner/name`, `owner/name:split`, `owner/name:folder/split`.
        ledger: counts every row as entered, takes the drops, changes and notes. Nothing is kept here.
        shape: one of SHAPES, a name of the catalog (`row_shapes`), or "auto".
        columns: which column holds which field: prompt, response, system, input, messages, text, tools.
        max_rows: stop after this many rows, all files together; None reads all.
        files: those of the sources, where they were found before.
        tree_paths: of a row that is a tree of messages the path that was kept, or "all", each reply trained once.
        begin: told of each file, how many rows it holds and how many entered before, as its rows begin to be read.
        prepare: what is read in place of each row that could be decoded; None: the row.

    Raises:
        SourceNotFoundError: a source that is not there.
        ConfigError: an unknown shape, or columns that make no conversation.
        DataError: a file that cannot be used at all, when its turn comes.
    """
    request = replace(_request(sources, shape, columns, files), tree_paths=tree_paths, prepare=prepare)
    for note in request.notes:
        ledger.note(note)
    return _conversations(request, ledger, max_rows, begin)


def describe(sources: Sequence[str], *, shape: str = "auto", columns: Mapping[str, str] | None = None) -> SourceSummary:
    """What the sources hold: a full pass over each file, without a ledger.

    Raises:
        SourceNotFoundError, ConfigError: as `read`.
        DataError: a file that cannot be opened as any kind; a file whose rows fit no shape is described, not refused.
    """
    request = _request(sources, shape, columns)
    table = ShapeTable(request.fields)
    summaries = []
    for file, kind in request.files:
        notes: list[str] = []
        file_survey, rows = surveyed(
            file, kind, table=table, columns=columns, note=notes.append, recognize=request.recognizes
        )
        forced_shape = request.shape if file_survey.fitting[request.shape] else None
        file_shape = file_survey.shape if request.shape == "auto" else forced_shape
        if file_shape is not None:
            notes += survey_notes(file_survey, file_shape, table, file.display_name, auto=request.shape == "auto")
            context = RowContext(FileRemarks(file.display_name, notes.append))
            for _ in _file_readings(rows, file_shape, (request, table, file_survey), context):
                pass  # `read` drops what it must; here only what is said of the file counts
        summaries.append(
            FileSummary(
                file=file.display_name,
                kind=kind,
                rows=file_survey.rows,
                shape=file_shape,
                shapes=dict(file_survey.shapes),
                keys=dict(file_survey.keys),
                broken=dict(file_survey.broken),
                notes=tuple(notes),
            )
        )
    return SourceSummary(tuple(summaries), request.notes)


def _request(
    sources: Sequence[str],
    shape: str,
    columns: Mapping[str, str] | None,
    located_files: Sequence[SourceFile] | None = None,
) -> _Request:
    fields = fields_for(columns)  # first: a misspelt name is a better finding than the shape it fails to make
    requested_shape = shape_for(shape, columns)
    notes: list[str] = []
    files: list[tuple[SourceFile, FileKind]] = []
    for file in find_files(sources, notes.append) if located_files is None else located_files:
        sniffed = sniff(file.path, file.display_name)
        files.append((file, sniffed.kind))
        if sniffed.note is not None:
            notes.append(sniffed.note)
    return _Request(tuple(files), requested_shape, fields, columns, tuple(notes))


def _shape_of(row: RawRow, file_shape: str, request: _Request, table: ShapeTable, file_survey: Survey) -> str:
    if request.shape != "auto":
        return file_shape
    if not file_survey.recognized:
        return table.choose(row.fields, file_shape)
    names = file_survey.recognized.get(pattern_of(row.fields))
    if names is not None:
        return file_shape if file_shape in names else names[0]
    return table.choose(row.fields, file_shape) if file_shape in SHAPES else table.best(row.fields) or file_shape


def _is_never(_row: Mapping[str, Any], _shape: str) -> bool:
    return False


def _file_readings(
    rows: RawRows, file_shape: str, sources: tuple[_Request, ShapeTable, Survey], context: RowContext
) -> Iterator[Reading | Change]:
    """What the rows of a file mean, in order: conversations with their changes, drops, and rows merged into others."""
    request, table, file_survey = sources
    catalog = row_shapes()
    file_rows: Iterator[Any] = rows
    if file_shape in catalog and catalog[file_shape].gather:
        file_rows = gathered(rows, catalog[file_shape], context)
    fields = request.fields
    # Most rows hold something of the file's shape; `_shape_of` would say the same of them, and takes longer.
    is_common = table.holds_any if not file_survey.recognized and file_shape in SHAPES else _is_never
    for row in file_rows:
        if not isinstance(row, RawRow):
            yield row
            continue
        if is_common(row.fields, file_shape) or isinstance(row, GatheredRow):
            shape = file_shape
        else:
            shape = _shape_of(row, file_shape, request, table, file_survey)
        if shape in catalog:
            yield from readings(row, catalog[shape], context)
            continue
        try:
            yield conversation_from(row, shape, fields, context)
        except RowError as error:
            yield Drop(row.address, error.reason, error.detail)


def _conversations(request: _Request, ledger: Ledger, max_rows: int | None, begin: Begin) -> Iterator[Conversation]:
    table = ShapeTable(request.fields)
    remaining_rows = max_rows
    for file, kind in request.files:
        if remaining_rows is not None and remaining_rows <= 0:
            return
        file_survey, rows = surveyed(
            file,
            kind,
            table=table,
            columns=request.columns,
            note=ledger.note,
            recognize=request.recognizes,
            prepare=request.prepare,
        )
        file_shape = resolve_shape(file_survey, request.shape, request.columns, file.display_name)
        for note in survey_notes(file_survey, file_shape, table, file.display_name, auto=request.shape == "auto"):
            ledger.note(note)
        begin(file, file_survey.rows, ledger.rows_in)
        context = RowContext(FileRemarks(file.display_name, ledger.note), tree_paths=request.tree_paths)
        for reading in _file_readings(rows, file_shape, (request, table, file_survey), context):
            if type(reading) is not tuple and isinstance(reading, Change):
                ledger.change(reading)
                continue
            if remaining_rows is not None:
                if remaining_rows <= 0:
                    return
                remaining_rows -= 1
            ledger.enter()
            if isinstance(reading, Drop):
                ledger.drop(reading)
                continue
            conversation, changes = reading
            for change in changes:
                ledger.change(change)
            yield conversation

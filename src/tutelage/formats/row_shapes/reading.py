"""A row of a recognized shape -> the conversations it means, by way of a row in a base form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec.structs import replace

from tutelage.formats.metadata import filter_metadata, metadata_of
from tutelage.formats.names import DEFAULT_FIELDS
from tutelage.formats.rawrow import RawRow, RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.catalog import RowShape, function_of
from tutelage.formats.shapes import ShapeTable, conversation_from
from tutelage.types import Change, Conversation, Drop

_BASE_SHAPES: Final = ShapeTable(DEFAULT_FIELDS)

Reading = tuple[Conversation, tuple[Change, ...]] | Drop
"""A conversation with what was changed on the way, or why there is none."""


class GatheredRow(RawRow):
    """A row in a base form that was made of several rows of a file; its address is that of the first."""


def readings(row: RawRow, shape: RowShape, context: RowContext) -> Iterator[Reading]:
    """What a row of the shape means: one conversation, or several, or the Drop that says why there is none.

    Args:
        row: the row; a `GatheredRow` is in a base form already.
        shape: to read it by.
        context: the file's.
    """
    count = 0
    try:
        for fields in _base_rows(row, shape, context):
            count += 1
            yield _reading(row, fields, context)
    except RowError as error:
        count += 1
        yield Drop(row.address, error.reason, error.detail)
    if not count:
        yield Drop(row.address, "no_conversation", f"the row holds no conversation of the shape {shape.name}")


def _base_rows(row: RawRow, shape: RowShape, context: RowContext) -> Iterable[Mapping[str, Any] | RowError]:
    if isinstance(row, GatheredRow):
        return (row.fields,)
    if shape.refuse:
        raise RowError("refused_shape", f"{shape.title}: {shape.refuse}; {shape.fix}")
    if shape.gather:  # its file is of another shape, so nothing gathered them
        raise RowError(
            "wrong_shape", f"rows of the shape {shape.name} are read together: give them a file of their own"
        )
    for need in shape.needs:
        if not need.holds(row.fields):
            raise RowError("wrong_shape", f"a row of the shape {shape.name} holds `{need.text}`")
    context.begin(filled=row.filled, text=row.text)
    made: Any = function_of(shape.family, shape.reader)(row.fields, context)
    base_rows: Iterable[Mapping[str, Any] | RowError] = made if shape.several else (made,)
    return base_rows


def _reading(row: RawRow, fields: Mapping[str, Any] | RowError, context: RowContext) -> Reading:
    try:
        if isinstance(fields, RowError):
            raise fields
        base_row = RawRow(row.address, fields, filled=row.filled)
        base_shape = _BASE_SHAPES.best(fields) or "messages"
        conversation, changes = conversation_from(base_row, base_shape, DEFAULT_FIELDS, context)
    except RowError as error:
        return Drop(row.address, error.reason, error.detail)
    own = fields.get("metadata") or {}
    metadata = {**metadata_of(row.fields), **conversation.metadata, **filter_metadata(own)}
    return replace(conversation, metadata=metadata), changes


def gathered(rows: Iterable[RawRow | Drop | Change], shape: RowShape, context: RowContext) -> Iterator[Any]:
    """The rows of a file of whose shape only several together mean something, gathered.

    Each row that comes in goes out once: in a gathered row, as a Drop, or as a Change that names the row that took it
    up. Rows that could not be read go out as they are.

    Args:
        rows: those of the file.
        shape: of the file; `gather` of its facts makes `GatheredRow`, Drop and Change of its rows.
        context: the file's.
    """
    passed: list[Any] = []

    def own_rows() -> Iterator[RawRow]:
        for row in rows:
            if isinstance(row, RawRow):
                yield row
            else:
                passed.append(row)

    for entry in function_of(shape.family, shape.gather)(own_rows(), context):
        yield from passed
        passed.clear()
        yield entry
    yield from passed


def merged(row: RawRow, into: RawRow) -> Change:
    """The entry of a row whose turns stand in the conversation of another."""
    return Change(row.address, "merged", f"it is part of the conversation of {into.address}")

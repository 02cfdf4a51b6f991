"""Rows of Parquet files: Arrow's columns, structs, lists, maps and JSON at any depth -> the values JSON would give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tutelage.errors import DataError, cause_of
from tutelage.formats.nested import DEPTH_MAX, document, stands_twice
from tutelage.formats.rawrow import RawRow, RawRows, RowError
from tutelage.types import Address, Drop

PARQUET_ROWS_A_BATCH = 1024
_JSON_NAME: Final = "arrow.json"
_EXTENSION_KEY: Final = b"ARROW:extension:name"

Conversion = Callable[[Any], Any]


def parquet_rows(path: Path, shown: str) -> RawRows:
    """Rows of a Parquet file, a batch at a time; those with a struct are `filled`.

    Raises:
        DataError: the file is damaged or no Parquet, a page disagrees with its checksum, or its columns cannot be told
            apart by name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            conversions = _conversions(schema, shown)
            filled = any(_has_struct(column.type) for column in schema)
            for batch in file.iter_batches(batch_size=PARQUET_ROWS_A_BATCH):
                for fields in _batch_rows(batch):
                    number += 1
                    address = Address(shown, number, "row")
                    if isinstance(fields, str):
                        yield Drop(address, "invalid_utf8", fields)
                        continue
                    yield _row(address, fields, conversions, filled=filled)
    except UnicodeDecodeError as error:
        raise DataError(
            "The name of a column is not UTF-8",
            where=shown,
            found=f"byte 0x{error.object[error.start]:02x} in {error.object[:40].decode('utf-8', 'replace')!r}",
            expected="UTF-8",
            fix="write the file again with names in UTF-8",
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            "The Parquet file cannot be read",
            where=f"{shown}:row {number + 1}",
            found=cause_of(error),
            expected="a whole Parquet file",
            fix="copy or download it again",
        ) from error


def _row(
    address: Address, fields: dict[str, Any], conversions: Mapping[str, Conversion], *, filled: bool
) -> RawRow | Drop:
    try:
        for name, convert in conversions.items():
            if fields[name] is not None:
                fields[name] = convert(fields[name])
    except RowError as error:
        return Drop(address, error.reason, error.detail)
    return RawRow(address, fields, filled=filled)


def _conversions(schema: Any, shown: str) -> dict[str, Conversion]:
    """For each column that needs it, what makes JSON's values of Arrow's."""
    _require_distinct(schema.names, shown)
    made = {column.name: _of_field(column, f"`{column.name}`", shown, 1) for column in schema}
    return {name: convert for name, convert in made.items() if convert is not None}


def _of_field(field: Any, where: str, shown: str, depth: int) -> Conversion | None:
    # A pyarrow that does not know the type keeps its name beside the field.
    if (field.metadata or {}).get(_EXTENSION_KEY) == _JSON_NAME.encode():
        return lambda text: document(text, "bad_json", where)
    return _of_type(field.type, where, shown, depth)


def _of_type(kind: Any, where: str, shown: str, depth: int) -> Conversion | None:
    import pyarrow as pa

    if depth > DEPTH_MAX:
        raise DataError(
            "A column is nested too deep", where=shown, found=where, expected=f"at most {DEPTH_MAX} levels",
            fix="write the file again without that column",
        )  # fmt: skip
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name == _JSON_NAME:
        return lambda text: document(text, "bad_json", where)
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind):
        held = kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type
        return _of_type(held, where, shown, depth)
    if pa.types.is_struct(kind):
        _require_distinct([kind.field(index).name for index in range(kind.num_fields)], shown)
        made = {
            kind.field(at).name: _of_field(kind.field(at), where, shown, depth + 1) for at in range(kind.num_fields)
        }
        return _struct({name: convert for name, convert in made.items() if convert is not None})
    if pa.types.is_map(kind):
        return _map(_of_field(kind.item_field, where, shown, depth + 1), where)
    if _is_list(kind):
        return _list(_of_field(kind.value_field, where, shown, depth + 1))
    return None


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    asked = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, name)(kind) for name in asked)


def _struct(members: Mapping[str, Conversion]) -> Conversion | None:
    def convert(value: Any) -> Any:
        changed = {name: make(value[name]) for name, make in members.items() if value[name] is not None}
        return value | changed

    return convert if members else None


def _list(item: Conversion | None) -> Conversion | None:
    if item is None:
        return None
    return lambda values: [None if value is None else item(value) for value in values]


def _map(item: Conversion | None, where: str) -> Conversion:
    def convert(pairs: Any) -> Any:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if not isinstance(key, str):
                raise RowError("wrong_type", f"{where}: the keys of a map must be strings, found {key!r}")
            if key in made:
                raise RowError("duplicate_key", f"{where}: {stands_twice(key)}")
            made[key] = item(value) if item is not None and value is not None else value
        return made

    return convert


def _has_struct(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return True
    if pa.types.is_map(kind):
        return _has_struct(kind.item_type)
    return bool(pa.types.is_nested(kind)) and any(_has_struct(kind.field(at).type) for at in range(kind.num_fields))


def _require_distinct(names: Sequence[str], shown: str) -> None:
    doubled = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if doubled is not None:
        raise DataError(
            f"Two columns have the name '{doubled}'",
            where=shown,
            expected="names that differ: a row keeps one value for each",
            fix="write the file again with one of them renamed",
        )


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Rows as dicts; a sentence in place of a row whose strings are not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield f"byte 0x{error.object[error.start]:02x} is not UTF-8"

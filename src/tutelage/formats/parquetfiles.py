"""Rows of Parquet and Arrow files: columns, structs, lists, maps and JSON at any depth -> what JSON would give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tutelage.errors import DataError, cause_of
from tutelage.formats.nested import DEPTH_MAX, document, duplicate_key_sentence
from tutelage.formats.rawrow import RawRow, RawRows, RowError
from tutelage.types import Address, Drop

PARQUET_ROWS_A_BATCH = 1024
_ARROW_MAGIC: Final = b"ARROW1"
_JSON_NAME: Final = "arrow.json"
_EXTENSION_KEY: Final = b"ARROW:extension:name"

Conversion = Callable[[Any], Any]


def parquet_rows(path: Path, display_name: str) -> RawRows:
    """Rows of a Parquet file, a batch at a time; those with a struct are `filled`.

    Raises:
        DataError: the file is damaged or no Parquet, a page disagrees with its checksum, or its columns cannot be told
            apart by name.
    """
    import pyarrow.parquet as pq

    def batches() -> Iterator[tuple[Any, Any]]:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file.schema_arrow, None
            for batch in file.iter_batches(batch_size=PARQUET_ROWS_A_BATCH):
                yield file.schema_arrow, batch

    return _table_rows(batches(), display_name, "Parquet")


def arrow_rows(path: Path, display_name: str) -> RawRows:
    """Rows of an Arrow file, or of a stream of Arrow's messages as the `datasets` library keeps it.

    Raises:
        DataError: the file is damaged or no Arrow, or its columns cannot be told apart by name.
    """
    import pyarrow as pa

    def batches() -> Iterator[tuple[Any, Any]]:
        with pa.OSFile(str(path)) as source:
            is_file = source.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC
            source.seek(0)
            if is_file:
                with pa.ipc.open_file(source) as file:
                    yield file.schema, None
                    for index in range(file.num_record_batches):
                        yield file.schema, file.get_batch(index)
                return
            with pa.ipc.open_stream(source) as stream:
                yield stream.schema, None
                for batch in stream:
                    yield stream.schema, batch

    return _table_rows(batches(), display_name, "Arrow")


def _table_rows(batches: Iterator[tuple[Any, Any]], display_name: str, title: str) -> RawRows:
    """Rows of batches that come with their schema, which comes once before them."""
    import pyarrow as pa

    row_number = 0
    try:
        schema, _ = next(batches)
        conversions = _conversions(schema, display_name)
        filled = any(_has_struct(column.type) for column in schema)
        for _, batch in batches:
            for fields in _batch_rows(batch):
                row_number += 1
                address = Address(display_name, row_number, "row")
                if isinstance(fields, str):
                    yield Drop(address, "invalid_utf8", fields)
                    continue
                yield _row(address, fields, conversions, filled=filled)
    except UnicodeDecodeError as error:
        raise DataError(
            "The name of a column is not UTF-8",
            where=display_name,
            found=f"byte 0x{error.object[error.start]:02x} in {error.object[:40].decode('utf-8', 'replace')!r}",
            expected="UTF-8",
            fix="write the file again with names in UTF-8",
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"The {title} file cannot be read",
            where=f"{display_name}:row {row_number + 1}",
            found=cause_of(error),
            expected=f"a whole {title} file",
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


def _conversions(schema: Any, display_name: str) -> dict[str, Conversion]:
    """For each column that needs it, what makes JSON's values of Arrow's."""
    _require_distinct(schema.names, display_name)
    conversions = {column.name: _field_conversion(column, f"`{column.name}`", display_name, 1) for column in schema}
    return {name: convert for name, convert in conversions.items() if convert is not None}


def _field_conversion(field: Any, where: str, display_name: str, depth: int) -> Conversion | None:
    # A pyarrow that does not know the type keeps its name beside the field.
    if (field.metadata or {}).get(_EXTENSION_KEY) == _JSON_NAME.encode():
        return lambda text: document(text, "bad_json", where)
    return _type_conversion(field.type, where, display_name, depth)


def _type_conversion(arrow_type: Any, where: str, display_name: str, depth: int) -> Conversion | None:
    import pyarrow as pa

    if depth > DEPTH_MAX:
        raise DataError(
            "A column is nested too deep", where=display_name, found=where, expected=f"at most {DEPTH_MAX} levels",
            fix="write the file again without that column",
        )  # fmt: skip
    if isinstance(arrow_type, pa.BaseExtensionType) and arrow_type.extension_name == _JSON_NAME:
        return lambda text: document(text, "bad_json", where)
    if isinstance(arrow_type, pa.BaseExtensionType) or pa.types.is_dictionary(arrow_type):
        inner_type = arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type.storage_type
        return _type_conversion(inner_type, where, display_name, depth)
    if pa.types.is_struct(arrow_type):
        _require_distinct([arrow_type.field(index).name for index in range(arrow_type.num_fields)], display_name)
        conversions = {
            arrow_type.field(position).name: _field_conversion(
                arrow_type.field(position), where, display_name, depth + 1
            )
            for position in range(arrow_type.num_fields)
        }
        return _struct_conversion({name: convert for name, convert in conversions.items() if convert is not None})
    if pa.types.is_map(arrow_type):
        return _map_conversion(_field_conversion(arrow_type.item_field, where, display_name, depth + 1), where)
    if _is_list(arrow_type):
        return _list_conversion(_field_conversion(arrow_type.value_field, where, display_name, depth + 1))
    return None


def _is_list(arrow_type: Any) -> bool:
    import pyarrow as pa

    predicates = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, name)(arrow_type) for name in predicates)


def _struct_conversion(members: Mapping[str, Conversion]) -> Conversion | None:
    def convert(value: Any) -> Any:
        changed = {
            name: convert_member(value[name]) for name, convert_member in members.items() if value[name] is not None
        }
        return value | changed

    return convert if members else None


def _list_conversion(item: Conversion | None) -> Conversion | None:
    if item is None:
        return None
    return lambda values: [None if value is None else item(value) for value in values]


def _map_conversion(item: Conversion | None, where: str) -> Conversion:
    def convert(pairs: Any) -> Any:
        mapping: dict[str, Any] = {}
        for key, value in pairs:
            if not isinstance(key, str):
                raise RowError("wrong_type", f"{where}: the keys of a map must be strings, found {key!r}")
            if key in mapping:
                raise RowError("duplicate_key", f"{where}: {duplicate_key_sentence(key)}")
            mapping[key] = item(value) if item is not None and value is not None else value
        return mapping

    return convert


def _has_struct(arrow_type: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(arrow_type):
        return True
    if pa.types.is_map(arrow_type):
        return _has_struct(arrow_type.item_type)
    return bool(pa.types.is_nested(arrow_type)) and any(
        _has_struct(arrow_type.field(index).type) for index in range(arrow_type.num_fields)
    )


def _require_distinct(names: Sequence[str], display_name: str) -> None:
    duplicate = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if duplicate is not None:
        raise DataError(
            f"Two columns have the name '{duplicate}'",
            where=display_name,
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

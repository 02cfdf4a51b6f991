"""Rows as a Parquet table.

Tools, template arguments and metadata are JSON text in it, as Arrow would fill nulls into objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_AS_JSON = ("tools", "chat_template_kwargs")


def parquet_schema() -> pa.Schema:
    """The columns of `data.parquet`."""
    import pyarrow as pa

    text = pa.string()
    function = pa.struct([("name", text), ("arguments", text)])
    turn = pa.struct(
        [
            ("role", text),
            ("content", text),
            ("reasoning_content", text),
            ("tool_calls", pa.list_(pa.struct([("id", text), ("type", text), ("function", function)]))),
            ("name", text),
            ("tool_call_id", text),
            ("weight", pa.float64()),
        ]
    )
    columns = [("messages", pa.list_(turn)), ("text", text), *((name, text) for name in _AS_JSON), ("metadata", text)]
    return pa.schema(columns)


def parquet_batch(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> pa.RecordBatch:
    """Rows, each its JSON object and its metadata, as a batch of that table."""
    import pyarrow as pa

    return pa.RecordBatch.from_pylist([_record(text, metadata) for text, metadata in rows], schema=parquet_schema())


def _record(text: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(text)
    for name in _AS_JSON:
        if name in record:
            record[name] = json.dumps(record[name], ensure_ascii=False)
    return {**record, "metadata": json.dumps(metadata, ensure_ascii=False)}

"""Rows that a curation dropped, put back in their place, and booked."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tutelage.config.curation_split import SplitSettings
from tutelage.curate.out_folder import (
    CARD,
    DROPPED,
    FUNNEL,
    LEDGER,
    PAGE,
    RESTORED,
    WHOLE,
    begin_output,
    read_hashes,
    require_ours,
    row_files,
    write_hashes,
)
from tutelage.curate.output import new_file, write_json
from tutelage.curate.splitting import SPLIT
from tutelage.curate.splitting.restored import HeldOutRows
from tutelage.errors import ConfigError
from tutelage.system.files import write_bytes

Place = tuple[int, int]
"""Which row of the input, and which part of it."""


def restore(out: Path, wanted: str) -> int:
    """Put the dropped rows of a reason, or of an address, back among those that are kept.

    They stand where they stood in the input; where the rows have another order by now, at the end. Of files of a split
    each goes into that with the rows that it must stay together with.

    Args:
        out: folder of a finished curation.
        wanted: a reason or an address, as `dropped.jsonl` names it.

    Returns:
        How many rows came back.

    Raises:
        ConfigError: the folder is not that of a finished curation, or no dropped row has that reason or address, or
            none of those could be read at all.
    """
    if not out.is_dir():
        raise ConfigError("There is no such folder", where=str(out), fix="name the folder that a curation wrote")
    require_ours(out)
    key = str(read_hashes(out)["key"])
    chosen, remaining = _chosen(out, wanted)
    files = _by_file(out, chosen)
    begin_output(out)
    for data, rows in files.items():
        if data.suffix == ".parquet":
            _into_table(data, rows)
        else:
            _into_lines(data, rows)
    _book(out, chosen, remaining, wanted)
    (out / PAGE).unlink(missing_ok=True)  # it shows what was before
    write_hashes(out, f"{key.removesuffix(f'+{RESTORED}')}+{RESTORED}")
    return len(chosen)


def _chosen(out: Path, wanted: str) -> tuple[list[dict[str, Any]], list[str]]:
    chosen, remaining, seen = [], [], set()
    for line in (out / DROPPED).read_text(encoding="utf-8").split("\n")[:-1]:  # a text may hold U+2028
        entry = json.loads(line)
        reason = entry.get("dropped") or entry.get("merged")
        seen.add(reason)
        if wanted in (reason, entry["address"]) and entry["data"] is not None:
            chosen.append(entry)
        else:
            remaining.append(line)
    if not chosen:
        raise ConfigError(
            f"No dropped row that can come back has the reason or address '{wanted}'",
            where=str(out / DROPPED),
            found=f"the reasons {', '.join(sorted(map(str, seen)))}" if seen else "no dropped row",
            expected="a reason or an address of that file, of a row that could be read",
            fix="name one of them",
        )
    return chosen, remaining


def _by_file(out: Path, chosen: list[dict[str, Any]]) -> dict[Path, dict[Place, dict[str, Any]]]:
    """The rows that come back by the file they go into: that of their split, where the rows were split."""
    files = row_files(out)
    if WHOLE in files:
        return {files[WHOLE]: {_place_of(entry): _row_of(entry) for entry in chosen}}
    report = json.loads((out / f"{SPLIT.name}.json").read_text(encoding="utf-8"))
    held_out = HeldOutRows.of(files, SplitSettings.model_validate(report["settings"]))
    order = [step["step"] for step in json.loads((out / FUNNEL).read_text(encoding="utf-8"))["steps"]]
    behind = order[order.index(SPLIT.name) + 1 :]
    by_file: dict[Path, dict[Place, dict[str, Any]]] = defaultdict(dict)
    for entry in chosen:
        row = _row_of(entry)
        # What stands under that name before the step is a field of the row's own.
        split = row["metadata"][SPLIT.name] if entry["step"] in behind else held_out.split_of(row)
        row["metadata"][SPLIT.name] = split
        by_file[files[split]][_place_of(entry)] = row
    return by_file


def _place_of(entry: Mapping[str, Any]) -> Place:
    return entry["row"], entry.get("part", 0)


def _row_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    row = dict(entry["data"])
    return {**row, "metadata": {**row["metadata"], RESTORED: entry.get("dropped") or entry.get("merged")}}


def _merged(kept: Iterator[tuple[Place, Any]], rows: Mapping[Place, Any], *, ordered: bool) -> Iterator[Any]:
    """Kept rows with the others in their place, or after them where the kept ones are in another order."""
    waiting = sorted(rows)
    next_row = 0
    for place, row in kept:
        while ordered and next_row < len(waiting) and waiting[next_row] < place:
            yield rows[waiting[next_row]]
            next_row += 1
        yield row
    for place in waiting[next_row:]:
        yield rows[place]


def _is_ordered(places: Iterator[Place]) -> bool:
    return all(first <= second for first, second in pairwise(places))


def _into_lines(data: Path, rows: Mapping[Place, dict[str, Any]]) -> None:
    def kept() -> Iterator[tuple[Place, str]]:
        with data.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield _place_of(json.loads(line)["metadata"]), line

    ordered = _is_ordered(place for place, _ in kept())
    texts = {place: json.dumps(row, ensure_ascii=False) + "\n" for place, row in rows.items()}
    with new_file(data) as stream:
        for line in _merged(kept(), texts, ordered=ordered):
            stream.write(line.encode())


def _into_table(data: Path, rows: Mapping[Place, dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tutelage.curate.parquet_rows import parquet_batch, parquet_schema

    def kept() -> Iterator[tuple[Place, pa.RecordBatch]]:
        with pq.ParquetFile(data) as file:
            for batch in file.iter_batches():
                for index, metadata in enumerate(batch.column("metadata").to_pylist()):
                    yield _place_of(json.loads(metadata)), batch.slice(index, 1)

    tables = {}
    for place, row in rows.items():
        metadata = row.pop("metadata")
        tables[place] = parquet_batch([(json.dumps(row), metadata)])
    ordered = _is_ordered(place for place, _ in kept())
    merged = pa.Table.from_batches(_merged(kept(), tables, ordered=ordered), schema=parquet_schema())
    with new_file(data) as stream, pq.ParquetWriter(stream, parquet_schema(), write_page_checksum=True) as writer:
        writer.write_table(merged)


def _book(out: Path, chosen: list[dict[str, Any]], remaining: list[str], wanted: str) -> None:
    write_bytes(out / DROPPED, "".join(f"{line}\n" for line in remaining).encode())
    lines = []
    for entry in chosen:
        reason = entry.get("dropped") or entry.get("merged")
        record = {RESTORED: reason, **{name: entry[name] for name in ("step", "address", "row", "detail")}}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    ledger = (out / LEDGER).read_bytes()
    write_bytes(out / LEDGER, ledger + "".join(lines).encode())
    funnel = json.loads((out / FUNNEL).read_text(encoding="utf-8"))
    for entry in chosen:
        funnel["dropped" if "dropped" in entry else "merged"] -= 1
    funnel["kept"] += len(chosen)
    funnel[RESTORED] = funnel.get(RESTORED, 0) + len(chosen)
    assert funnel["in"] + funnel["added"] == funnel["kept"] + funnel["dropped"] + funnel["merged"], "books balance"
    write_json(out / FUNNEL, funnel)
    card = (out / CARD).read_text(encoding="utf-8")
    said = f"\n{len(chosen)} rows were restored afterwards ({wanted}), and are not in the figures above.\n"
    write_bytes(out / CARD, (card + said).encode())

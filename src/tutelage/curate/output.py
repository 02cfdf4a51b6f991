"""The output of a curation: the rows that are kept, the books, the rows that are not, the card, and hashes of all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from tutelage.curate.card import Card, Sizes, card_text
from tutelage.curate.entries import GONE, Entry
from tutelage.curate.funnel import Funnel
from tutelage.curate.licenses import licenses_of
from tutelage.curate.out_folder import (
    CARD,
    DROPPED,
    FUNNEL,
    LEDGER,
    PAGE,
    REPORTS,
    ROW_FILES,
    WHOLE,
    WORK,
    begin_output,
    write_hashes,
)
from tutelage.curate.parts import OutputWork, metadata_of, part_file, sizes_of
from tutelage.curate.request import CurationRequest
from tutelage.curate.row_json import with_metadata
from tutelage.curate.splitting import SPLIT
from tutelage.curate.stages import Stage, Workshop
from tutelage.curate.store import Rows, StoredRow
from tutelage.system.files import publish, scratch_path, write_bytes

WRITING = "writing rows"


def write_output(
    request: CurationRequest,
    stages: Sequence[Stage],
    funnel: Funnel,
    sha256: Mapping[str, str],
    workshop: Workshop,
    key: str,
) -> None:
    """Write all of it; it is whole from the moment on that `hashes.json` is there.

    Args:
        request: what was asked for.
        stages: reading first.
        funnel: their books.
        sha256: of the input files, by name.
        workshop: does the work.
        key: of the output.

    Raises:
        OSError: the disk refuses.
    """
    out = request.out
    folder = out / WORK / f"{len(stages):02d}-output-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    begin_output(out)
    sizes = _write_rows(request, stages, folder, workshop)
    _write_books(out, stages)
    write_json(out / FUNNEL, funnel.as_dict())
    reports = {f"{stage.names[0]}.json": stage.report for stage in stages if stage.report}
    for name in REPORTS - reports.keys():
        (out / name).unlink(missing_ok=True)
    for name, report in reports.items():
        write_json(out / name, report)
    card = Card(
        settings=request.settings,
        seed=request.seed,
        licenses=licenses_of(request.sources, request.settings.licenses),
        rows_in=rows_by_source(stages[0]),
        sizes=sizes,
        funnel=funnel,
        sha256=sha256,
        notes=[note for stage in stages for note in stage.notes],
    )
    write_bytes(out / CARD, card_text(card).encode("utf-8", "backslashreplace"))
    (out / PAGE).unlink(missing_ok=True)  # it shows what was before
    write_hashes(out, key)
    shutil.rmtree(folder)


def _write_rows(request: CurationRequest, stages: Sequence[Stage], folder: Path, workshop: Workshop) -> Sizes:
    """Write the rows that are kept, in one file or one for each split; their lengths by source."""
    tokenizer = None if request.tokenizer is None else request.tokenizer.read_text(encoding="utf-8")
    work = OutputWork(request.file_format, tokenizer)
    join = _join_lines if request.file_format == "jsonl" else _join_tables
    parts_of_all: list[tuple[Path, int]] = []
    written = set()
    for name, rows in _rows_by_file(request, stages).items():
        part_folder, blocks = folder / name, rows.blocks(rows=request.chunk_rows)
        part_folder.mkdir(exist_ok=True)
        workshop.work(work, part_folder, rows, blocks, part_file, WRITING)
        file = f"{name}.{request.file_format}"
        join([part_file(part_folder, number) for number in range(len(blocks))], request.out / file)
        written.add(file)
        parts_of_all.append((part_folder, len(blocks)))
    for other in ROW_FILES.keys() - written:
        (request.out / other).unlink(missing_ok=True)
    return sizes_of(parts_of_all, stages[-1].rows.source_of_file)


def _rows_by_file(request: CurationRequest, stages: Sequence[Stage]) -> dict[str, Rows]:
    """The rows of each file by its name without ending: those of a split, where the step that splits was taken."""
    rows = stages[-1].rows
    if not any(SPLIT.name in stage.names for stage in stages):
        return {WHOLE: rows}
    splits = np.array(rows.label_values(SPLIT.name), dtype=object)
    return {name: rows.select(np.flatnonzero(splits == name)) for name in request.settings.split.shares}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file for people and programs, whole or as it was before."""
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def dropped_line(entry: Entry) -> str:
    """A row that is gone as a line of `dropped.jsonl`: its entry, and under `data` the row as it would be kept."""
    data = "null"
    if entry.text is not None:
        row = StoredRow(entry.text, entry.file, entry.number, entry.unit, entry.row, entry.part, entry.labels)
        data = with_metadata(entry.text, metadata_of(row))
    return f'{entry.line()[:-2]}, "data": {data}}}\n'


@contextmanager
def new_file(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """A file to write, which gets its name when the block ends.

    Args:
        path: of the file.
        shared: other processes may write the same bytes under the same name meanwhile.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}") if shared else scratch_path(path)
    try:
        with scratch.open("wb") as stream:
            yield stream
        publish(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _write_books(out: Path, stages: Sequence[Stage]) -> None:
    with new_file(out / LEDGER) as ledger, new_file(out / DROPPED) as dropped:
        for stage in stages:
            for entry in stage.entries():
                ledger.write(entry.line().encode("utf-8", "backslashreplace"))
                if entry.what in GONE:
                    dropped.write(dropped_line(entry).encode("utf-8", "backslashreplace"))


def _join_lines(parts: Sequence[Path], path: Path) -> None:
    with new_file(path) as stream:
        for part in parts:
            with part.open("rb") as lines:
                shutil.copyfileobj(lines, stream, 1 << 20)


def _join_tables(parts: Sequence[Path], path: Path) -> None:
    import pyarrow.parquet as pq

    from tutelage.curate.parquet_rows import parquet_schema
    from tutelage.curate.store import read_table

    with new_file(path) as stream, pq.ParquetWriter(stream, parquet_schema(), write_page_checksum=True) as writer:
        for part in parts:
            writer.write_table(read_table([part]))


def rows_by_source(reading: Stage) -> dict[str, int]:
    """Rows read of each source, those too that could not be read."""
    names, codes = reading.rows.sources
    counts = {name: int((codes == code).sum()) for code, name in enumerate(names)}
    for entry in reading.entries():
        if entry.what in GONE:
            source = reading.rows.source_of_file.get(entry.file, entry.file)
            counts[source] = counts.get(source, 0) + 1
    return counts

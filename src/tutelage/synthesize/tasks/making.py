"""The whole: tasks -> a curated folder of instructions, evaluation items of what is held out, and a manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tutelage.config import Settings
from tutelage.curate.out_folder import EVALUATION, HELD_OUT, MANIFEST, read_hashes, require_ours, write_hashes
from tutelage.curate.output import write_json
from tutelage.curate.overview.parts import PageWriter
from tutelage.curate.pipeline import curate
from tutelage.curate.request import Curated
from tutelage.curate.step import Progress
from tutelage.errors import SourceNotFoundError
from tutelage.synthesize.tasks.held_out import HeldOut, conversations, general_set, held_out_rows
from tutelage.synthesize.tasks.overlap import Overlap, overlaps, require_apart
from tutelage.synthesize.tasks.rendering import Renderer
from tutelage.synthesize.tasks.request import Division, divided, request_of
from tutelage.synthesize.tasks.table import table_source
from tutelage.synthesize.tasks.task import Task
from tutelage.system.files import write_bytes
from tutelage.types import Conversation

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it.

    Attributes:
        curated: the instructions, with their books.
        held_out: evaluation items, by task.
        overlap: rows that were like held-out ones and went.
        manifest: what `tasks.json` holds.
    """

    curated: Curated
    held_out: tuple[HeldOut, ...]
    overlap: tuple[Overlap, ...]
    manifest: dict[str, Any]


def synthesize_tasks(
    settings: Settings,
    tasks: Sequence[Task],
    out: Path,
    *,
    max_rows: int | None = None,
    workers: int | None = None,
    log: Log = lambda _text: None,
    progress: Progress = lambda _title, _done, _total: None,
    page: PageWriter | None = None,
) -> Made:
    """Make instructions of tasks.

    Args:
        settings: `synthesize.tasks`, `curate` and the seed.
        tasks: all of them, held out or not.
        out: folder of the output.
        max_rows: of each table; None reads all.
        workers: processes; None takes one for each core, up to 4.
        log: told what is worth saying.
        progress: told how far it is.
        page: draws the page of the curation; None leaves it out.

    Raises:
        ConfigError: the folder is not ours, nothing is left to train, or what is held out is trained by another name.
        SourceNotFoundError: a table is not there.
        DataError: a row lacks a column, or a template does not fit a row.
        SaveError: the disk refuses.
    """
    require_ours(out)
    making = settings.synthesize.tasks
    division = divided(tasks, making)
    found = overlaps(division, making, settings.seed, max_rows=max_rows)
    near = require_apart(found, making)
    for overlap in found:
        log(f"note: {overlap.sentence()}; these rows are dropped")
    request = request_of(settings, division, out, near=near, max_rows=max_rows, workers=workers)
    held_out = tuple(
        held_out_rows(
            task, division.tables[task.name], making, settings.seed,
            Renderer(task, making, settings.seed), max_rows=max_rows,
        )
        for task in division.held_out
    )  # fmt: skip
    curated = curate(request, log=log, progress=progress, page=page)
    manifest = _manifest(settings, division, held_out, found, list(curated.files.values()))
    _write_beside(out, held_out, manifest)
    return Made(curated, held_out, found, manifest)


def samples(
    settings: Settings, tasks: Sequence[Task], *, rows: int = 3, max_rows: int = 200
) -> Iterator[tuple[Task, list[Conversation]]]:
    """The first instructions of each task, held out or not, of the first rows of its table. Nothing is written.

    Raises:
        ConfigError, SourceNotFoundError, DataError: as `synthesize_tasks`.
    """
    making = settings.synthesize.tasks
    tables = {task.name: table_source(task, making.data_folder) for task in tasks}
    everything = Division(tuple(tasks), (), tables)
    request = request_of(settings, everything, Path(), max_rows=max_rows)
    for task in tasks:
        yield task, list(islice(request.of_task(task, max_rows=max_rows), rows))


def present_tasks(tasks: Sequence[Task], data_folder: str | None) -> tuple[list[Task], list[Task]]:
    """Tasks whose tables are there, and those whose are not."""
    present, missing = [], []
    for task in tasks:
        try:
            table_source(task, data_folder)
        except SourceNotFoundError:
            missing.append(task)
        else:
            present.append(task)
    return present, missing


def _manifest(
    settings: Settings, division: Division, held_out: Sequence[HeldOut], found: Sequence[Overlap], data: Sequence[Path]
) -> dict[str, Any]:
    """What was made of which task file, by which settings."""
    forms: dict[str, Counter[str]] = {task.name: Counter() for task in division.trained}
    templates: dict[str, Counter[int]] = {task.name: Counter() for task in division.trained}
    for file in data:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                metadata = json.loads(line)["metadata"]
                forms[metadata["task"]][metadata["form"]] += 1
                templates[metadata["task"]][metadata["template"]] += 1
    trained = {
        task.name: _facts(task, division)
        | {
            "rows_out": forms[task.name].total(),
            "forms": dict(sorted(forms[task.name].items())),
            "by_template": {str(number): count for number, count in sorted(templates[task.name].items())},
        }
        for task in division.trained
    }
    return {
        "seed": settings.seed,
        "settings": settings.synthesize.tasks.model_dump(exclude_none=True),
        "trained": trained,
        "held_out": {one.task.name: _facts(one.task, division) | one.as_dict() for one in held_out},
        "near_held_out": [overlap.sentence() for overlap in found],
    }


def _facts(task: Task, division: Division) -> dict[str, Any]:
    file = task.file
    facts = {
        "cluster": file.cluster,
        "table": division.tables[task.name],
        "license": file.license,
        "origin": file.origin,
        "split": file.split,
        "templates": len(task.templates),
        "turned_around": len(task.templates) - len(task.straight),
        "task_sha256": hashlib.sha256(task.text.encode("utf-8")).hexdigest(),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _write_beside(out: Path, held_out: Sequence[HeldOut], manifest: dict[str, Any]) -> None:
    """Put what is no row of the data beside it, under the same seal."""
    hashes = read_hashes(out)
    for name, text in ((EVALUATION, general_set(held_out)), (HELD_OUT, conversations(held_out))):
        if text:
            write_bytes(out / name, text.encode("utf-8", "backslashreplace"))
        else:
            (out / name).unlink(missing_ok=True)
    write_json(out / MANIFEST, manifest)
    write_hashes(out, hashes["key"], page=hashes.get("page"))

"""A recipe's `[curate]`: the rows that are trained on are those that its steps let through."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tutelage.config import Settings
from tutelage.curate.decontaminate import DECONTAMINATE
from tutelage.curate.exact_duplicates import EXACT_DUPLICATES
from tutelage.curate.out_folder import FUNNEL, PAGE, TEST, VALIDATION
from tutelage.curate.output import new_file
from tutelage.curate.pipeline import curate
from tutelage.curate.request import Curated, CurationRequest
from tutelage.curate.scoring_model import ModelRequest, ScoringModel
from tutelage.errors import DataError, DependencyError, EndpointError
from tutelage.report.html.curation_page import CurationPage
from tutelage.report.html.offline import require_free_or_own
from tutelage.runs import folder as run_files
from tutelage.system.files import cache_folder
from tutelage.system.folder_use import delete_unused, using
from tutelage.system.seals import file_sha256

MOST_NAME = 60
"""Characters of a source's name in that of a file."""
BY_SOURCE_KEPT = 2
"""Folders of rows by source that one curation leaves in the cache: the one of now, and the one before it. Any that a
process reads stays as well; one that is gone is made again, of the same bytes, from the same rows. Our choice."""


def request_of(settings: Settings, out: Path) -> CurationRequest:
    """What `data` and `curate` ask for; what the run measures on is named, so that it is not trained on.

    Args:
        settings: resolved settings.
        out: folder of the output.
    """
    data, evaluation = settings.data, settings.evaluate
    return CurationRequest(
        sources=tuple(data.train),
        out=out,
        settings=settings.curate.model_copy(update={"steps": steps_of(settings)}),
        seed=settings.seed,
        shape=data.format,
        columns=data.columns,
        tree_paths=data.tree_paths,
        max_rows=data.max_rows,
        held_out=(*data.validation, *evaluation.task, *evaluation.general),
        workers=data.workers,
        open_model=_open_model,
    )


def steps_of(settings: Settings) -> list[str]:
    """The steps that are taken: where none are named, `decontaminate` is among them if there is something to spare.

    Args:
        settings: resolved settings.
    """
    table, evaluation = settings.curate, settings.evaluate
    spared = (*table.decontaminate.evaluations, *settings.data.validation, *evaluation.task, *evaluation.general)
    if "steps" in table.model_fields_set or not spared:
        return table.steps
    place = table.steps.index(EXACT_DUPLICATES.name) + 1
    return [*table.steps[:place], DECONTAMINATE.name, *table.steps[place:]]


def _open_model(request: ModelRequest) -> ScoringModel:
    """Late: only who names a step that asks a model needs torch.

    Raises:
        DependencyError: torch or transformers is not installed; or as `open_scoring_model`.
    """
    if missing := [name for name in ("torch", "transformers") if find_spec(name) is None]:
        raise DependencyError(
            f"{request.setting} asks a model, which needs {' and '.join(missing)}",
            where=request.setting,
            found="not installed",
            fix="pip install 'tutelage[train]', or leave the step out of curate.steps",
        )
    from tutelage.builders.scoring_model import open_scoring_model

    return open_scoring_model(request)


def with_curated_rows(
    settings: Settings, *, run_folder: Path | None, log: Callable[[str], None], reading: ExitStack
) -> Settings:
    """The settings with the curated rows as their data, where the recipe has a table `[curate]`.

    The rows lie in the cache and are curated once for the same files and settings. Where they are split, those for
    validation are what held-out loss is measured on, and none but those to train on is trained on.

    Args:
        settings: resolved settings.
        run_folder: receives the books and the page; None keeps the books in the cache alone, and draws none.
        log: told what came of it.
        reading: the rows stay in the cache until it is closed.

    Raises:
        DataError: no row is left, to train on, to validate on or of a source that has a weight; or as `curate`.
        SaveError: the disk refuses.
    """
    if "curate" not in settings.model_fields_set:
        return settings
    data = settings.data
    asked = [settings.curate.model_dump(), data.model_dump(), settings.seed]
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    request = request_of(settings, cache_folder() / "curated" / name)
    curated = curate(request, log=log, page=None if run_folder is None else CurationPage())
    funnel = curated.funnel
    _require_judged(curated, settings)
    for line in curated.incomplete:
        log(f"{line}; the same command goes on with them, and trains on what it then finds")
    log(f"Curated: {funnel.rows_in:,} rows read, {funnel.rows_kept:,} kept ({request.out})")
    for note in curated.notes:
        log(note)
    if run_folder is not None:
        shutil.copyfile(request.out / FUNNEL, run_folder / run_files.CURATION)
        _copy_page(request.out / PAGE, run_folder / run_files.CURATION_PAGE, log)
    if not funnel.rows_kept or curated.data is None or not curated.data.stat().st_size:
        raise DataError(
            "Curation left no row to train on", where=", ".join(data.train), found="; ".join(funnel.lines()),
            expected="at least one row", fix=f"see {request.out / 'dropped.jsonl'}, and change the steps",
        )  # fmt: skip
    changed: dict[str, Any] = {
        "train": [str(curated.data)],
        "format": "auto",
        "columns": {},
        "max_rows": None,
        "tree_paths": "kept",
    }
    if data.weights:
        changed |= _by_source(curated, curated.data, settings, log, reading)
    if settings.splits_validation:
        changed["validation"] = [str(_held_out_file(curated, settings))]
    if TEST in curated.files:
        log(f"Rows of the split test are not trained on: {curated.files[TEST]}")
    return settings.model_copy(update={"data": data.model_copy(update=changed)})


def _copy_page(page: Path, target: Path, log: Callable[[str], None]) -> None:
    """Put the page of the curation into the run's folder, whose report links it."""
    if not page.exists():  # rows were restored, and it would show what was before
        return
    require_free_or_own(target, fix=f"move {target.name} away, then start again")
    shutil.copyfile(page, target)
    log(f"What was curated, to look at in a browser: {target}")


def _require_judged(curated: Curated, settings: Settings) -> None:
    """Stop where a judge did not get through, unless the recipe says what then."""
    if curated.incomplete and settings.curate.judge.unfinished == "stop":
        raise EndpointError(
            "The rows to train on are not all judged, so nothing was trained",
            where="curate.judge",
            found="; ".join(curated.incomplete),
            expected="a score for each row, or curate.judge.unfinished to say what becomes of the others",
            fix="give the same command again: it goes on, and asks about none twice; or set "
            "curate.judge.unfinished=scored to train on those with a score, all to train on all",
        )


def _held_out_file(curated: Curated, settings: Settings) -> Path:
    path = curated.files[VALIDATION]
    if not path.stat().st_size:
        raise DataError(
            "No row could be set apart for validation", where="curate.split.validation",
            found=f"{settings.curate.split.validation:g} of {curated.funnel.rows_kept:,} rows: none may be apart",
            expected="at least one row", fix="set curate.split.validation to 0 or higher, or name data.validation",
        )  # fmt: skip
    return path


def _remove_superseded(folder: Path, curated: Path) -> None:
    """Remove what the curation made by source of rows that it no longer has, and what is left of deleted curations."""
    others = [path for path in folder.parent.glob("*-by-source") if path != folder]
    of_this = [path for path in others if path.name.startswith(f"{curated.name}-")]
    of_this.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    orphans = [path for path in others if not path.with_name(path.name.partition("-")[0]).is_dir()]
    for path in (*of_this[BY_SOURCE_KEPT - 1 :], *orphans):
        delete_unused(path)


def _file_name(number: int, source: str) -> str:
    """Of the rows of a source: they are called by it wherever the run speaks of them, so it says which source it is."""
    stem = source.rstrip("/").rsplit("/", 1)[-1].partition(".")[0]
    return f"{number:02d}-{re.sub(r'[^A-Za-z0-9_-]+', '-', stem)[:MOST_NAME]}.jsonl"


def _by_source(
    curated: Curated, data: Path, settings: Settings, log: Callable[[str], None], reading: ExitStack
) -> dict[str, Any]:
    """The curated rows as one file for each source, so that `data.weights` goes on to mean what it says.

    The files lie beside the output, under a name made of what the rows are.
    """
    rows_sha256 = file_sha256(data)
    folder = data.parent.with_name(f"{data.parent.name}-{rows_sha256[:16]}-by-source")
    reading.enter_context(using(folder))
    os.utime(folder)
    _remove_superseded(folder, data.parent)
    paths = {source: folder / _file_name(number, source) for number, source in enumerate(settings.data.train)}
    counts: Counter[str] = Counter()
    with ExitStack() as stack, data.open(encoding="utf-8", newline="\n") as lines:
        streams = {source: stack.enter_context(new_file(path, shared=True)) for source, path in paths.items()}
        for line in lines:
            file = json.loads(line)["metadata"]["file"]
            source = curated.source_of_file.get(file, file)
            streams[source].write(line.encode())
            counts[source] += 1
    for source, weight in settings.data.weights.items():
        if not counts[source]:
            raise DataError(
                "A weight was given to a source of which curation left nothing to train on", where=source,
                found=f"data.weights = {weight:g}, and no row", expected="at least one row",
                fix=f"see {data.parent / 'dropped.jsonl'}; or take it out of data.weights",
            )  # fmt: skip
    log("Curated rows by source: " + ", ".join(f"{paths[name]} has {counts[name]:,} of {name}" for name in counts))
    return {
        "train": [str(path) for source, path in paths.items() if counts[source]],
        "weights": {str(paths[source]): weight for source, weight in settings.data.weights.items()},
    }

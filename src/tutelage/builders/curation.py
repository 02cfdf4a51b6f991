"""A recipe's `[curate]`: the rows that are trained on are those that its steps let through."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tutelage.config import Settings
from tutelage.curate.out_folder import FUNNEL
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest
from tutelage.curate.scoring_model import ModelRequest, ScoringModel
from tutelage.errors import ConfigError, DataError, DependencyError
from tutelage.runs import folder as run_files
from tutelage.system.files import cache_folder


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
        settings=settings.curate,
        seed=settings.seed,
        shape=data.format,
        columns=data.columns,
        tree_paths=data.tree_paths,
        max_rows=data.max_rows,
        held_out=(*data.validation, *evaluation.task, *evaluation.general),
        workers=data.workers,
        open_model=_open_model,
    )


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


def with_curated_rows(settings: Settings, *, run_folder: Path | None, log: Callable[[str], None]) -> Settings:
    """The settings with the curated rows as their data, where the recipe has a table `[curate]`.

    The rows lie in the cache and are curated once for the same files and settings.

    Args:
        settings: resolved settings.
        run_folder: receives the books; None keeps them in the cache alone.
        log: told what came of it.

    Raises:
        ConfigError: sources are weighted, which the one file of curated rows has no more of.
        DataError: no row is left; or as `curate`.
        SaveError: the disk refuses.
    """
    if "curate" not in settings.model_fields_set:
        return settings
    data = settings.data
    if data.weights:
        raise ConfigError(
            "data.weights and [curate] do not go together", where="data.weights", found=", ".join(data.weights),
            expected="curated rows, which are one file and have no sources any more",
            fix="take the step mix, with curate.mix.weights in place of data.weights; or remove data.weights",
        )  # fmt: skip
    asked = [settings.curate.model_dump(), data.model_dump(), settings.seed]
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    request = request_of(settings, cache_folder() / "curated" / name)
    curated = curate(request, log=log)
    funnel = curated.funnel
    log(f"Curated: {funnel.rows_in:,} rows read, {funnel.rows_kept:,} kept ({request.out})")
    if run_folder is not None:
        shutil.copyfile(request.out / FUNNEL, run_folder / run_files.CURATION)
    if not funnel.rows_kept:
        raise DataError(
            "Curation left no row to train on", where=", ".join(data.train), found="; ".join(funnel.lines()),
            expected="at least one row", fix=f"see {request.out / 'dropped.jsonl'}, and change the steps",
        )  # fmt: skip
    curated_data = data.model_copy(
        update={"train": [str(curated.data)], "format": "auto", "columns": {}, "max_rows": None, "tree_paths": "kept"}
    )
    return settings.model_copy(update={"data": curated_data})

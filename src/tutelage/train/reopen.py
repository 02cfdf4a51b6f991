"""Opens a finished run again: the tuned model, the original, or one that can be both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage import config
from tutelage.config import Settings
from tutelage.errors import SourceNotFoundError
from tutelage.model.adapt import put_adapter
from tutelage.model.load import compute_in, settled_precision
from tutelage.model.source import model_folder
from tutelage.render import Renderer
from tutelage.train import folder as run_files
from tutelage.train.method import loaded_base, trained_name
from tutelage.train.renderer import renderer_for


@dataclass(frozen=True, slots=True)
class Reopened:
    """A run's models. With an adapter both are one object, and `as_base` switches the adapter off for a while."""

    settings: Settings
    renderer: Renderer
    system_prompt: str | None
    tuned: Any | None
    base: Any | None

    @contextmanager
    def as_base(self) -> Iterator[Any]:
        """The original model; the adapter is back when the block ends."""
        if self.base is None:
            assert self.tuned is not None
            with self.tuned.disable_adapter():
                yield self.tuned
        else:
            yield self.base

    @contextmanager
    def as_tuned(self) -> Iterator[Any]:
        """The tuned model."""
        assert self.tuned is not None
        yield self.tuned


def reopen(name: str, *, tuned: bool, base: bool, say: Callable[[str], None] = print) -> Reopened:
    """Load what a run trained (`tuned`), what it started from (`base`), or both.

    Raises:
        SourceNotFoundError: not a run, or the run has no trained weights yet.
    """
    folder = run_files.existing_run_folder(name)
    settings = config.load(folder / run_files.SETTINGS)
    start = model_folder(settings.model.name, say=say)
    beside = settings.model.method != "full"
    trained = folder / trained_name(settings)
    if tuned and not trained.is_dir():
        raise SourceNotFoundError(
            "This run has no trained weights yet",
            where=str(trained),
            fix=f"let it finish: tutelage train --resume {folder}",
        )
    tuned_model = base_model = None
    if tuned and beside:
        tuned_model = put_adapter(_opened(start, settings), trained)
        compute_in(tuned_model, settled_precision(settings.model.precision))
    elif tuned:
        tuned_model = _opened(trained, settings)
    if base and not (tuned and beside):
        base_model = _opened(start, settings)
    return Reopened(settings, renderer_for(start, settings.render), _system_prompt(folder), tuned_model, base_model)


def _opened(folder: Path, settings: Settings) -> Any:
    model, _ = loaded_base(settings, folder)
    compute_in(model, settled_precision(settings.model.precision))
    return model


def _system_prompt(folder: Path) -> str | None:
    path = folder / run_files.INPUTS
    value = json.loads(path.read_text(encoding="utf-8")).get("system_prompt") if path.is_file() else None
    return value if isinstance(value, str) else None

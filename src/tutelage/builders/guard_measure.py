"""A finished run's model at values of the dial, asked a general set that the run itself was not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tutelage.builders.dial import opened_for_dial
from tutelage.builders.evaluation import eval_suite_for, prepared_again
from tutelage.builders.measured import Measured
from tutelage.builders.resolved_run import resolve
from tutelage.builders.row_lengths import longest_rows
from tutelage.builders.trained_model import TrainedModel, open_trained_model
from tutelage.config import Settings
from tutelage.evaluate.dial import BASE, TUNED
from tutelage.evaluate.suite import run_suite
from tutelage.model.architecture import architecture_of
from tutelage.model.interpolation import mark_whole_modules
from tutelage.model.loss import row_loss
from tutelage.model.out_of_memory import release_memory
from tutelage.report.console.progress import Screen
from tutelage.report.dial import value_text
from tutelage.runs import folder as run_files
from tutelage.runs.unchecked import unchecked_notes


def measure_at(
    folder: Path, values: Sequence[float], *, screen: Screen, general: Sequence[str]
) -> dict[float, Measured]:
    """Measure a run's model at values between its base (0) and what it trained (1).

    Args:
        folder: of the run.
        values: from 0 to 1; a run of prompt tuning has nothing between.
        screen: told what happens.
        general: sets to ask, and nothing else.

    Returns:
        What was measured, by value.

    Raises:
        ConfigError: the run has nothing between its base and what it trained.
        TutelageError: the run, its base or a file cannot be used.
    """
    settings = run_files.read_settings(folder)
    opened = (
        open_trained_model(str(folder), tuned=True, base=False, log=screen.log)
        if settings.model.method == "prompt"
        else opened_for_dial(folder, settings, screen)
    )
    asked = _asked(opened.settings, general)
    prepared = prepared_again(asked, opened.renderer.tokenizer.folder, log=screen.log)
    resolved = resolve(asked)
    measured = {}
    with _at(opened, values[0]) as model:
        mark_whole_modules(model)
        architecture = architecture_of(model, longest_rows(resolved, prepared))
    suite = replace(eval_suite_for(resolved, prepared, architecture=architecture), noise_prompts=0)
    names = ", ".join(map(value_text, values))
    with screen.counting(f"Asking {suite.replies} prompts at {names}", suite.replies * len(values)) as done:
        for value in values:
            with _at(opened, value) as model:
                eval_result = run_suite(
                    model,
                    opened.renderer,
                    suite,
                    done=done,
                    log=screen.log,
                    row_loss=partial(row_loss, architecture=architecture),
                    attention=architecture.attention,
                )
            for note in unchecked_notes({f"At {value_text(value)}": eval_result.unchecked}):
                screen.log(note)
            measured[value] = Measured.of(eval_result, suite.general, ())
    del opened, model
    release_memory()
    return measured


def _asked(settings: Settings, general: Sequence[str]) -> Settings:
    evaluate = settings.evaluate.model_copy(update={"task": [], "general": list(general)})
    data = settings.data.model_copy(update={"validation": [], "validation_ratio": 0.0})
    return settings.model_copy(update={"data": data, "evaluate": evaluate})


@contextmanager
def _at(opened: TrainedModel, value: float) -> Iterator[Any]:
    """The ends of a prompt's dial are there, too, though nothing is between."""
    if opened.settings.model.method == "prompt" and value in (BASE, TUNED):
        with opened.as_base() if value == BASE else opened.as_tuned() as model:
            yield model
    else:
        with opened.at(value) as model:
            yield model

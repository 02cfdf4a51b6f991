"""Several models asked the same questions, one in memory after the other: runs, models and adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.builders.base_model import names_a_run
from tutelage.builders.evaluation import evaluate_rows, lm_eval_of
from tutelage.builders.measured import Measured
from tutelage.builders.trained_model import TrainedModel, open_model, open_trained_model
from tutelage.config import Settings
from tutelage.config.reading import from_mapping
from tutelage.errors import ConfigError
from tutelage.formats.memory import keep_rows
from tutelage.model.out_of_memory import release_memory
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files

WHERE = "tutelage evaluate"
BASE_OF = "base of {}"
SHARED_SETTINGS = ("max_new_tokens", "batch_prompts", "lm_eval_prompts", "lm_eval_items")
STAND_IN = [{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello."}]}]
"""A row that a model is tried on where no other is given; nothing is measured on it."""


@dataclass(frozen=True, slots=True)
class Questions:
    """What models are asked: files or hub data sets of each kind."""

    validation: tuple[str, ...] = ()
    task: tuple[str, ...] = ()
    general: tuple[str, ...] = ()
    lm_eval: tuple[str, ...] = ()
    """Names of tasks of lm-eval."""

    @property
    def any(self) -> bool:
        """Whether there is something to ask."""
        return bool(self.validation or self.task or self.general or self.lm_eval)


def questions_of(names: Sequence[str], given: Questions) -> Questions:
    """What was given, or else what the first of the models asks itself, if it is a run.

    Raises:
        ConfigError: a model twice, or nothing to ask.
    """
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            "A model stands twice among those to compare", where=WHERE, found=repeated[0], fix="name it once"
        )
    if given.any:
        return given
    if names_a_run(Path(names[0])):
        settings = run_files.read_settings(Path(names[0]))
        evaluate = settings.evaluate
        given = Questions(tuple(settings.data.validation), tuple(evaluate.task), tuple(evaluate.general))
        given = replace(given, lm_eval=tuple(evaluate.lm_eval))
    if not given.any:
        raise ConfigError(
            "There is nothing to ask these models",
            where=WHERE,
            found=", ".join(names),
            expected="questions, or a run first, whose own are taken",
            fix="add --general FILE, --task FILE, --validation FILE or --lm-eval TASK",
        )
    return given


def evaluate_models(
    names: Sequence[str], questions: Questions, *, overrides: Sequence[str] = (), screen: Screen
) -> dict[str, Measured]:
    """What each model has right of the same questions, by its name.

    Args:
        names: folders of runs, or models and adapters as `model.name` takes them. A run alone that is asked tasks of
            lm-eval is measured beside its base.
        questions: something to ask.
        overrides: settings such as `evaluate.max_new_tokens=64`, as of a recipe.
        screen: told what happens.

    Raises:
        TutelageError: a model or a file that cannot be used.
    """
    measured: dict[str, Measured] = {}
    run = next((name for name in names if names_a_run(Path(name))), None)
    shared = {} if run is None else _shared_by_all(run_files.read_settings(Path(run)))
    lm_eval = lm_eval_of(_settings_for(names[0], questions, shared, overrides), screen.log)
    for title, name, is_base in _beside_base(names, questions):
        settings = _settings_for(name, questions, shared, overrides)
        trained_model = _opened(name, settings, screen, is_base=is_base)
        screen.log(f"Measuring {title}")
        answers = "base" if is_base else trained_model.names[-1]
        measured[title] = evaluate_rows(
            trained_model,
            settings,
            name=answers,
            screen=screen,
            measures_loss=bool(questions.validation),
            lm_eval=lm_eval,
        )
        del trained_model
        release_memory()
    return measured


def _beside_base(names: Sequence[str], questions: Questions) -> list[tuple[str, str, bool]]:
    """Of each model that is measured: what it is called, its name, and whether the base of that run is meant."""
    alone = len(names) == 1 and names_a_run(Path(names[0])) and bool(questions.lm_eval)
    base = [(BASE_OF.format(names[0]), names[0], True)] if alone else []
    return [*base, *((name, name, False) for name in names)]


def _shared_by_all(settings: Settings) -> dict[str, dict[str, Any]]:
    """What a run sets that changes what is measured: a model beside it is measured alike."""
    return {
        "model": {"precision": settings.model.precision},
        "pack": settings.pack.model_dump(exclude_unset=True),
        "evaluate": settings.evaluate.model_dump(include=set(SHARED_SETTINGS)),
    }


def _settings_for(
    name: str, questions: Questions, shared: Mapping[str, dict[str, Any]], overrides: Sequence[str]
) -> Settings:
    rows = list(questions.validation or questions.task) or [keep_rows(STAND_IN, "data")]
    values = {
        "model": {**shared.get("model", {}), "name": name},
        "data": {"train": rows},
        "pack": shared.get("pack", {}),
        "evaluate": {
            **shared.get("evaluate", {}),
            "task": list(questions.task),
            "general": list(questions.general),
            "lm_eval": list(questions.lm_eval),
        },
    }
    return from_mapping(values, overrides, where=WHERE)


def _opened(name: str, settings: Settings, screen: Screen, *, is_base: bool) -> TrainedModel:
    if names_a_run(Path(name)):
        has_adapter = run_files.read_settings(Path(name)).model.method != "full"  # one object is then both models
        base = is_base and not has_adapter
        return open_trained_model(name, tuned=not base, base=base, log=screen.log)
    return open_model(settings, log=screen.log)

"""The verbs: `train`, `plan`, `audit`, `evaluate`, `export`."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.api.data import NO_DATA, Data, data_keywords
from tutelage.api.run import Run, screen_here
from tutelage.builders.export.request import PROMPTS, DtypeName
from tutelage.config.keywords import from_keywords
from tutelage.config.settings import UNNAMED_RUN, Settings
from tutelage.errors import ConfigError
from tutelage.types import Finding

if TYPE_CHECKING:
    from tutelage.evaluate.suite import Metrics
    from tutelage.plan.plan import Plan
    from tutelage.report.console.progress import Screen


def train(
    model: str | os.PathLike[str] | Settings,
    data: Data | None = None,
    *,
    validation: Data | None = None,
    task: Data | None = None,
    general: Data | None = None,
    resume: bool = False,
    checkpoint: str | None = None,
    skip_step: bool = False,
    screen: Screen | None = None,
    **settings: Any,
) -> Run:
    """Fine-tune a model on demonstrations; measure it before and after; leave a run folder with a report.

    >>> run = train(model, data=rows, method="lora", epochs=1, folder=folder, lora={"rank": 4})
    >>> run.result["method"]
    'lora'

    Args:
        model: a short name, folder, hub id, adapter or run to start from; or `Settings`, such as those of another run.
        data: a path, glob, folder, hub id, or a list of these; or rows: dicts in a list or any other iterable. A row in
            memory is `<data>[17]` in errors and in the ledger; a copy of the rows is kept in the cache, for a resume.
        validation: rows to measure loss on, never trained on, given the same way.
        task: rows whose replies are generated and scored, before and after.
        general: prompts with checks, away from the task.
        resume: go on with the run of this `name` and `folder` from its last checkpoint; the same data and settings are
            required.
        checkpoint: with `resume`: go on from this one, such as `step-000010`.
        skip_step: with `resume`: leave out the step that the run was stopped before.
        screen: told what happens; None writes to the terminal or notebook.
        settings: the recipe's names as keywords: `epochs=2`, `lora={"rank": 16}`, `**{"pack.max_seq_length": 512}`. The
            last part of a name is enough where no other field ends so. Without `name`, the run gets a free one.

    Raises:
        ConfigError: a wrong or missing setting; all problems together, with the nearest right names.
        TutelageError: of the kind that fits: data, model or run that cannot be used.
    """
    run_settings = settings_of(model, "train", settings, data=data, validation=validation, task=task, general=general)
    if "name" not in settings and not isinstance(model, Settings):
        if resume:
            raise ConfigError(
                "Which run is to go on is not said",
                where="train(resume=True)",
                found="no name",
                expected="the name that the run began with",
                fix="add name=NAME, and folder=FOLDER if it had one",
            )
        run_settings = run_settings.model_copy(update={"name": _free_name(Path(run_settings.folder))})
    from tutelage.train.run import run

    finished = run(run_settings, screen or screen_here(), resume=resume, checkpoint=checkpoint, skip_step=skip_step)
    trained_run = Run(finished.folder)
    trained_run.ended = finished.ended
    return trained_run


def settings_of(
    model: str | os.PathLike[str] | Settings, verb: str, keywords: dict[str, Any], **data: Data | None
) -> Settings:
    """The settings that a call of `verb` asks for."""
    sources = data_keywords(**data)
    where = f"tutelage.{verb}(...)"
    if isinstance(model, Settings):
        if not keywords and not sources:
            return model.resolved()
        set_values = model.model_dump(exclude_unset=True)
        named = {
            f"{name}.{key}": value
            for name, section in set_values.items()
            if isinstance(section, dict)
            for key, value in section.items()
        }
        plain = {
            name: value for name, section in set_values.items() if not isinstance(section, dict) for value in [section]
        }
        return from_keywords(plain | named | sources | keywords, where=where)
    return from_keywords({"model.name": os.fspath(model)} | sources | keywords, where=where)


def _free_name(folder: Path) -> str:
    """The first name that no run has: a `Run` of an earlier call stays what it is."""
    names = (UNNAMED_RUN if number == 1 else f"{UNNAMED_RUN}-{number}" for number in count(1))
    return next(name for name in names if not os.path.lexists(folder / name))


def plan(
    model: str | os.PathLike[str] | Settings,
    data: Data | None = None,
    *,
    memory_gb: float | None = None,
    probe: bool = False,
    tokens: int = 2048,
    log: Callable[[str], None] | None = None,
    **settings: Any,
) -> Plan:
    """Bytes and seconds of a run, before anything is loaded.

    >>> plan(model, data=rows, method="lora").chosen.method
    'lora'

    Args:
        model: as for `train`.
        data: as for `train`; None plans for rows of `tokens` tokens, one document each.
        memory_gb: plan for this much memory; None for what is free here.
        probe: time a few layers, which takes about 10 s.
        tokens: of a row, where no data is given.
        log: told what goes on.
        settings: as for `train`.

    Raises:
        TutelageError: settings, data or model cannot be used.
    """
    from tutelage.builders.planning import of_model, of_recipe

    log = log or _silent

    if data is None and not isinstance(model, Settings):
        run_settings = from_keywords({"model.name": os.fspath(model)} | NO_DATA | settings, where="tutelage.plan(...)")
        method, precision = run_settings.model.method, run_settings.model.precision
        return of_model(run_settings.model.name, method, tokens, precision, memory_gb=memory_gb, probe=probe, log=log)
    run_settings = settings_of(model, "plan", settings, data=data)
    return of_recipe(run_settings, memory_gb=memory_gb, probe=probe, log=log)


def _silent(_text: str) -> None:
    pass


def audit(model: str | os.PathLike[str], **settings: Any) -> tuple[Finding, ...]:
    """What a checkpoint's template, tokenizer and weights do to training, errors first.

    >>> [finding.severity for finding in audit(model)].count("error")
    0

    Args:
        model: a short name, folder or hub id.
        settings: of `[render]`, as for `train`: `template="chatml"`.

    Raises:
        TutelageError: the model or its template cannot be read.
    """
    from tutelage.builders.checkpoint_report import checkpoint_report

    run_settings = from_keywords({"model.name": os.fspath(model)} | NO_DATA | settings, where="tutelage.audit(...)")
    return checkpoint_report(run_settings.model.name, run_settings.render, log=_silent).findings


def evaluate(
    model: str | os.PathLike[str] | Run,
    data: Data | None = None,
    *,
    task: Data | None = None,
    general: Data | None = None,
    **settings: Any,
) -> Metrics:
    """Measure a run's model, or any other, on rows: loss, answers compared, general prompts.

    >>> evaluate(model, data=rows[:4]).heldout_loss > 0
    True

    Args:
        model: a `Run`, the folder of one, or a model as for `train`.
        data: rows to measure the loss on; for a run None takes what its settings name.
        task: rows whose replies are generated and scored.
        general: prompts with checks.
        settings: as for `train`, for a model that is no run.

    Raises:
        TutelageError: run, model or data cannot be used.
    """
    from tutelage.builders.base_model import names_a_run

    if isinstance(model, Run) or names_a_run(Path(model)):
        run = model if isinstance(model, Run) else Run(model)
        if settings:
            raise ConfigError(
                "A run is measured with its own settings",
                where="tutelage.evaluate(...)",
                found=", ".join(settings),
                fix="leave them out",
            )
        return run.evaluate(data, task=task, general=general)
    from tutelage.builders.evaluation import evaluate_rows
    from tutelage.builders.trained_model import open_model

    screen = screen_here(stderr=True)
    run_settings = settings_of(model, "evaluate", settings, data=data, task=task, general=general)
    opened = open_model(run_settings, log=screen.log)
    return evaluate_rows(opened, run_settings, name="base", screen=screen).metrics


def export(
    run: str | os.PathLike[str] | Run,
    folder: str | os.PathLike[str],
    *,
    to: str = "hf",
    dial: float | None = None,
    dtype: DtypeName | None = None,
    prompts: int = PROMPTS,
) -> Path:
    """Write what a run trained in a form that other tools load; see `Run.export`.

    >>> (export(run, folder + "/exported", prompts=2) / "config.json").is_file()
    True

    Args:
        run: a `Run`, or the folder of one.
        folder: made; refused where it holds something.
        to: the form.
        dial: a value between the base (0) and what was trained (1).
        dtype: of the weights; None leaves each as the base stores it.
        prompts: it is compared with the run on so many.

    Raises:
        TutelageError: as `Run.export`.
    """
    return (run if isinstance(run, Run) else Run(run)).export(folder, to=to, dial=dial, dtype=dtype, prompts=prompts)

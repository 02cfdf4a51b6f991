"""Names of lm-eval tasks -> the tasks with their items, before a model is loaded."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tutelage.errors import ConfigError, DependencyError, SourceNotFoundError, cause_of

WHERE = "evaluate.lm_eval"
INSTALL = "pip install 'tutelage[lm-eval]'"
SUFFIXES = (".yaml", ".yml")
SEED, ITEMS_SEED = 0, 1234
"""Of `random`, and of numpy and the few-shot examples. Source: lm-eval's own (`lm_eval.defaults`), whose items and
prompts these then are."""

Prompts = Literal["served", "plain"]


@dataclass(frozen=True, slots=True)
class HarnessTasks:
    """Tasks that are ready to be asked.

    Attributes:
        names: as they were given: of tasks, groups or tags, or paths of YAML files.
        loaded: lm-eval's `TaskDict`.
        prompts: "served" with the model's chat template, few-shot examples as turns; "plain" without.
        items: the first so many of each task; None: all.
    """

    names: tuple[str, ...]
    loaded: Any
    prompts: Prompts = "served"
    items: int | None = None


def load_tasks(
    names: Sequence[str], *, prompts: Prompts = "served", items: int | None = None, log: Callable[[str], None]
) -> HarnessTasks | None:
    """Find the tasks and read their items, from the disk or the hub; None where no name is given.

    Args:
        names: of tasks, groups or tags of lm-eval, or paths of YAML files with a task.
        prompts: as of `HarnessTasks`.
        items: as of `HarnessTasks`.
        log: told that it takes a while.

    Raises:
        DependencyError: lm-eval is not installed.
        SourceNotFoundError: lm-eval knows no such task, or its data cannot be had.
        ConfigError: a task that is no good here: it runs code from replies, or wants pictures or sound.
    """
    if not names:
        return None
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise DependencyError(
            "Tasks of lm-eval need a package that is not installed",
            where=WHERE,
            found=str(error),
            expected="lm-eval 0.4.13 or newer",
            fix=INSTALL,
        ) from error
    are_files = all(_is_file(name) for name in names)
    if not are_files:
        log("Looking through the tasks of lm-eval")
    with as_the_harness():
        manager = TaskManager(include_defaults=not are_files)
        for name in names:
            _require_known(name, manager.all_tasks)
        loaded = _loaded(manager, names)
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=ITEMS_SEED)
    for name, task in loaded["tasks"].items():
        _require_askable(name, task)
    return HarnessTasks(tuple(names), loaded, prompts, items)


def _is_file(name: str) -> bool:
    return name.endswith(SUFFIXES) and Path(name).is_file()


def _require_known(name: str, known: Sequence[str]) -> None:
    if _is_file(name) or name in known:
        return
    near = get_close_matches(name, known, n=1)
    raise SourceNotFoundError(
        f"lm-eval has no task '{name}'",
        where=WHERE,
        found=name,
        expected="the name of a task, a group or a tag that `lm-eval ls tasks` shows, or a YAML file with a task",
        fix=f"did you mean '{near[0]}'?" if near else "name one of these",
    )


def _loaded(manager: Any, names: Sequence[str]) -> Any:
    try:
        return manager.load(list(names))
    except Exception as error:  # a task's own code makes it ready, and raises what it likes
        unreachable = isinstance(error, ConnectionError) or "offline" in str(error).lower()
        raise SourceNotFoundError(
            "The items of a task of lm-eval cannot be had",
            where=WHERE,
            found=f"{', '.join(names)}: {cause_of(error)}",
            expected="its data set, in the cache of the package datasets or on the hub",
            fix="run this once with a network, which keeps the data set in the cache; or name a YAML file whose "
            "data_files are on this machine"
            if unreachable
            else "see whether `lm-eval run --tasks` with the same name can be run",
        ) from error


def _require_askable(name: str, task: Any) -> None:
    unsafe = bool(getattr(task, "UNSAFE_CODE", False) or task.get_config("unsafe_code"))
    if not unsafe and not getattr(task, "MULTIMODAL", False):
        return
    raise ConfigError(
        "This task of lm-eval cannot be asked here",
        where=WHERE,
        found=f"{name}, which {'runs the code of replies in no sandbox' if unsafe else 'shows more than text'}",
        fix="leave it out; checks of the kind code in a general set run code in a sandbox"
        if unsafe
        else "leave it out",
    )


@contextmanager
def as_the_harness() -> Iterator[None]:
    """Chance as lm-eval's command seeds it, and its warnings kept off the screen; both as before when this ends."""
    logger = logging.getLogger("lm_eval")
    level, state, numpy_state = logger.level, random.getstate(), np.random.get_state()
    logger.setLevel(logging.ERROR)
    random.seed(SEED)
    np.random.seed(ITEMS_SEED)  # tasks draw from this one
    try:
        yield
    finally:
        logger.setLevel(level)
        random.setstate(state)
        np.random.set_state(numpy_state)

"""What `synthesize tasks` is asked for: task files, or a recipe that names them and is trained from afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage import config
from tutelage.config import Settings
from tutelage.curate.out_folder import ROW_FILES
from tutelage.errors import ConfigError, SourceNotFoundError, TutelageError, command
from tutelage.model.locate import model_folder


@dataclass(frozen=True, slots=True)
class AskedTasks:
    """What was asked for.

    Attributes:
        settings: all of them.
        tasks: task files and folders.
        recipe: what was named in place of tasks; None where it was tasks.
        folder: where the recipe trains from; None without a recipe, or where it trains from something else.
    """

    settings: Settings
    tasks: tuple[str, ...]
    recipe: str | None = None
    folder: Path | None = None


def asked_tasks(
    sources: Sequence[str], recipe: str | None, changed: Sequence[str], *, log: Callable[[str], None]
) -> AskedTasks:
    """The settings and the tasks.

    Args:
        sources: task files and folders, or one recipe.
        recipe: settings for task files.
        changed: settings, in place of those.
        log: told where lengths cannot be counted.

    Raises:
        ConfigError: the recipe names no tasks, or something in it is wrong.
    """
    if recipe is not None or len(sources) > 1 or not config.is_recipe(sources[0]):
        return AskedTasks(config.load_curation(recipe, changed, sources=["-"]), tuple(sources))
    settings = config.load_curation(sources[0], changed)
    tasks = settings.synthesize.tasks
    if not tasks.tasks:
        raise ConfigError(
            "The recipe names no tasks", where=f"{sources[0]}, synthesize.tasks.tasks", found="nothing",
            expected="task files, or folders with such", fix=command("synthesize", "tasks", "TASKS", "-c", sources[0]),
        )  # fmt: skip
    rows = [Path(source) for source in settings.data.train]
    folder = rows[0].parent if len(rows) == 1 and rows[0].name in ROW_FILES else None
    return AskedTasks(_with_tokenizer(settings, log), tuple(tasks.tasks), sources[0], folder)


def _with_tokenizer(settings: Settings, log: Callable[[str], None]) -> Settings:
    """Lengths are counted by the tokenizer of the recipe's model, where none is named and that is here."""
    tasks, model = settings.synthesize.tasks, settings.model.name
    if tasks.tokenizer is not None or model == config.NO_MODEL:
        return settings
    try:
        folder = model_folder(model, weights=False, log=log)
    except TutelageError as error:
        log(f"note: no row is too long, as the tokenizer of {model} is not here: {error.what}")
        return settings
    counted = tasks.model_copy(update={"tokenizer": str(folder)})
    return settings.model_copy(update={"synthesize": settings.synthesize.model_copy(update={"tasks": counted})})


def require_rows_made(settings: Settings, recipe: str) -> None:
    """A recipe of tasks is trained from rows that `synthesize tasks` made.

    Raises:
        SourceNotFoundError: they are not there yet.
    """
    files = [*settings.data.train, *settings.evaluate.general] if settings.synthesize.tasks.tasks else []
    missing = [file for file in files if Path(file).suffix and not Path(file).exists()]
    if missing:
        raise SourceNotFoundError(
            "The rows of the recipe's tasks were not made yet", where=recipe, found=f"no {', '.join(missing)}",
            expected="what its tasks become", fix=command("synthesize", "tasks", recipe),
        )  # fmt: skip

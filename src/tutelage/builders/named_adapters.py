"""Adapters given by name, `NAME=FOLDER_OR_RUN`: which folders they are, and what differs from the run they join."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage import config
from tutelage.config import Settings
from tutelage.errors import ConfigError, SourceNotFoundError, command
from tutelage.runs import folder as run_files

RESERVED = ("base", "tuned")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class NamedAdapter:
    """An adapter folder, what people call it, and the settings of its run, where it came from one."""

    name: str
    folder: Path
    settings: Settings | None


def named_adapters(arguments: Sequence[str]) -> tuple[NamedAdapter, ...]:
    """Read `NAME=FOLDER_OR_RUN`, one for each adapter.

    Raises:
        ConfigError: not of that form, a name twice or reserved, or a run that has no adapter.
        SourceNotFoundError: no adapter is there.
    """
    adapters: dict[str, NamedAdapter] = {}
    for argument in arguments:
        name, equals, location = argument.partition("=")
        if not equals or not location or not _NAME.fullmatch(name):
            raise ConfigError(
                "An adapter needs a name and a folder",
                where="--adapter",
                found=argument,
                expected="NAME=FOLDER_OR_RUN, the name of letters, digits, - and _",
                fix=f"write --adapter {'french' if not equals else 'name'}={location or argument}",
            )
        if name in RESERVED or name in adapters:
            raise ConfigError(
                f"The name '{name}' is taken",
                where="--adapter",
                found=argument,
                expected=f"a name of its own; {' and '.join(RESERVED)} are the run's",
                fix="choose another name",
            )
        adapters[name] = _adapter_at(name, Path(location))
    return tuple(adapters.values())


def _adapter_at(name: str, location: Path) -> NamedAdapter:
    if (location / run_files.SETTINGS).is_file():
        settings = config.load(location / run_files.SETTINGS)
        if settings.model.method == "full":
            raise ConfigError(
                f"The run '{location}' trained every weight, so it has no adapter",
                where="--adapter",
                found=f"{name}={location}",
                expected="a run of lora, qlora or prompt, or an adapter folder",
                fix=f"talk to it alone: {command('chat', location)}",
            )
        location = location / run_files.ADAPTER
    else:
        settings = None
    if not all((location / file_name).is_file() for file_name in ("adapter_config.json", "adapter_model.safetensors")):
        raise SourceNotFoundError(
            f"There is no adapter at '{location}'",
            where="--adapter",
            found=f"{name}={location}",
            expected="a finished run, or a folder with adapter_config.json and adapter_model.safetensors",
            fix="check the folder; an unfinished run goes on with tutelage train --resume",
        )
    return NamedAdapter(name, location, settings)


def differences(adapter: NamedAdapter, run: Settings, template: str) -> Iterator[str]:
    """Lines about what an adapter was trained with and will not find here.

    Args:
        adapter: joins the run.
        run: the run's settings.
        template: the run's chat template, which all its adapters are asked through.
    """
    trained = adapter.settings
    if trained is not None and trained.model.name != run.model.name:
        yield f"{adapter.name} was trained from {trained.model.name}, not from {run.model.name}"
    if trained is not None and (trained.model.method == "qlora") != (run.model.method == "qlora"):
        yield f"{adapter.name} was trained by {trained.model.method}; here the base is that of {run.model.method}"
    own_template = adapter.folder / "chat_template.jinja"
    if own_template.is_file() and own_template.read_text(encoding="utf-8") != template:
        yield f"{adapter.name} was trained with another chat template; it is asked through this run's"

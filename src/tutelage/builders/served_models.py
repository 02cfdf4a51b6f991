"""Runs and models by name -> who can be asked, each with its renderer, and the engines that answer for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tutelage.builders.base_model import names_a_run
from tutelage.builders.compared_models import STAND_IN
from tutelage.builders.named_adapters import NamedAdapter
from tutelage.builders.renderer import renderer_for
from tutelage.builders.trained_model import TrainedModel, open_model, open_trained_model, trained_folder
from tutelage.config import Settings
from tutelage.config.reading import from_mapping
from tutelage.errors import ConfigError
from tutelage.formats.memory import keep_rows
from tutelage.generate.engine import Engine
from tutelage.generate.replies import answered_together, engine_for
from tutelage.model.adapters.adapter_set import DEFAULT_ADAPTER
from tutelage.model.adapters.per_token import PEFT_BASE, require_mixable
from tutelage.model.attention.packed import use_generation_attention
from tutelage.model.positions import stated_positions
from tutelage.render import Renderer
from tutelage.runs import folder as run_files

WHERE = "tutelage serve"
_NO_NAME = re.compile(r"[^\w.:/@+-]+")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Who can be asked by a name.

    Attributes:
        name: of the model in requests.
        engine: its place among the engines.
        adapter: PEFT's name of the adapter that a request to it names; None: the engine answers for it alone.
        renderer: serves its prompts as they were trained.
        positions: tokens of prompt and reply together; None where the model states none.
        base: the name of the model that it was trained from; None for a base.
    """

    name: str
    engine: int
    adapter: str | None
    renderer: Renderer
    positions: int | None
    base: str | None = None


@dataclass(frozen=True, slots=True)
class ServedEngine:
    """An engine, and what its model has to be switched to while it answers."""

    engine: Engine
    mixed: bool
    switched: Callable[[], AbstractContextManager[Any]]


@dataclass(slots=True)
class ServedModels:
    """All that can be asked."""

    models: dict[str, ServedModel] = field(default_factory=dict)
    engines: list[ServedEngine] = field(default_factory=list)

    def add(self, model: ServedModel) -> None:
        """Let it be asked.

        Raises:
            ConfigError: another has its name.
        """
        if model.name in self.models:
            raise ConfigError(
                "Two models would answer to one name",
                where=WHERE,
                found=model.name,
                expected="runs in folders of different names",
                fix="give one of them another name: NAME=RUN",
            )
        self.models[model.name] = model


def open_served_models(arguments: Sequence[str], *, active_replies: int, log: Callable[[str], None]) -> ServedModels:
    """Load runs and models; runs that trained adapters of one base share it.

    Args:
        arguments: folders of runs, or models as `model.name` takes them, each also as `NAME=RUN`.
        active_replies: that grow together on one engine.
        log: told what is slow.

    Raises:
        TutelageError: one cannot be opened; or the engine does not fit it.
    """
    served = ServedModels()
    for group in _groups([_named(argument) for argument in arguments]):
        first = group[0]
        log(f"Opening {', '.join(member.name for member in group)}")
        if first.settings is None:
            _add_model(served, first, active_replies, log)
        elif first.settings.model.method == "full":
            _add_full_run(served, first, active_replies, log)
        else:
            _add_adapters(served, group, active_replies, log)
    return served


@dataclass(frozen=True, slots=True)
class _Named:
    """An argument; `settings` are those of a run, None for a model."""

    name: str
    source: str
    settings: Settings | None

    @property
    def folder(self) -> Path:
        return Path(self.source)


def _named(argument: str) -> _Named:
    name, equals, source = argument.partition("=")
    if not equals or not source or not name or "/" in name:
        name, source = "", argument
    if not names_a_run(Path(source)):
        return _Named(name or base_name(source), source, None)
    folder = run_files.existing_run_folder(source)
    return _Named(name or _NO_NAME.sub("-", folder.resolve().name), str(folder), run_files.read_settings(folder))


def base_name(source: str) -> str:
    """What a base is called: its name, or the last part of its path."""
    return _NO_NAME.sub("-", Path(source).resolve().name if Path(source).exists() else source)


def _groups(members: Sequence[_Named]) -> Iterator[list[_Named]]:
    """Runs with adapters of one base, by one method, stand together; any other alone."""
    groups: dict[tuple[str, str], list[_Named]] = {}
    for member in members:
        method = "full" if member.settings is None else member.settings.model.method
        if member.settings is None or method in ("full", "prompt") or member.settings.model.adapter == "continue":
            yield [member]
        else:
            groups.setdefault((member.settings.model.name, method), []).append(member)
    yield from groups.values()


def _add_model(served: ServedModels, member: _Named, active_replies: int, log: Callable[[str], None]) -> None:
    values = {"model": {"name": member.source}, "data": {"train": [keep_rows(STAND_IN, "data")]}}
    opened = open_model(from_mapping(values, (), where=WHERE), log=log)
    number = _add_engine(served, opened.base, opened.renderer, active_replies)
    served.add(ServedModel(member.name, number, None, opened.renderer, _positions(opened.base)))


def _add_full_run(served: ServedModels, member: _Named, active_replies: int, log: Callable[[str], None]) -> None:
    assert member.settings is not None
    base = base_name(member.settings.model.name)
    opened = open_trained_model(member.source, tuned=True, base=base not in served.models, log=log)
    if opened.base is not None:
        number = _add_engine(served, opened.base, opened.renderer, active_replies)
        served.add(ServedModel(base, number, None, opened.renderer, _positions(opened.base)))
    number = _add_engine(served, opened.tuned, opened.renderer, active_replies)
    served.add(ServedModel(member.name, number, None, opened.renderer, _positions(opened.tuned), base))


def _add_adapters(
    served: ServedModels, group: Sequence[_Named], active_replies: int, log: Callable[[str], None]
) -> None:
    """Adapters of one base: on one engine where they can be mixed, else one for each, by turns."""
    first, *others = group
    assert first.settings is not None
    named = [
        NamedAdapter(member.name, trained_folder(member.folder, member.settings), member.settings)
        for member in others
        if member.settings is not None
    ]
    opened = open_trained_model(first.source, tuned=True, base=False, adapters=named, log=log)
    base = base_name(first.settings.model.name)
    slots = {first.name: DEFAULT_ADAPTER, **opened.slots}
    template = ServedModel(base, 0, None, opened.renderer, _positions(opened.tuned))
    asked = {base: PEFT_BASE} | slots if base not in served.models else dict(slots)
    if opened.start_slot is None and _can_be_mixed(opened.tuned, list(slots.values())):
        number = _add_engine(served, opened.tuned, opened.renderer, active_replies, mixed=True)
        for name, slot in asked.items():
            renderer = _own_renderer(group, name, opened)
            served.add(
                replace(
                    template, name=name, engine=number, adapter=slot, renderer=renderer,
                    base=None if name == base else base,
                )
            )  # fmt: skip
        return
    log("  note: these adapters cannot be mixed in one step, so they answer by turns")
    names = {first.name: "tuned", base: "base"}
    for name in asked:
        answers = names.get(name, name)
        with opened.as_named(answers):
            number = _add_engine(
                served, opened.tuned, opened.renderer, active_replies, switched=_switch_to(opened, answers)
            )
        renderer = _own_renderer(group, name, opened)
        served.add(replace(template, name=name, engine=number, renderer=renderer, base=None if name == base else base))


def _own_renderer(group: Sequence[_Named], name: str, opened: TrainedModel) -> Renderer:
    """That of the run itself: another run of the same base may have been trained with another template."""
    for member in group[1:]:
        if member.name == name and member.settings is not None:
            return renderer_for(opened.renderer.tokenizer.folder, member.settings.render)
    return opened.renderer


def _can_be_mixed(model: Any, slots: Sequence[str]) -> bool:
    try:
        require_mixable(model, [*slots, PEFT_BASE])
    except ConfigError:
        return False
    return True


def _switch_to(opened: TrainedModel, name: str) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: opened.as_named(name)


def _add_engine(
    served: ServedModels,
    model: Any,
    renderer: Renderer,
    active_replies: int,
    *,
    mixed: bool = False,
    switched: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> int:
    """Try the model, and make an engine of it; returns its place.

    Raises:
        ConfigError: the engine does not fit the model.
    """
    use_generation_attention(model)
    batching = answered_together(model, renderer.tokenizer)
    if batching.kind != "packed":
        raise ConfigError(
            "This model cannot be served",
            where=WHERE,
            found=f"a {type(model).__name__}, which keeps more of a token than its keys and values",
            expected="a model whose attention alone looks back",
            fix="talk to it with tutelage chat, which asks it for one reply at a time",
        )
    served.engines.append(
        ServedEngine(engine_for(model, renderer.tokenizer, batching, active_replies), mixed, switched)
    )
    return len(served.engines) - 1


def _positions(model: Any) -> int | None:
    return stated_positions(model.config)

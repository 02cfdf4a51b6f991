"""Opens a finished run again: the tuned model, the original, or one that can be both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.builders.base_model import continued, start_folder
from tutelage.builders.method import loaded_base
from tutelage.builders.named_adapters import NamedAdapter, differences
from tutelage.builders.renderer import renderer_for
from tutelage.builders.resolved_run import resolve
from tutelage.builders.run_inputs import base_sha256
from tutelage.config import Settings
from tutelage.errors import CheckpointError, ConfigError, SourceNotFoundError, cause_of, command
from tutelage.model.adapters.adapter_set import active_adapter, add_adapter, attach_adapter
from tutelage.model.interpolation import adapter_at, weights_at
from tutelage.model.precision import Precision, cast_model
from tutelage.render import Renderer
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import REQUIRED_SAME, read_inputs
from tutelage.system.seals import file_sha256

START_SLOT = "start"


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A run's models. With an adapter both are one object, and `as_base` switches the adapter off for a while.

    `slots` has the adapters that were added by name, each with PEFT's name for it; `start_slot` is that of the adapter
    which the run trained on, and which therefore belongs to what it started from.
    """

    settings: Settings
    renderer: Renderer
    system_prompt: str | None
    tuned: Any | None
    base: Any | None
    slots: Mapping[str, str] = field(default_factory=dict)
    start_slot: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All that can answer: base and tuned, where they are open, and the added adapters."""
        can_be_base = self.base is not None or (self.tuned is not None and self.settings.model.method != "full")
        return (*(["base"] * can_be_base), *(["tuned"] * (self.tuned is not None)), *self.slots)

    def as_named(self, name: str) -> AbstractContextManager[Any]:
        """The model that answers by a name of `names`."""
        if name == "base":
            return self.as_base()
        return self.as_tuned() if name == "tuned" else active_adapter(self.tuned, self.slots[name])

    @contextmanager
    def as_base(self) -> Iterator[Any]:
        """The original model; the adapter is back when the block ends."""
        if self.base is None and self.start_slot is not None:
            with active_adapter(self.tuned, self.start_slot) as started:
                yield started
        elif self.base is None:
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

    def at(self, value: float) -> AbstractContextManager[Any]:
        """The model at a value of the dial (`model.interpolation`); of whole weights base and tuned are open."""
        assert self.tuned is not None
        if self.settings.model.method == "full":
            assert self.base is not None
            return weights_at(self.tuned, self.base, value)
        return adapter_at(self.tuned, value, start_slot=self.start_slot)


def open_trained_model(
    name: str,
    *,
    tuned: bool,
    base: bool,
    adapters: Sequence[NamedAdapter] = (),
    precision: Precision | None = None,
    log: Callable[[str], None] = print,
) -> TrainedModel:
    """Load what a run trained (`tuned`), what it started from (`base`), or both.

    Args:
        name: the run's folder.
        tuned: open what it trained.
        base: open what it started from.
        adapters: more of them, for the same base; they need `tuned`.
        precision: they compute in this one; None: in that of the run.
        log: told what is slow, and what an adapter was trained with that is not so here.

    Raises:
        SourceNotFoundError: not a run, or the run has no trained weights yet.
        ConfigError: an adapter that cannot be beside the run's.
        DataError: an adapter of another base.
        CheckpointError: the settings cannot be read, or the base or tokenizer is not the one the run began with.
    """
    folder = run_files.existing_run_folder(name)
    settings = run_files.read_settings(folder)
    if precision is not None:
        settings = settings.model_copy(update={"model": settings.model.model_copy(update={"precision": precision})})
    start = start_folder(settings.model, log=log)
    has_adapter = settings.model.method != "full"
    trained = folder / run_files.trained_name(settings)
    if tuned:
        require_as_trained(folder, trained_folder(folder, settings))
    if adapters and not has_adapter:
        raise _no_base_to_stand_on(name, adapters[0])
    assert tuned or not adapters, "adapters stand beside the run's own"
    renderer = renderer_for(start, settings.render)
    inputs = _recorded(folder, log)
    if inputs is not None:
        _require_same_start(inputs, settings, start, renderer, weights=base or has_adapter)
    tuned_model = base_model = start_slot = None
    if tuned and has_adapter:
        tuned_model = attach_adapter(_opened(start, settings), trained)
        start_slot = _add_others(tuned_model, settings, adapters, template=renderer.template.source, log=log)
    elif tuned:
        tuned_model = _opened(trained, settings)
    if base and not (tuned and has_adapter):
        base_model = _opened(start, settings)
        if (start_adapter := continued(settings)) is not None:
            base_model = attach_adapter(base_model, start_adapter.folder)
            cast_model(base_model, resolve(settings).precision)
    slots = {adapter.name: f"added{number}" for number, adapter in enumerate(adapters)}
    system_prompt = None if inputs is None else inputs["system_prompt"]
    return TrainedModel(settings, renderer, system_prompt, tuned_model, base_model, slots, start_slot)


def open_model(settings: Settings, *, log: Callable[[str], None] = print) -> TrainedModel:
    """Load the model that settings start from, as a base that nothing was trained on.

    Raises:
        TutelageError: it cannot be loaded.
    """
    start = start_folder(settings.model, log=log)
    return TrainedModel(settings, renderer_for(start, settings.render), None, None, _opened(start, settings))


def _no_base_to_stand_on(name: str, adapter: NamedAdapter) -> ConfigError:
    return ConfigError(
        "Adapters need their original base model, and this run trained all of its weights",
        where="--adapter",
        found=f"{name} has model.method = full",
        expected="a run of lora, qlora or prompt, whose base stays as it is",
        fix=f"give the adapter's own run first: {command('chat', adapter.folder.parent)}",
    )


def _add_others(
    model: Any, settings: Settings, adapters: Sequence[NamedAdapter], *, template: str, log: Callable[[str], None]
) -> str | None:
    """Load the adapters that were given by name, and the one that the run trained on, whose slot is returned."""
    for number, adapter in enumerate(adapters):
        add_adapter(model, adapter.folder, slot=f"added{number}")
        for line in differences(adapter, settings, template):
            log(line)
    start_adapter = continued(settings)
    if start_adapter is not None:
        add_adapter(model, start_adapter.folder, slot=START_SLOT)
    cast_model(model, resolve(settings).precision)
    return None if start_adapter is None else START_SLOT


def _opened(folder: Path, settings: Settings) -> Any:
    resolved = resolve(settings)
    model, _ = loaded_base(resolved, folder)
    cast_model(model, resolved.precision)
    return model


def _recorded(folder: Path, log: Callable[[str], None]) -> dict[str, Any] | None:
    """What the run began with; None, said, where nothing tells."""
    try:
        return read_inputs(folder)
    except CheckpointError as error:
        log(f"  note: nothing tells the system prompt and the base model of this run: {error.where}: {error.found}")
        return None


def _require_same_start(
    inputs: Mapping[str, Any], settings: Settings, start: Path, renderer: Renderer, *, weights: bool
) -> None:
    """Refuse another tokenizer and, where the weights it started from are needed, other ones than the run had."""
    current: dict[str, Any] = {"tokenizer_sha256": renderer.tokenizer.sha256()}
    if weights:
        current["base_sha256"] = base_sha256(settings, start, log=lambda _text: None)
    changed = [REQUIRED_SAME[name] for name, sha256 in current.items() if sha256 != inputs[name]]
    if changed:
        raise CheckpointError(
            f"The {' and the '.join(changed)} is not the one this run began with, so what it trained does not fit",
            where=str(start),
            expected="the same bytes",
            fix="restore the model that the run began with",
        )


def trained_folder(run: Path, settings: Settings) -> Path:
    """Where a run keeps what it trained.

    Raises:
        SourceNotFoundError: it has trained nothing yet.
    """
    trained = run / run_files.trained_name(settings)
    if not trained.is_dir():
        raise SourceNotFoundError(
            "This run has no trained weights yet",
            where=str(trained),
            fix=f"let it finish: {command('train', '--resume', run)}",
        )
    return trained


def require_as_trained(run: Path, trained: Path) -> None:
    """Check what a finished run trained against the hashes in its result; without a result there are none.

    Args:
        run: its folder.
        trained: the folder of its weights.

    Raises:
        CheckpointError: a file has other bytes, or is not there.
    """
    try:
        hashes = run_files.read_json(run / run_files.RESULT)["trained_sha256"]
    except (OSError, ValueError, KeyError):
        return
    for name, expected in hashes.items():
        try:
            actual = file_sha256(trained / name)
        except OSError as error:
            actual = cause_of(error)
        if actual != expected:
            raise CheckpointError(
                "What this run trained is damaged, or was changed since",
                where=str(trained / name),
                found=actual[:60],
                expected=f"the file as the run wrote it, sha256 {expected[:12]}",
                fix="put the file back as it was, or train again: "
                + command("train", str(run / run_files.SETTINGS), f"name={run.name}-again"),
            )

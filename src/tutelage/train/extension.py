"""Parts of a run that was given more epochs or steps than it began with: which steps belong to which length.

A run's order and its learning rates depend on how long it is to be. Steps that were taken keep what they had; those
after them are laid over the new length, as if the run had been that long from the start, and go on at the first example
that was not visited yet. `inputs.json` keeps the parts, so a later resume and a replay come to the same steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.builders.dataset import Prepared
from tutelage.builders.sampler import sampler_for
from tutelage.config import Settings
from tutelage.errors import ConfigError
from tutelage.optim.lr_schedule import LRSchedule, warmup_steps
from tutelage.pack import Sampler
from tutelage.runs import folder as run_files
from tutelage.train.checkpoint import Checkpoints
from tutelage.train.finished import longer, require_unfinished

LENGTH = ("train.epochs", "train.max_steps")
"""Settings that a resume may give anew."""
PARTS = "parts"


@dataclass(frozen=True, slots=True)
class Part:
    """A part that another length followed: it ended after `steps` steps and `visits` examples of the whole run.

    `planned_steps` is how long the run was to be until then, and `finished` whether it had come to that end.
    """

    steps: int
    visits: int
    planned_steps: int
    finished: bool


def parts_in(inputs: Mapping[str, Any]) -> tuple[Part, ...]:
    """The parts that a run's `inputs.json` names."""
    return tuple(Part(**entry) for entry in inputs.get(PARTS, ()))


def as_entry(parts: tuple[Part, ...]) -> dict[str, Any]:
    """What `inputs.json` says of them; nothing for a run of one length."""
    return {PARTS: [asdict(part) for part in parts]} if parts else {}


def with_length(inputs: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """`inputs` with the length of `settings` in the ones it recorded, which a resume may give anew."""
    recorded = inputs.get("settings")
    if not isinstance(recorded, dict) or not isinstance(recorded.get("train"), dict):
        return dict(inputs)
    train = {**recorded["train"], "epochs": settings.train.epochs, "max_steps": settings.train.max_steps}
    train = {key: value for key, value in train.items() if value is not None}
    return {**inputs, "settings": {**recorded, "train": train}}


def schedule_of(settings: Settings, order: Sampler, parts: tuple[Part, ...]) -> LRSchedule:
    """Learning rates of a run: those of each part as long as it lasted, then those of the whole length."""

    def planned(steps: int) -> LRSchedule:
        train_settings = settings.train
        return LRSchedule(
            kind=train_settings.lr_scheduler,
            peak=settings.peak_learning_rate,
            steps=steps,
            warmup_steps=warmup_steps(
                steps=steps, share=train_settings.warmup_ratio, exact=train_settings.warmup_steps
            ),
            min_lr_ratio=train_settings.min_lr_ratio,
        )

    full_schedule = planned(order.steps)
    return LRSchedule(
        kind=full_schedule.kind,
        peak=full_schedule.peak,
        steps=full_schedule.steps,
        warmup_steps=full_schedule.warmup_steps,
        min_lr_ratio=full_schedule.min_lr_ratio,
        earlier=tuple((part.steps, planned(part.planned_steps)) for part in parts),
        ends=frozenset({order.steps, *(part.steps for part in parts if part.finished)}),
    )


def has_other_length(folder: Path, settings: Settings) -> bool:
    """Whether a run that is resumed is given another length than it had."""
    recorded = run_files.read_settings(folder).train
    return (recorded.epochs, recorded.max_steps) != (settings.train.epochs, settings.train.max_steps)


def require_more(folder: Path, settings: Settings) -> None:
    """A finished run goes on only where it is given another length.

    Raises:
        CheckpointError: it is finished, and is given none; or its result is damaged.
    """
    if not has_other_length(folder, settings):
        require_unfinished(folder, settings.train)


def parts_of(
    settings: Settings, prepared: Prepared, inputs: Mapping[str, Any], *, resume: bool, checkpoint: str | None
) -> tuple[Part, ...]:
    """The parts of a run that starts, goes on or is repeated now.

    Args:
        settings: the run's; where it is resumed its folder has those that it had.
        prepared: its data.
        inputs: what it, or the run that it repeats, recorded.
        resume: it goes on.
        checkpoint: from this one; None is the newest.

    Raises:
        ConfigError: it has come as far already as the length it is given.
    """
    parts, folder = parts_in(inputs), settings.run_folder
    if not resume or not has_other_length(folder, settings):
        return parts
    checkpoint_name = checkpoint or Checkpoints(folder / run_files.CHECKPOINTS, keep=1).newest() or "step-0"
    steps_done = int(checkpoint_name.rpartition("-")[2])
    parts = tuple(earlier_part for earlier_part in parts if earlier_part.steps < steps_done)
    previous_order = order_over_parts(run_files.read_settings(folder), prepared, parts)
    order = order_over_parts(settings, prepared, parts)
    part = Part(
        steps_done, previous_order.visits_after(steps_done), previous_order.steps, steps_done == previous_order.steps
    )
    if replace(order, part_ends=(*order.part_ends, (part.steps, part.visits))).steps <= steps_done:
        raise ConfigError(
            "The run has taken as many steps already as it is given",
            where=str(folder),
            found=f"{steps_done} steps taken; train.epochs = {order.epochs:g}, train.max_steps = {order.max_steps}",
            expected="more of them",
            fix=f"give more: {longer(folder, settings.train, run_files.read_settings(folder).train)}",
        )
    return parts if steps_done == 0 else (*parts, part)


def order_over_parts(settings: Settings, prepared: Prepared, parts: tuple[Part, ...]) -> Sampler:
    """The order in which a run of these parts visits its examples."""
    part_ends = tuple((part.steps, part.visits) for part in parts)
    return sampler_for(settings, examples=len(prepared.train), sources=prepared.sources, part_ends=part_ends)

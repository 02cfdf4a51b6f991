"""The record of a run -> its steps, held-out losses and measurements on the way, each by rising step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tutelage.runs.fields import Fields
from tutelage.runs.folder import RECORD
from tutelage.runs.intermediate import KEY, IntermediateMeasure, read_intermediate
from tutelage.system.seals import NumberedLine

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step. `loss` in nats per trained token; token counts are those of this step alone.

    `divergence` from the base in nats per trained token of replayed rows; None where none was held to the base.
    """

    step: int
    epoch: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    tokens: int | None = None
    trained_tokens: int | None = None
    tokens_per_second: float | None = None
    elapsed_seconds: float | None = None
    peak_bytes: float | None = None
    divergence: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A held-out loss (nats per trained token), measured after `step` steps."""

    step: int
    heldout_loss: float


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """All that was measured after `step` steps, while the model trained."""

    step: int
    measured: IntermediateMeasure


@dataclass(frozen=True, slots=True)
class Curves:
    """What a record says, by rising step."""

    steps: tuple[Step, ...]
    evaluations: tuple[Evaluation, ...]
    measured: tuple[MeasuredStep, ...]


def read_curves(lines: Sequence[NumberedLine], notices: list[str]) -> Curves:
    """All of a record by rising step. A step run again after a resume counts with its later figures.

    Args:
        lines: of the record, as `metrics_log.recorded_lines` gives them.
        notices: receives a sentence for each line that cannot be used.
    """
    steps: dict[int, Step] = {}
    evaluations: dict[int, Evaluation] = {}
    measured: dict[int, MeasuredStep] = {}
    repeated = 0
    for line in lines:
        where = f"{RECORD}, line {line.number}"
        if line.damage is not None:
            last = " It is the last one: a run that is still writing leaves such a line."
            notices.append(f"{where} is not {line.damage} and is left out.{'' if line.is_ended else last}")
            continue
        if line.misplaced is not None:
            notices.append(f"{where}: {line.misplaced}.")
        fields = Fields.of(line.content, where, notices)
        step = fields.integer("step")
        if step is None:
            notices.append(f"{where} has no step and is left out.")
            continue
        heldout_loss = fields.number("heldout_loss")
        if heldout_loss is not None:
            evaluations[step] = Evaluation(step, heldout_loss)
        if KEY in fields.content:
            measured[step] = MeasuredStep(step, read_intermediate(fields.inner(KEY)))
        if "loss" in fields.content:
            repeated += step in steps
            steps[step] = _step(step, fields)
    if repeated:
        notices.append(f"{RECORD} holds {repeated} steps more than once (the run was resumed); the later lines count.")
    return Curves(_in_order(steps), _in_order(evaluations), _in_order(measured))


def _in_order(by_step: Mapping[int, T]) -> tuple[T, ...]:
    return tuple(by_step[step] for step in sorted(by_step))


def _step(step: int, fields: Fields) -> Step:
    return Step(
        step=step,
        epoch=fields.number("epoch"),
        loss=fields.number("loss"),
        learning_rate=fields.number("learning_rate"),
        gradient_norm=fields.number("gradient_norm"),
        tokens=fields.integer("tokens"),
        trained_tokens=fields.integer("trained_tokens"),
        tokens_per_second=fields.number("tokens_per_second"),
        elapsed_seconds=fields.number("elapsed_seconds"),
        peak_bytes=fields.number("peak_bytes"),
        divergence=fields.number("divergence"),
    )

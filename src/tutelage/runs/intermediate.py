"""What a model was measured at while it trained, as lines of `record.jsonl` hold it under `measured`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tutelage.runs.divergence import DivergenceMeasure, read_divergence
from tutelage.runs.fields import Fields

KEY = "measured"
"""Of such a line, beside `step`."""
LOST = "general"
"""What forgetting is counted in where a general set is asked: its share."""


@dataclass(frozen=True, slots=True)
class MeasuredChange:
    """A number against the model before training, with its 95 % interval; None = the items give none."""

    number: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class IntermediateMeasure:
    """The model after some steps, held against itself before training.

    Attributes:
        gain_of: what counts as gain, see `report.dial.gain_name`; None = nothing was measured that could.
        gain: how much of it, a share, or nats a token of a loss that fell.
        forgotten_of: what counts as forgotten, see `report.dial.FORGETTING`.
        forgotten: how much of it, a share, or nats a token of divergence.
        divergence: from the base, by place; empty where it was not measured.
        metrics: all numbers, as `result.json` has them under `after`.
        failed: measures that could not be taken, with the cause of each.
        seconds: that measuring took.
    """

    gain_of: str | None
    gain: MeasuredChange | None
    forgotten_of: str | None
    forgotten: MeasuredChange | None
    divergence: dict[str, DivergenceMeasure] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None


def read_intermediate(fields: Fields) -> IntermediateMeasure:
    """What a line says under `measured`; what is damaged is left out."""
    gain, forgotten = (_change(fields.inner(name)) for name in ("gain", "forgotten"))
    return IntermediateMeasure(
        gain_of=fields.text("gain_of") if gain else None,
        gain=gain,
        forgotten_of=fields.text("forgotten_of") if forgotten else None,
        forgotten=forgotten,
        divergence=read_divergence(fields.inner("divergence")),
        metrics=dict(fields.inner("metrics").content),
        failed=fields.inner("failed").texts(),
        seconds=fields.number("seconds"),
    )


def _change(fields: Fields) -> MeasuredChange | None:
    number = fields.number("number")
    return None if number is None else MeasuredChange(number, fields.number("low"), fields.number("high"))

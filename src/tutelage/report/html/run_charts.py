"""A run's record -> the charts of the page, thinned to what an eye can tell apart, and the readings for the pointer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tutelage.report import numbers
from tutelage.report.html.charts import NARROW, WIDE, Chart, Mark, Series, draw, drawable
from tutelage.report.html.svg import Point
from tutelage.runs.curves import Evaluation, Step

MOST_POINTS = 240
"""Points drawn of one series: about two pixels apart on a wide page."""

SMOOTHED_SHARE, MOST_SMOOTHED = 12, 51
"""The running mean spans one twelfth of the steps, and at most so many."""

MOST_LOST_NAMED = 5

Reading = tuple[float, str]
"""Where along the x axis (0 to 1), and what the record says there."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart as the page shows it. `narrow` is the same drawing for small screens; empty = the one serves both."""

    key: str
    heading: str
    drawing: str
    narrow: str
    caption: str
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A figure that steps record: its name, how to read it off a step, how to say it, and its unit on the axis.

    Where it `is_of_some_steps` alone, one without it has lost nothing.
    """

    key: str
    heading: str
    y_label: str
    read: Callable[[Step], float | None]
    text: Callable[[float | None], str]
    is_of_some_steps: bool = False


QUANTITIES = (
    Quantity("learning-rate", "Learning rate", "learning rate", lambda step: step.learning_rate, numbers.significant),
    Quantity("gradient-norm", "Gradient norm", "norm", lambda step: step.gradient_norm, numbers.significant),
    Quantity(
        "divergence",
        "Divergence from the base on replayed rows",
        "nats per token",
        lambda step: step.divergence,
        numbers.significant,
        is_of_some_steps=True,
    ),
    Quantity("speed", "Speed", "tokens per second", lambda step: step.tokens_per_second, numbers.count),
    Quantity("peak-memory", "Peak memory", "", lambda step: step.peak_bytes, numbers.byte_size),
)


def loss_figure(steps: Sequence[Step], evaluations: Sequence[Evaluation], best_step: int | None) -> Figure | None:
    """Training loss as dots with its running mean, held-out loss as a line; None when nothing can be drawn."""
    window = min(2 * round(len(steps) / SMOOTHED_SHARE / 2) + 1, MOST_SMOOTHED)
    kept = thin([(float(step.step), step.loss) for step in steps])
    means = running_mean(steps, window)
    labels = [f"step {step}: loss {numbers.loss(value)}" for step, value in _whole(kept)]
    series = [Series("training, each step", _points(kept), "dots", "a", tuple(labels))]
    if window > 1:
        at_kept = {x for x, _ in kept}
        line = tuple((x, y) for x, y in means if x in at_kept)
        series.append(Series(f"training, mean of {window} steps", line, "line", "a"))
    heldout = thin([(float(evaluation.step), evaluation.heldout_loss) for evaluation in evaluations])
    if heldout:
        titles = tuple(f"step {step}: held-out loss {numbers.loss(value)}" for step, value in _whole(heldout))
        series.append(Series("held-out", _points(heldout), "line-dots", "b", titles))
    if not any(drawable(y) for curve in series for _, y in curve.points):
        return None
    lost = _lost_said([step.step for step in steps if not drawable(step.loss)], "loss")
    lost_heldout = _lost_said(
        [evaluation.step for evaluation in evaluations if not drawable(evaluation.heldout_loss)], "held-out loss"
    )
    chart = Chart(
        key="loss",
        title=f"Loss by step, {len(steps)} steps, {len(evaluations)} held-out measurements",
        y_label="loss (nats per token)",
        series=tuple(series),
        marks=_best(evaluations, best_step),
        lost_xs=tuple(x for x, y in (*kept, *heldout) if not drawable(y)),
    )
    return Figure(
        key="loss",
        heading="Loss",
        drawing=draw(chart, WIDE),
        narrow=draw(chart, NARROW),
        caption=" ".join(filter(None, (_smoothing_said(window), _thinned_said(len(steps)), lost, lost_heldout))),
        readings=_loss_readings(kept, dict(means) if window > 1 else {}, evaluations, window),
    )


def quantity_figure(quantity: Quantity, steps: Sequence[Step]) -> Figure | None:
    """One recorded quantity by step; None when no step has a finite value of it."""
    values = [(float(step.step), quantity.read(step)) for step in steps]
    if quantity.is_of_some_steps:
        values = [(step, value) for step, value in values if value is not None]
    finite = [y for _, y in values if y is not None and drawable(y)]
    if not finite:
        return None
    kept = thin(values)
    divisor, unit = _byte_unit(max(finite)) if quantity.key == "peak-memory" else (1.0, quantity.y_label)
    points = tuple((x, y / divisor) for x, y in _points(kept))
    lost = [int(x) for x, y in values if not drawable(y)]
    chart = Chart(
        key=quantity.key,
        title=f"{quantity.heading} by step, from {quantity.text(finite[0])} to {quantity.text(finite[-1])}",
        y_label=unit,
        series=(Series(quantity.heading, points, "line", "c"),),
        lost_xs=tuple(x for x, y in kept if not drawable(y)),
    )
    return Figure(
        key=quantity.key,
        heading=quantity.heading,
        drawing=draw(chart, NARROW),
        narrow="",
        caption=" ".join(filter(None, (_thinned_said(len(steps)), _lost_said(lost, quantity.heading.lower())))),
        readings=placed([(x, f"step {int(x):,}: {quantity.text(y)}") for x, y in kept]),
    )


def thin(values: Sequence[tuple[float, float | None]], most: int = MOST_POINTS) -> list[tuple[float, float | None]]:
    """At most about `most` of the points, themselves unchanged: the lowest and the highest of each group of neighbours.

    The first and the last point stay, and so does one point without a finite value of each group that has any.
    """
    if len(values) <= most:
        return list(values)
    group = -(-2 * len(values) // most)
    kept: set[int] = {0, len(values) - 1}
    for start in range(0, len(values), group):
        indices = range(start, min(start + group, len(values)))
        finite = [(value, index) for index in indices if drawable(value := values[index][1]) and value is not None]
        kept.update([min(finite)[1], max(finite)[1]] if finite else [])
        kept.update(next(([index] for index in indices if not drawable(values[index][1])), []))
    return [values[index] for index in sorted(kept)]


def running_mean(steps: Sequence[Step], window: int) -> list[Point]:
    """Mean loss per trained token over the `window` (odd) steps around each step; fewer at the two ends.

    Looking both ways keeps the line from trailing behind a falling loss.

    Each step counts by its trained tokens, as a mean of means would be another number; where the record does not say
    them for every step, each step counts alike. Steps without a finite loss are passed over.
    """
    weighed = all(step.trained_tokens for step in steps)
    half, means = window // 2, list[Point]()
    for index, step in enumerate(steps):
        total = weight_sum = 0.0
        for neighbor in steps[max(0, index - half) : index + half + 1]:
            if neighbor.loss is not None and drawable(neighbor.loss):
                weight = float(neighbor.trained_tokens or 1) if weighed else 1.0
                total, weight_sum = total + weight * neighbor.loss, weight_sum + weight
        means.append((float(step.step), total / weight_sum if weight_sum > 0 else float("nan")))
    return means


def _points(values: Sequence[tuple[float, float | None]]) -> tuple[Point, ...]:
    return tuple((x, float("nan") if y is None else y) for x, y in values)


def _whole(values: Sequence[tuple[float, float | None]]) -> list[tuple[str, float | None]]:
    return [(f"{int(x):,}", y) for x, y in values]


def _best(evaluations: Sequence[Evaluation], best_step: int | None) -> tuple[Mark, ...]:
    """The step whose weights the run kept; while it runs, the lowest held-out loss so far."""
    finite = [evaluation for evaluation in evaluations if drawable(evaluation.heldout_loss)]
    chosen = [evaluation for evaluation in finite if evaluation.step == best_step]
    if best_step is None and finite:
        lowest = min(finite, key=lambda evaluation: evaluation.heldout_loss)
        return (Mark(lowest.step, lowest.heldout_loss, f"lowest: step {lowest.step:,}"),)
    return tuple(
        Mark(evaluation.step, evaluation.heldout_loss, f"best: step {evaluation.step:,}") for evaluation in chosen
    )


def _loss_readings(
    kept: Sequence[tuple[float, float | None]],
    means: dict[float, float],
    evaluations: Sequence[Evaluation],
    window: int,
) -> tuple[Reading, ...]:
    losses = dict(kept)
    heldout = {float(evaluation.step): evaluation.heldout_loss for evaluation in evaluations}
    lines = []
    for x in sorted(losses.keys() | heldout.keys()):
        parts = [f"loss {numbers.loss(losses[x])}"] if x in losses else []
        if x in means and x in losses:
            parts.append(f"mean of {window} steps {numbers.loss(means[x])}")
        if x in heldout:
            parts.append(f"held-out loss {numbers.loss(heldout[x])}")
        lines.append((x, f"step {int(x):,}: " + ", ".join(parts)))
    return placed(lines)


def placed(lines: Sequence[tuple[float, str]]) -> tuple[Reading, ...]:
    """Readings of steps, by rising step, as shares of the x axis; at least one."""
    low, high = lines[0][0], lines[-1][0]
    if low == high:
        return ((0.5, lines[0][1]),)
    return tuple((round((x - low) / (high - low), 4), text) for x, text in lines)


def _byte_unit(largest: float) -> tuple[float, str]:
    power = 0
    while largest / 1024.0**power >= 1024 and power < len(numbers.BYTE_UNITS) - 1:
        power += 1
    return 1024.0**power, numbers.BYTE_UNITS[power]


def _smoothing_said(window: int) -> str:
    if window == 1:
        return ""
    return f"The training line is the loss per trained token over the {window} steps around each step."


def _thinned_said(steps: int) -> str:
    if steps <= MOST_POINTS:
        return ""
    return f"Of {steps:,} steps, the lowest and the highest of each group of neighbours are drawn."


def _lost_said(lost: Sequence[int], name: str) -> str:
    if not lost:
        return ""
    named = ", ".join(f"{step:,}" for step in lost[:MOST_LOST_NAMED])
    omitted = f" and {len(lost) - MOST_LOST_NAMED:,} more" if len(lost) > MOST_LOST_NAMED else ""
    return f"No finite {name} at {'step' if len(lost) == 1 else 'steps'} {named}{omitted} (marked ×)."

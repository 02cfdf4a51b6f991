"""What the values of the dial gained and forgot against the base, and which of them is the knee.

The knee is that of Kneedle (Satopää, Albrecht, Irwin and Raghavan 2011, "Finding a 'Kneedle' in a Haystack"):
forgetting and gain are each divided by tuned's own, so that base and tuned stand at (0, 0) and (1, 1), and of the
values between them the one farthest above the line that joins the two is taken. Ours is that it must be shown: both
ends differ by what their items bear out, and so does the distance, whose interval joins those of two ratios (MOVER,
Newcombe 1998, Statistics in Medicine 17:873-890) at 95 % for all values together (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress

from tutelage.evaluate.clusters import clustered_change, sums_by_source
from tutelage.evaluate.dial_results import DialMeasure
from tutelage.evaluate.grading import Outcome
from tutelage.evaluate.means import ratio_interval
from tutelage.evaluate.statistics import LEVEL, score_interval
from tutelage.report.dial import LOSS, SCORE, Dial, DialPoint, Estimate, ForgettingKey, Knee, value_text

BASE, TUNED = 0.0, 1.0
PLACES: dict[ForgettingKey, str] = {"kl_general": "general", "kl_task": "task"}
"""Where a divergence is measured that stands in for a general set: on general prompts rather than on the task's."""


def dial_of(measures: Mapping[float, DialMeasure], *, margin: float) -> Dial:
    """Everything about the values that were measured.

    Args:
        measures: by value, 0 and 1 among them, all of the same questions.
        margin: the share of the general set that may be lost.
    """
    gain, forgetting, points, measures = points_of(measures)
    knee, no_knee = _knee(gain, forgetting, points, measures)
    within = None
    if forgetting == "general":
        within = [point for point in points if point.forgotten is not None and point.forgotten.number <= margin][-1]
    return Dial(gain, forgetting, points, knee, no_knee, margin, within)


def points_of(
    measures: Mapping[float, DialMeasure],
) -> tuple[str | None, ForgettingKey | None, tuple[DialPoint, ...], dict[float, DialMeasure]]:
    """What counts as gain and as forgetting, both of each value against value 0, and the items that were compared.

    Args:
        measures: by value, 0 among them, all of the same questions.
    """
    gain, forgetting = _gain_key(measures[BASE]), _forgetting_key(measures)
    checked = _checked(measures, [key for key in (gain, forgetting) if key is not None])
    points = tuple(
        DialPoint(
            value,
            None if gain is None else _gain(gain, checked[BASE], measure, is_base=value == BASE),
            None if forgetting is None else _forgotten(forgetting, checked[BASE], measure, is_base=value == BASE),
        )
        for value, measure in sorted(checked.items())
    )
    return gain, forgetting, points, checked


def _checked(measures: Mapping[float, DialMeasure], keys: Sequence[str]) -> dict[float, DialMeasure]:
    """The same with those items alone, of each of these measures, that could be checked at every value."""
    kept = {}
    for key in keys:
        if key in measures[BASE].outcomes:
            columns = zip(*(measure.outcomes[key] for measure in measures.values()), strict=True)
            kept[key] = [all(outcome is not None for outcome in column) for column in columns]
    return {
        value: replace(
            measure,
            outcomes={key: tuple(compress(measure.outcomes[key], chosen)) for key, chosen in kept.items()},
            clusters={
                key: tuple(compress(sources, kept[key]))
                for key, sources in measure.clusters.items()
                if key in kept and len(sources) == len(kept[key])
            },
        )
        for value, measure in measures.items()
    }


def _gain_key(base: DialMeasure) -> str | None:
    """The task's main measure: whole rows of JSON, or the first of its checkers, or else the loss.

    Few free texts are word for word the reference, so that checker stands back where there is another.
    """
    if base.metrics.exact_match is not None:
        return "exact_match"
    if scores := sorted(base.metrics.scores, key=lambda name: name == "exact_match"):
        return SCORE + scores[0]
    return None if base.metrics.heldout_loss is None else LOSS


def _forgetting_key(measures: Mapping[float, DialMeasure]) -> ForgettingKey | None:
    if measures[BASE].metrics.general is not None:
        return "general"
    for key, place in PLACES.items():
        if all(place in measure.divergence for measure in measures.values()):
            return key
    return None


def _gain(key: str, base: DialMeasure, measure: DialMeasure, *, is_base: bool) -> Estimate:
    if is_base:
        return Estimate(0.0)
    if key != LOSS:
        return _share_change(_gain_units(key, base, measure), measure.clusters.get(key, ()))
    sums = _gain_units(key, base, measure)
    number = math.fsum(sums) / sum(base.tokens)
    if len(sums) < 2:  # one row says nothing of others
        return Estimate(number)
    interval = ratio_interval(sums, base.tokens)
    return Estimate(number, interval.low, interval.high)


def _forgotten(key: ForgettingKey, base: DialMeasure, measure: DialMeasure, *, is_base: bool) -> Estimate:
    if key == "general":
        if is_base:
            return Estimate(0.0)
        return _share_change(_forgotten_units(key, base, measure), measure.clusters.get(key, ()))
    moved = measure.divergence[PLACES[key]]
    return Estimate(moved.mean, moved.low, moved.high)


def _share_change(differences: Sequence[float], sources: Sequence[str]) -> Estimate:
    """Of shares or mean scores, from the differences of their items, and their sources where any share one."""
    if not differences:  # no item could be checked
        return Estimate(0.0)
    rises = math.fsum(difference for difference in differences if difference > 0)
    falls = -math.fsum(difference for difference in differences if difference < 0)
    clustered = clustered_change(differences, sources) if sources else None
    interval = score_interval(rises, falls, len(differences)) if clustered is None else clustered[0]
    return Estimate((rises - falls) / len(differences), interval.low, interval.high)


def _gain_units(key: str, base: DialMeasure, measure: DialMeasure) -> tuple[float, ...]:
    if key != LOSS:
        return _differences(measure.outcomes[key], base.outcomes[key])
    rows = zip(base.losses, measure.losses, base.tokens, strict=True)
    return tuple((start - loss) * tokens for start, loss, tokens in rows)


def _forgotten_units(key: ForgettingKey, base: DialMeasure, measure: DialMeasure) -> tuple[float, ...]:
    if key == "general":
        return _differences(base.outcomes[key], measure.outcomes[key])
    return tuple(measure.divergence_sums[PLACES[key]])


def _differences(first: Sequence[Outcome], second: Sequence[Outcome]) -> tuple[float, ...]:
    """Item by item, of those that were checked."""
    pairs = zip(first, second, strict=True)
    return tuple(float(one) - float(other) for one, other in pairs if one is not None and other is not None)


def _knee(
    gain: str | None,
    forgetting: ForgettingKey | None,
    points: Sequence[DialPoint],
    measures: Mapping[float, DialMeasure],
) -> tuple[Knee | None, str]:
    """The knee, or why none is shown."""
    if gain is None or forgetting is None:
        return None, f"no measure of {'gain' if gain is None else 'forgetting'} was taken"
    inner = [point.value for point in points if BASE < point.value < TUNED]
    if not inner:
        return None, "no value between base and tuned was measured"
    base, tuned = measures[BASE], measures[TUNED]
    (end,) = (point for point in points if point.value == TUNED)
    for change, problem in (
        (end.gain, "tuned gained nothing that these items or rows bear out"),
        (end.forgotten, "tuned forgot nothing that these items or replies bear out"),
    ):
        if change is None or change.low is None or change.low <= 0:
            return None, problem
    level = 1 - (1 - LEVEL) / len(inner)
    candidates = []
    for value in inner:
        gained = _ratio(
            _gain_units(gain, base, measures[value]), _gain_units(gain, base, tuned), base.clusters.get(gain, ()), level
        )
        forgot = _ratio(
            _forgotten_units(forgetting, base, measures[value]),
            _forgotten_units(forgetting, base, tuned),
            base.clusters.get(forgetting, ()),
            level,
        )
        candidates.append(Knee(value, gained.number, forgot.number, difference_of(gained, forgot)))
    candidates = [candidate for candidate in candidates if candidate.advantage.number > 0]
    if not candidates:
        return None, "no value between lies above the straight line from base to tuned"
    best = max(candidates, key=lambda candidate: candidate.advantage.number)
    if best.advantage.low is None or not best.advantage.low > 0:
        return None, (
            f"the best value between, {value_text(best.value)}, lies above the straight line from base to tuned by no "
            "more than chance makes"
        )
    return best, ""


def _ratio(sums: Sequence[float], whole: Sequence[float], sources: Sequence[str], level: float) -> Estimate:
    """How much of the whole is there already; items that share sources are counted as these."""
    if sources:
        sums, whole = (sums_by_source(values, sources)[0] for values in (sums, whole))
    interval = ratio_interval(sums, whole, level=level)
    return Estimate(math.fsum(sums) / math.fsum(whole), interval.low, interval.high)


def difference_of(first: Estimate, second: Estimate) -> Estimate:
    """The first less the second, of two that were drawn apart, with the interval that theirs make (MOVER).

    Raises:
        ValueError: one of them has no interval.
    """
    if first.low is None or first.high is None or second.low is None or second.high is None:
        raise ValueError("both numbers need an interval")
    number = first.number - second.number
    return Estimate(
        number,
        number - math.hypot(first.number - first.low, second.high - second.number),
        number + math.hypot(first.high - first.number, second.number - second.low),
    )

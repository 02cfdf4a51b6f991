"""The dial: gain and forgetting against the base, a knee that chance does not make, and what a margin allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tutelage.evaluate.dial import dial_of, difference_of
from tutelage.evaluate.dial_results import DialMeasure
from tutelage.evaluate.statistics import Transitions, paired_interval, score_interval
from tutelage.evaluate.suite import Metrics
from tutelage.report.dial import Estimate
from tutelage.runs.divergence import DivergenceMeasure

ITEMS = 100
SETS = 100


def first(count: int, items: int = ITEMS) -> tuple[bool, ...]:
    """The first so many items are right."""
    return tuple(number < count for number in range(items))


def measure(
    task: Sequence[bool] | None = None,
    general: Sequence[bool] | None = None,
    losses: Sequence[float] = (),
    moved: Sequence[float] = (),
) -> DialMeasure:
    outcomes = {name: right for name, right in (("exact_match", task), ("general", general)) if right is not None}
    shares = {name: float(np.mean(right)) for name, right in outcomes.items()}
    tokens = tuple(10 + number for number in range(len(losses)))
    divergence = {}
    if moved:
        mean = sum(moved) / (5 * len(moved))
        divergence["task"] = DivergenceMeasure(mean, mean * 0.8, mean * 1.2, len(moved), 5 * len(moved), 0.0, True)
    return DialMeasure(
        Metrics(**shares, heldout_loss=float(np.average(losses, weights=tokens)) if losses else None),
        {name: tuple(map(bool, right)) for name, right in outcomes.items()},
        tuple(losses),
        tokens,
        divergence,
        {"task": tuple(moved)} if moved else {},
        "",
    )


def of_shares(task: Mapping[float, int], general: Mapping[float, int]) -> dict[float, DialMeasure]:
    return {value: measure(first(task[value]), first(general[value])) for value in task}


def test_items_of_one_source_are_counted_as_this_source() -> None:
    """50 questions on 5 passages, of which two are forgotten: as 50 they show a loss, as 5 they do not."""
    alone = of_shares({0.0: 10, 0.5: 80, 1.0: 90}, {0.0: 50, 0.5: 40, 1.0: 30})
    alone = {
        value: replace(one, outcomes=one.outcomes | {"general": first(50 - int(20 * value), 50)})
        for value, one in alone.items()
    }
    passages = {"general": tuple(f"passage {number // 10}" for number in range(50))}
    by_source = {value: replace(one, clusters=passages) for value, one in alone.items()}

    dials = [dial_of(measures, margin=0.03) for measures in (alone, by_source)]

    lost = [dial.points[-1].forgotten for dial in dials]
    assert lost[0] is not None
    assert lost[1] is not None
    assert lost[0].number == lost[1].number == pytest.approx(0.4)
    assert lost[0].low is not None
    assert lost[1].low is not None
    assert lost[1].low < 0 < lost[0].low
    assert dials[0].knee is not None
    assert (dials[1].knee, dials[1].no_knee) == (None, "tuned forgot nothing that these items or replies bear out")


def test_a_source_whose_items_could_not_be_checked_is_left_out_with_them() -> None:
    outcomes: tuple[bool | None, ...] = (None, None, *first(6, 6))
    sources = {"general": ("a", "a", *"bbccdd")}
    base, tuned = (
        replace(measure(first(4, 4)), metrics=Metrics(general=1.0), outcomes={"general": right}, clusters=sources)
        for right in (outcomes, (None, None, *first(2, 6)))
    )

    (_, point) = dial_of({0.0: base, 1.0: tuned}, margin=0.03).points

    assert point.forgotten is not None
    assert point.forgotten.number == pytest.approx(4 / 6)


def test_gain_and_forgetting_are_paired_changes_against_the_base() -> None:
    dial = dial_of(of_shares({0.0: 10, 0.5: 70, 1.0: 80}, {0.0: 90, 0.5: 88, 1.0: 60}), margin=0.03)

    assert (dial.gain, dial.forgetting) == ("exact_match", "general")
    base, half, tuned = dial.points
    assert base.gain == base.forgotten == Estimate(0.0)
    assert half.gain is not None
    assert half.forgotten is not None
    assert tuned.forgotten is not None
    interval = paired_interval(Transitions(10, 0, 60, 30))
    assert half.gain == Estimate(pytest.approx(0.6), interval.low, interval.high)
    assert half.forgotten.number == pytest.approx(0.02)
    lost = paired_interval(Transitions(60, 30, 0, 10))
    assert (tuned.forgotten.low, tuned.forgotten.high) == pytest.approx((-lost.high, -lost.low))


def test_the_knee_is_farthest_above_the_line_between_the_ends() -> None:
    task = {0.0: 10, 0.25: 50, 0.5: 70, 0.75: 75, 1.0: 80}
    general = {0.0: 90, 0.25: 85, 0.5: 82, 0.75: 70, 1.0: 60}
    dial = dial_of(of_shares(task, general), margin=0.03)

    by_hand = {value: (task[value] - 10) / 70 - (90 - general[value]) / 30 for value in task}
    assert max(by_hand, key=lambda value: by_hand[value]) == 0.5
    assert dial.knee is not None
    assert dial.knee.value == 0.5
    assert dial.knee.advantage.number == pytest.approx(by_hand[0.5])
    assert (dial.knee.gain_ratio, dial.knee.forgotten_ratio) == pytest.approx((60 / 70, 8 / 30))
    assert dial.knee.advantage.low is not None
    assert 0 < dial.knee.advantage.low < by_hand[0.5]


@pytest.mark.parametrize(
    ("task", "general", "says"),
    [
        ({0.0: 10, 0.5: 45, 1.0: 80}, {0.0: 90, 0.5: 75, 1.0: 60}, "no value between lies above"),
        ({0.0: 10, 0.5: 30, 1.0: 80}, {0.0: 90, 0.5: 70, 1.0: 60}, "no value between lies above"),
        ({0.0: 10, 0.5: 47, 1.0: 80}, {0.0: 90, 0.5: 75, 1.0: 60}, "0.5, lies above the straight line"),
        ({0.0: 10, 0.5: 70, 1.0: 80}, {0.0: 90, 0.5: 90, 1.0: 89}, "tuned forgot nothing"),
        ({0.0: 10, 0.5: 70, 1.0: 80}, {0.0: 60, 0.5: 70, 1.0: 90}, "tuned forgot nothing"),
        ({0.0: 10, 0.5: 12, 1.0: 12}, {0.0: 90, 0.5: 88, 1.0: 60}, "tuned gained nothing"),
        ({0.0: 80, 0.5: 70, 1.0: 10}, {0.0: 90, 0.5: 88, 1.0: 60}, "tuned gained nothing"),
        ({0.0: 10, 1.0: 80, 1.5: 85}, {0.0: 90, 1.0: 60, 1.5: 58}, "no value between base and tuned was measured"),
    ],
)
def test_where_none_is_shown_the_reason_is_said(task: dict[float, int], general: dict[float, int], says: str) -> None:
    dial = dial_of(of_shares(task, general), margin=0.03)

    assert dial.knee is None
    assert says in dial.no_knee
    assert dial.sentences[0].startswith("No knee shown: ")


def test_without_a_measure_of_one_axis_there_is_none() -> None:
    for kept, missing in ((measure(task=first(9)), "forgetting"), (measure(general=first(9)), "gain")):
        dial = dial_of(dict.fromkeys((0.0, 0.5, 1.0), kept), margin=0.03)
        assert dial.knee is None
        assert dial.no_knee == f"no measure of {missing} was taken"


def test_loss_and_divergence_stand_in_for_shares() -> None:
    losses = np.linspace(2.0, 3.0, 8)
    moved = np.linspace(5.0, 9.0, 6)
    measures = {
        value: measure(losses=tuple(losses * (1 - 0.5 * gained)), moved=tuple(moved * gone))
        for value, gained, gone in ((0.0, 0.0, 0.0), (0.5, 0.75, 0.25), (1.0, 1.0, 1.0))
    }
    dial = dial_of(measures, margin=0.03)

    assert (dial.gain, dial.forgetting) == ("heldout_loss", "kl_task")
    half = dial.points[1]
    weights = 10 + np.arange(8)
    assert half.gain is not None
    assert half.gain.number == pytest.approx(float(np.average(losses * 0.375, weights=weights)))
    assert half.gain.low is not None
    assert half.gain.low < half.gain.number
    assert dial.knee is not None
    assert dial.knee.value == 0.5
    assert dial.knee.advantage.number == pytest.approx(0.5)
    assert dial.within_margin is None, "points are of a general set"
    assert any("grows with about the square" in sentence for sentence in dial.sentences)


def test_a_checkers_score_counts_where_rows_are_no_json() -> None:
    """Of those that could be checked at every value; the checker of whole texts stands back."""
    kept = measure(general=first(90))
    scores = {0.0: (0.25, 0.0, 0.5), 0.5: (0.5, None, 0.75), 1.0: (1.0, 1.0, 0.5)}
    measures = {
        value: replace(
            kept,
            metrics=replace(kept.metrics, scores={"exact_match": 0.0, "rouge_l": 0.5}),
            outcomes={**kept.outcomes, "score rouge_l": outcomes, "score exact_match": (False,) * 3},
        )
        for value, outcomes in scores.items()
    }
    dial = dial_of(measures, margin=0.03)

    assert dial.gain == "score rouge_l"
    assert [point.gain and point.gain.number for point in dial.points] == pytest.approx([0.0, 0.25, 0.375])
    half = dial.points[1].gain
    interval = score_interval(0.5, 0.0, 2)
    assert half is not None
    assert (half.low, half.high) == (interval.low, interval.high)
    assert "tuned gained nothing" in dial.no_knee


def test_items_that_no_check_could_be_made_of_show_nothing() -> None:
    kept = measure(first(50), first(90))
    lost = replace(kept, outcomes={**kept.outcomes, "general": (None,) * ITEMS})
    dial = dial_of({0.0: kept, 0.5: lost, 1.0: kept}, margin=0.03)

    assert dial.points[1].forgotten == Estimate(0.0)
    assert dial.knee is None


def test_a_single_held_out_row_has_no_interval() -> None:
    measures = {
        value: measure(losses=(loss,), moved=(1.0, 2.0)) for value, loss in ((0.0, 2.0), (0.5, 1.0), (1.0, 0.9))
    }
    dial = dial_of(measures, margin=0.03)

    assert dial.points[1].gain == Estimate(1.0)
    assert "tuned gained nothing" in dial.no_knee


@pytest.mark.parametrize(
    ("general", "margin", "value"),
    [
        ({0.0: 90, 0.5: 88, 0.75: 87, 1.0: 60}, 0.03, 0.75),
        ({0.0: 90, 0.5: 80, 0.75: 88, 1.0: 60}, 0.03, 0.75),
        ({0.0: 90, 0.5: 85, 0.75: 80, 1.0: 60}, 0.03, 0.0),
        ({0.0: 90, 0.5: 85, 0.75: 80, 1.0: 60}, 0.3, 1.0),
        ({0.0: 90, 0.5: 92, 0.75: 95, 1.0: 91}, 0.0, 1.0),
    ],
)
def test_the_largest_value_within_the_margin(general: dict[float, int], margin: float, value: float) -> None:
    dial = dial_of(of_shares(dict.fromkeys(general, 50), general), margin=margin)

    assert dial.within_margin is not None
    assert dial.within_margin.value == value


def test_the_interval_of_a_difference_is_newcombes() -> None:
    """Newcombe 1998, example (a): 56/70 - 48/80 by his method 10 from Wilson's intervals: 0.0524 to 0.3339."""
    made = difference_of(Estimate(0.8, 0.6918, 0.8772), Estimate(0.6, 0.4904, 0.7002))

    assert made.number == pytest.approx(0.2)
    assert (made.low, made.high) == pytest.approx((0.0524, 0.3339), abs=2e-4)
    with pytest.raises(ValueError, match="need an interval"):
        difference_of(Estimate(0.8), Estimate(0.6, 0.5, 0.7))


def drawn(random: Any, items: int, shares: Sequence[float]) -> list[tuple[bool, ...]]:
    """Right at each value with these chances, an item by one draw for all values, one in twenty by one of its own."""
    common = random.random(items)
    answers = []
    for share in shares:
        fresh = random.random(items)
        answers.append(tuple((np.where(random.random(items) < 0.05, fresh, common) < share).tolist()))
    return answers


@pytest.mark.parametrize(("items", "forgets"), [(24, 0.4), (200, 0.2)])
def test_chance_seldom_makes_a_knee_and_a_bend_is_found(items: int, forgets: float) -> None:
    """Where the truth is a straight line a knee is named in at most 7 % of sets; where it bends, in most."""
    random, values = np.random.default_rng(0), (0.0, 0.25, 0.5, 0.75, 1.0)

    def ratio(gain: Callable[[float], float], forgetting: Callable[[float], float]) -> float:
        named = 0
        for _ in range(SETS):
            task = drawn(random, items, [0.1 + 0.7 * gain(value) for value in values])
            general = drawn(random, items, [0.9 - forgets * forgetting(value) for value in values])
            measures = {
                value: measure(*both) for value, both in zip(values, zip(task, general, strict=True), strict=True)
            }
            named += dial_of(measures, margin=0.03).knee is not None
        return named / SETS

    assert ratio(lambda value: value, lambda value: value) <= 0.07
    assert ratio(lambda value: 1 - (1 - value) ** 3, lambda value: value**2) > 0.6


def test_numbers_that_are_not_finite_make_no_knee() -> None:
    moved = {0.0: (0.0, 0.0), 0.5: (math.nan, 1.0), 1.0: (2.0, 3.0)}
    measures = {value: measure(first(count), moved=moved[value]) for value, count in ((0.0, 10), (0.5, 70), (1.0, 80))}
    assert dial_of(measures, margin=0.03).knee is None

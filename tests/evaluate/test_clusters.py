"""Intervals where items share sources: a simulation says how often they hold the truth, and what others would."""

from __future__ import annotations

import numpy as np

from tutelage.evaluate.checks import CHECKS
from tutelage.evaluate.clusters import clustered_change, clustered_share, clusters_of
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.statistics import Interval, score_interval, wilson_interval
from tutelage.evaluate.uncertainty import uncertainty_of
from tutelage.types import Address

PASSAGES, QUESTIONS, SETS = 20, 8, 300


def holds(interval: Interval | None, truth: float) -> bool:
    assert interval is not None
    return interval.low <= truth <= interval.high


def test_the_interval_of_a_change_holds_the_truth_where_questions_of_a_passage_move_together() -> None:
    """A passage is forgotten or learned as a whole: at least 91 % hold, and of independent items at most 75 %."""
    generator, sources = np.random.default_rng(5), [str(n // QUESTIONS) for n in range(PASSAGES * QUESTIONS)]
    held = independent = 0
    for _ in range(SETS):
        moving = generator.choice([-1.0, 0.0, 1.0], PASSAGES, p=[0.3, 0.6, 0.1])
        differences = [move if generator.random() < 0.8 else 0.0 for move in np.repeat(moving, QUESTIONS)]
        found = clustered_change(differences, sources)
        assert found is not None
        held += holds(found[0], -0.16)
        gain, loss = differences.count(1.0), differences.count(-1.0)
        independent += holds(score_interval(gain, loss, len(differences)), -0.16)

    assert held >= 0.91 * SETS
    assert independent <= 0.75 * SETS


def test_the_interval_of_a_share_does_too() -> None:
    generator, sources = np.random.default_rng(6), [str(n // QUESTIONS) for n in range(PASSAGES * QUESTIONS)]
    held = independent = 0
    for _ in range(SETS):
        chances = np.repeat(generator.beta(1.2, 0.8, PASSAGES), QUESTIONS)
        right = [float(generator.random() < chance) for chance in chances]
        held += holds(clustered_share(right, sources), 0.6)
        independent += holds(wilson_interval(sum(right), len(right)), 0.6)

    assert held >= 0.91 * SETS
    assert independent <= 0.85 * SETS


def test_no_change_of_passages_is_rarely_called_one() -> None:
    generator, sources = np.random.default_rng(7), [str(n // QUESTIONS) for n in range(PASSAGES * QUESTIONS)]
    called = 0
    for _ in range(SETS // 3):
        moving = generator.choice([-1.0, 0.0, 1.0], PASSAGES, p=[0.2, 0.6, 0.2])
        found = clustered_change(np.repeat(moving, QUESTIONS).tolist(), sources)
        assert found is not None
        called += found[1] <= 0.05
    assert called <= 0.1 * SETS / 3


def item(number: int, source: str) -> GeneralItem:
    check = CHECKS["min_words"].model_validate({"kind": "min_words", "count": 1})
    return GeneralItem(Address("general.jsonl", number), "", "?", (check,), source=source)


def test_a_general_set_whose_items_name_sources_is_judged_by_them() -> None:
    items = [item(number, f"passage {number // 8}") for number in range(40)]
    before, after = {"general": [True] * 40}, {"general": [number >= 8 for number in range(40)]}

    alone = uncertainty_of(before, after).shares["general"]
    by_source = uncertainty_of(before, after, clusters_of(items)).shares["general"]

    assert alone.change is not None
    assert by_source.change is not None
    assert (alone.change.verdict, by_source.change.verdict) == ("lost", "not shown"), "one passage of five says little"
    assert by_source.change.range.low <= alone.change.range.low
    assert by_source.change.p_value > alone.change.p_value
    assert by_source.after is not None
    assert alone.after is not None
    assert by_source.after.low < alone.after.low


def test_items_with_sources_of_their_own_are_independent() -> None:
    assert clusters_of([item(number, "") for number in range(5)]) == {}
    assert clusters_of([item(number, str(number)) for number in range(5)]) == {}
    assert clustered_change([1.0, 0.0], ["a", "b"]) is None

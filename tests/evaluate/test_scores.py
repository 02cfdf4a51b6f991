"""Mean scores from 0 to 1: their intervals hold what they promise, and replies become scores with verdicts."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from tutelage.config.sections import Checker
from tutelage.evaluate.checkers import registry
from tutelage.evaluate.checkers.checker import Checker as CheckerRecord
from tutelage.evaluate.checkers.registry import CHECKERS
from tutelage.evaluate.grading import JSON_FIELDS, SCORE, grade
from tutelage.evaluate.saved_results import read_eval_result, write_eval_result
from tutelage.evaluate.statistics import (
    ScorePairs,
    Transitions,
    holm,
    judge_changes,
    mcnemar_p,
    paired_interval,
    score_interval,
    sign_flip_p,
    wilson_interval,
)
from tutelage.evaluate.suite import EvalResult, Metrics
from tutelage.evaluate.uncertainty import item_outcomes, uncertainty_of
from tutelage.report.score_names import SCORE_NAMES
from tutelage.runs.uncertainty import uncertainty_in
from tutelage.runs.unchecked import Unchecked, unchecked_by_phase, unchecked_notes
from tutelage.types import Address, Prompt


def asked(*references: str) -> list[Prompt]:
    ids = np.zeros(1, dtype=np.int32)
    return [Prompt(Address("task.jsonl", number), ids, "", text) for number, text in enumerate(references, start=1)]


def test_every_checker_of_the_settings_is_there_and_has_a_name_for_people() -> None:
    assert set(get_args(Checker)) == {*CHECKERS, JSON_FIELDS}
    assert set(SCORE_NAMES) == set(CHECKERS)


@pytest.mark.parametrize("items", [24, 60, 200])
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.3), (0.5, 0.5), (2.0, 0.7), (4.0, 4.0)])
def test_wilson_with_a_mean_covers(items: int, low: float, high: float) -> None:
    """Scores of a beta distribution, some of them U-shaped, as F1 is: at least as often as promised of a share."""
    generator = np.random.default_rng([items, int(10 * low), int(10 * high)])
    mean = low / (low + high)
    held = 0
    for scores in generator.beta(low, high, (1000, items)):
        interval = wilson_interval(float(scores.sum()), items)
        held += interval.low <= mean <= interval.high

    assert held / 1000 > 0.93


@pytest.mark.parametrize("items", [24, 60, 200])
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.4])
def test_tango_with_sums_covers(items: int, shift: float) -> None:
    """Each score is 0, 1 or between; after, it is drawn again with a chance, and rises by a shift."""
    generator = np.random.default_rng([items, int(10 * shift)])

    def draw(count: int) -> tuple[Any, Any]:
        before = generator.beta(0.4, 0.4, (count, items))
        again = np.where(generator.random((count, items)) < 0.5, generator.beta(0.4, 0.4, (count, items)), before)
        return before, again + shift * (1 - again)

    wide_before, wide_after = draw(20_000)
    true = float((wide_after - wide_before).mean())
    held = 0
    for before, after in zip(*draw(300), strict=True):
        pairs = ScorePairs.of(before.tolist(), after.tolist())
        interval = score_interval(pairs.gain, pairs.loss, items)
        held += interval.low <= true <= interval.high

    assert held / 300 > 0.93


def test_scores_of_0_and_1_have_the_intervals_of_shares() -> None:
    before, after = [0.0] * 30 + [1.0] * 20, [1.0] * 12 + [0.0] * 20 + [1.0] * 18
    pairs, moved = ScorePairs.of(before, after), Transitions.of([*map(bool, before)], [*map(bool, after)])

    assert (pairs.fixed, pairs.broken, pairs.gain, pairs.loss) == (moved.fixed, moved.broken, moved.fixed, moved.broken)
    assert score_interval(pairs.gain, pairs.loss, pairs.items) == paired_interval(moved)
    assert sign_flip_p(pairs.differences) == pytest.approx(mcnemar_p(moved.fixed, moved.broken), abs=0.01)


def test_few_flips_are_all_tried() -> None:
    differences = [0.5, 0.25, -0.125, 0.0, 0.375, 0.1]
    moved = [value for value in differences if value]
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, moved, strict=True))) for signs in product((1, -1), repeat=5)
    ]

    assert sign_flip_p(differences) == sum(value >= abs(sum(moved)) - 1e-9 for value in sums) / 32
    assert sign_flip_p([1.0] * 6) == mcnemar_p(6, 0)
    assert sign_flip_p([0.0] * 9) == 1.0
    assert sign_flip_p([]) == 1.0


def test_drawn_flips_are_the_same_each_time_and_near_the_exact_ones() -> None:
    differences = [1.0] * 15 + [-1.0] * 5

    assert sign_flip_p(differences) == sign_flip_p(differences)
    assert sign_flip_p(differences) == pytest.approx(mcnemar_p(15, 5), abs=0.01)
    assert sign_flip_p([0.5] * 200) == 1 / 10_000  # never 0


def test_false_alarms_of_the_sign_flip_test_are_as_rare_as_promised() -> None:
    generator = np.random.default_rng(3)
    p_values = [sign_flip_p((generator.random(12) - generator.random(12)).tolist()) for _ in range(400)]

    assert sum(p_value <= 0.05 for p_value in p_values) / 400 < 0.08


def test_a_score_out_of_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="not from 0 to 1"):
        ScorePairs.of([0.0], [1.5])


def test_scores_and_shares_are_judged_together() -> None:
    rising = ScorePairs.of([0.2] * 40, [0.6] * 40)
    changes = judge_changes(
        {"f1": rising, "same": ScorePairs.of([0.5] * 90, [0.5] * 90), "share": Transitions(9, 1, 2, 8)}
    )

    assert [changes[name].verdict for name in ("f1", "same", "share")] == ["gained", "kept", "not shown"]
    p_values = [changes[name].p_value for name in ("f1", "same", "share")]
    assert [changes[name].adjusted_p for name in ("f1", "same", "share")] == list(holm(p_values))


REFERENCES = ("the cat sat", "a dog ran", "#### 5")


def result_of(*replies: str, checkers: tuple[str, ...]) -> EvalResult:
    graded = grade(asked(*REFERENCES), (), replies, (), checkers=checkers)
    return EvalResult(
        Metrics(scores=graded.means(SCORE)), replies, (), outcomes=graded.outcomes, unchecked=graded.unchecked
    )


def test_replies_become_scores_with_intervals_and_verdicts_and_come_back_from_json(tmp_path: Path) -> None:
    checkers = ("exact_match", "token_f1")
    before = result_of("no", "a dog ran", "no", checkers=checkers)
    after = result_of("the cat sat", "a dog", "5", checkers=checkers)

    assert before.measures.scores == {"exact_match": pytest.approx(1 / 3), "token_f1": pytest.approx(1 / 3)}
    assert after.measures.scores["token_f1"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert after.outcomes["score exact_match"] == [True, False, False]
    found = uncertainty_of(before.outcomes, after.outcomes)
    assert found.shares == {}
    exact, f1 = found.scores["exact_match"], found.scores["token_f1"]
    assert (exact.graded, f1.graded, exact.items) == (False, True, 3)
    assert exact.change is not None
    assert f1.change is not None
    assert (exact.change.fixed, exact.change.broken, f1.change.fixed, f1.change.broken) == (1, 1, 2, 1)
    assert found.judged == 2
    assert uncertainty_in({"uncertainty": json.loads(json.dumps(asdict(found)))}) == found
    write_eval_result(tmp_path / "after.json", after)
    again = read_eval_result(tmp_path / "after.json", log=pytest.fail)
    assert again is not None
    assert again.outcomes == after.outcomes
    assert again.measures == after.measures


def test_measures_saved_without_outcomes_are_checked_again(tmp_path: Path) -> None:
    """As versions before this one wrote them."""
    old = EvalResult(Metrics(), ("the cat sat", "no", "no"), ())

    assert item_outcomes(asked(*REFERENCES), (), old, checkers=("exact_match",)) == {
        "score exact_match": [True, False, False]
    }
    assert item_outcomes(asked("other"), (), old, checkers=("exact_match",)) == {}


def test_a_checker_that_fails_on_a_row_leaves_it_out_of_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_on_dogs(prompt: Prompt, reply: str) -> float:
        if "dog" in reply:
            raise KeyError("dog")
        return float(reply == prompt.reference)

    monkeypatch.setitem(registry.CHECKERS, "exact_match", CheckerRecord("exact_match", fails_on_dogs))

    before = result_of("no", "a dog ran", "no", checkers=("exact_match",))
    after = result_of("the cat sat", "a dog ran", "no", checkers=("exact_match",))

    assert after.measures.scores == {"exact_match": 0.5}
    assert after.unchecked == {"exact_match": Unchecked(1, ("task.jsonl:2 ('dog')",))}
    share = uncertainty_of(before.outcomes, after.outcomes).scores["exact_match"]
    assert share.items == 2
    assert share.change is not None
    assert (share.change.fixed, share.change.broken) == (1, 0)
    saved = {"unchecked": {"after": {"exact_match": asdict(after.unchecked["exact_match"])}}}
    assert unchecked_notes(unchecked_by_phase(json.loads(json.dumps(saved)))) == [
        "After training: the check exact_match failed on 1 reply, which counts neither way: task.jsonl:2 ('dog')"
    ]

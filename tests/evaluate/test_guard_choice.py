"""Which candidate is taken, on hand-made numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tutelage.evaluate.guard_choice import Trial, choose, standard_error, trial_of
from tutelage.evaluate.uncertainty import uncertainty_of


def trial(name: str, score: float, lost: float, *, tokens: int = 100, items: int = 100) -> Trial:
    return Trial(name, name, 1.0, tokens, 1.0, score, items, lost, lost - 0.1, lost + 0.1, 200)


def test_the_best_within_the_limit_is_taken() -> None:
    chosen = choose([trial("a", 0.9, 0.2), trial("b", 0.7, 0.03), trial("c", 0.5, 0.0)], 0.03)

    assert (chosen.trial.name, chosen.within, chosen.tied) == ("b", True, ())


def test_within_one_standard_error_fewer_tokens_win_then_less_lost() -> None:
    """At 0.8 of 100 items one standard error is about 4 points."""
    tied = [trial("best", 0.80, 0.02, tokens=200), trial("cheap", 0.77, 0.03), trial("kept", 0.77, 0.01)]

    chosen = choose([*tied, trial("cheapest", 0.70, 0.0, tokens=10)], 0.05)

    assert (chosen.trial.name, chosen.tied) == ("kept", ("best", "cheap"))


def test_where_none_is_within_the_limit_the_one_that_lost_least_is_taken() -> None:
    chosen = choose([trial("a", 0.9, 0.2), trial("b", 0.1, 0.1), trial("c", 0.2, 0.1)], 0.05)

    assert (chosen.trial.name, chosen.within) == ("c", False)


def test_losses_have_no_standard_error() -> None:
    chosen = choose([trial("a", -1.01, 0.0, items=0), trial("b", -1.0, 0.0, tokens=900, items=0)], 0.05)

    assert chosen.trial.name == "b"


@pytest.mark.parametrize(("share", "expected"), [(0.5, 0.05), (1.0, math.sqrt(101 / 102 / 102 / 100))])
def test_a_standard_error_is_above_0_where_all_is_right(share: float, expected: float) -> None:
    assert standard_error(trial("a", share, 0.0)) == pytest.approx(expected)


BEFORE = {"general": [True] * 10, "exact_match": [False] * 4, "score text_similarity": [0.1] * 4}
AFTER = {"general": [True] * 7 + [False] * 3, "exact_match": [True, True, True, False]}
AFTER |= {"score text_similarity": [0.6] * 4}


@pytest.mark.parametrize(
    ("metrics", "score"),
    [
        ({"exact_match": 0.75, "heldout_loss": 0.5}, (0.75, 4)),
        ({"exact_match": None, "heldout_loss": 0.5}, (-0.5, 0)),
        ({"scores": {"text_similarity": 0.6, "other": 0.1}, "heldout_loss": 0.5}, (0.6, 4)),
    ],
)
def test_a_trial_takes_the_main_share_or_the_loss(metrics: dict[str, Any], score: tuple[float, int]) -> None:
    found = trial_of(
        "a", run="a", dial=1.0, tokens=3, seconds=2.0, metrics=metrics, uncertainty=uncertainty_of(BEFORE, AFTER)
    )

    assert found is not None
    assert (found.score, found.score_items) == score
    assert (found.lost, found.items) == (pytest.approx(0.3), 10)
    assert found.least < 0.3 < found.most


def test_what_was_not_measured_is_no_trial() -> None:
    facts: dict[str, Any] = {"run": "a", "dial": 1.0, "tokens": 3, "seconds": 2.0}
    without_before = uncertainty_of({}, AFTER)

    assert trial_of("a", metrics={"exact_match": 1.0}, uncertainty=without_before, **facts) is None
    assert trial_of("a", metrics={}, uncertainty=uncertainty_of(BEFORE, AFTER), **facts) is None

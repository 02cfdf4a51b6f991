"""From replies to intervals and verdicts, and through result.json back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from tutelage.evaluate.checks import CHECKS
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.statistics import wilson_interval
from tutelage.evaluate.suite import EvalResult, Metrics
from tutelage.evaluate.uncertainty import FIELD, item_outcomes, uncertainty_of
from tutelage.runs.uncertainty import ShareUncertainty, Uncertainty, uncertainty_in
from tutelage.types import Address, Prompt


def asked(*references: dict[str, Any]) -> list[Prompt]:
    ids = np.zeros(1, dtype=np.int32)
    return [Prompt(Address("task.jsonl", at), ids, "", json.dumps(value)) for at, value in enumerate(references)]


def replied(task: list[str], general: list[str]) -> EvalResult:
    return EvalResult(Metrics(), tuple(task), tuple(general))


YES = GeneralItem(
    Address("general.jsonl", 1), "", "?", (CHECKS["starts_with"].model_validate({"kind": "starts_with", "value": "y"}),)
)


def test_each_item_is_right_or_wrong_by_each_share() -> None:
    task = asked({"a": 1, "b": "x"}, {"a": 2}, {"b": "z"})
    replies = replied(['{"a": 1, "b": "w"}', '{"a": 2}', "no"], ["yes", "no"])

    assert item_outcomes(task, [YES, YES], replies) == {
        "exact_match": [False, True, False],
        "valid_json": [True, True, False],
        FIELD + "a": [True, True],
        FIELD + "b": [False, False],
        "general": [True, False],
    }


def test_replies_that_are_missing_or_of_other_items_are_left_out() -> None:
    task = asked({"a": 1}, {"a": 2})

    assert item_outcomes(task, [YES], replied([], ["yes"])) == {"general": [True]}
    assert item_outcomes(task, [YES, YES], replied(['{"a": 1}'], ["yes"])) == {}
    assert item_outcomes([], [], replied([], [])) == {}


def test_shares_have_intervals_and_changes_a_verdict() -> None:
    before = {"exact_match": [False] * 40, FIELD + "a": [True] * 40, "general": [True] * 20 + [False] * 20}
    after = {
        "exact_match": [True] * 30 + [False] * 10,
        FIELD + "a": [False] * 40,
        "general": [True] * 20 + [False] * 20,
    }

    found = uncertainty_of(before, after)

    exact, general = found.shares["exact_match"], found.shares["general"]
    assert exact.after is not None
    assert (exact.after.low, exact.after.high) == pytest.approx(
        (wilson_interval(30, 40).low, wilson_interval(30, 40).high)
    )
    assert exact.change is not None
    assert (exact.change.verdict, exact.change.fixed, exact.change.broken) == ("gained", 30, 0)
    assert found.fields["a"].change is not None
    assert found.fields["a"].change.verdict == "lost"
    assert general.change is not None
    assert general.change.verdict == "not shown"  # no item moved, of 40; 73 would show that it is kept
    assert general.change.smallest_detectable is not None
    assert found.judged == 3


def test_one_side_alone_has_an_interval_and_no_change() -> None:
    found = uncertainty_of({}, {"general": [True, False, True]})
    other = uncertainty_of({"general": [True, False, True]}, {})
    mismatched = uncertainty_of({"general": [True]}, {"general": [True, False]})

    assert found.shares["general"].before is None
    assert found.shares["general"].after == other.shares["general"].before
    assert other.shares["general"].items == 3
    assert [one.judged for one in (found, other, mismatched)] == [0, 0, 0]


def test_what_is_written_is_read_again() -> None:
    found = uncertainty_of(
        {"exact_match": [True, False] * 5, FIELD + "a": [True] * 3},
        {"exact_match": [False] * 10, FIELD + "a": [True] * 3},
    )

    assert uncertainty_in(json.loads(json.dumps({"uncertainty": asdict(found)}))) == found


def test_older_and_damaged_files_say_nothing() -> None:
    assert uncertainty_in({}) is None
    assert uncertainty_in({"uncertainty": {}}) is None
    assert uncertainty_in({"uncertainty": {"level": "high", "margin": 0.05, "power": 0.8}}) is None
    half = {
        "level": 0.95,
        "margin": 0.05,
        "power": 0.8,
        "shares": {"general": {"items": 3, "change": {"verdict": "?"}}},
    }
    assert uncertainty_in({"uncertainty": half}) == Uncertainty(0.95, 0.05, 0.8, {"general": ShareUncertainty(3)}, {})

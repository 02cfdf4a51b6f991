"""Replies to the same prompts again: how many differ, and of how many items a verdict turns."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from tutelage.evaluate.checks import CHECKS
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.noise import noise_floor
from tutelage.evaluate.statistics import wilson_interval
from tutelage.evaluate.suite import EvalResult, Metrics
from tutelage.report.noise import noise_sentence
from tutelage.runs.noise import noise_in
from tutelage.types import Address, Prompt

TASK = [
    Prompt(Address("task.jsonl", at), np.zeros(1, dtype=np.int32), "", json.dumps({"a": 1, "b": at})) for at in range(3)
]
YES = GeneralItem(
    Address("general.jsonl", 1), "", "?", (CHECKS["starts_with"].model_validate({"kind": "starts_with", "value": "y"}),)
)
REPLIES = ('{"a": 1, "b": 0}', '{"a": 1, "b": 9}', "none")


def asked_again(task: dict[int, str], general: dict[int, str]) -> EvalResult:
    return EvalResult(Metrics(), REPLIES, ("yes", "no"), asked_again={"task": task, "general": general})


def test_texts_that_differ_and_verdicts_that_flip_are_counted() -> None:
    again = asked_again(
        {
            0: '{"b": 0, "a": 1}',  # another text, as right as before
            1: '{"a": 2, "b": 9}',  # a field turns, the row was wrong before and is
            2: "none",
        },
        {0: "yes", 1: "yes, but"},  # the second turns right
    )

    found = noise_floor(TASK, [YES, YES], again)

    assert found is not None
    assert (found.prompts, found.differ, found.judged, found.flips) == (5, 3, 5, 2)
    interval = wilson_interval(2, 5)
    assert found.flips_range is not None
    assert (found.flips_range.low, found.flips_range.high) == (interval.low, interval.high)


def test_without_replies_to_the_same_prompts_there_is_no_floor() -> None:
    assert noise_floor(TASK, [YES, YES], asked_again({}, {})) is None
    assert noise_floor(TASK[:2], [], asked_again({0: "x"}, {0: "yes"})) is None, "the items are others than then"
    assert noise_sentence(None) is None


def test_the_floor_is_said_with_intervals_and_read_back_from_a_result() -> None:
    found = noise_floor(TASK, [YES, YES], asked_again({0: REPLIES[0], 1: "x"}, {1: "no"}))
    assert found is not None
    result: dict[str, Any] = json.loads(json.dumps({"noise": asdict(found)}))

    assert noise_in(result) == found
    assert noise_in({"noise": None}) is None
    assert noise_in({}) is None, "as older runs have none"
    assert noise_in({"noise": {"prompts": 3}}) is None
    assert noise_sentence(found) == (
        "Noise floor (95 % interval): the base, asked 3 prompts again in other batches: 33.3\N{NO-BREAK SPACE}% (6–79) "
        "of the replies differ, 33.3\N{NO-BREAK SPACE}% (6–79) of the verdicts flip."
    )

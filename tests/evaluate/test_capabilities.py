"""The general set by its topics: which count, their shares and outcomes, and the items that were lost and gained."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from tutelage.evaluate.capabilities import (
    CAPABILITY,
    MOST_LOST_ITEMS,
    MOST_LOST_OF_EACH,
    NO_TOPIC,
    capabilities_of,
    capability_outcomes,
    item_transitions,
)
from tutelage.evaluate.checks import CHECKS
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.grading import grade
from tutelage.evaluate.suite import EvalResult, Metrics
from tutelage.evaluate.uncertainty import item_outcomes, uncertainty_of
from tutelage.runs.fields import Fields
from tutelage.runs.transitions import ItemTransitions, LostItem, read_transitions
from tutelage.runs.uncertainty import uncertainty_in
from tutelage.types import Address

YES = (CHECKS["starts_with"].model_validate({"kind": "starts_with", "value": "y"}),)


def items(*topics: str) -> list[GeneralItem]:
    return [
        GeneralItem(Address("set.jsonl", at), topic, f"{topic} {at}?", YES, f"{topic}-{at}", "yes")
        for at, topic in enumerate(topics, 1)
    ]


def test_a_topic_counts_with_ten_items_and_beside_another() -> None:
    ten, nine = ["a"] * 10, ["b"] * 9

    assert capabilities_of(items(*ten, *nine)) == {}
    assert capabilities_of(items(*ten, *[""] * 10)) == {}
    assert capabilities_of([]) == {}
    assert capabilities_of(items(*ten, *nine, "c", "b")) == {"a": tuple(range(10)), "b": (*range(10, 19), 20)}


def moved_items(general: list[GeneralItem], before: list[str], after: list[str]) -> ItemTransitions | None:
    right_before, right_after = (grade([], general, [], said).outcomes.get("general", ()) for said in (before, after))
    return item_transitions(general, before, after, right_before=right_before, right_after=right_after)


def test_shares_and_outcomes_are_of_the_items_of_each() -> None:
    general = items(*["a", "b"] * 10)
    replies = ["yes", "no"] * 5 + ["yes", "yes"] * 5

    graded = grade([], general, [], replies)

    assert graded.means(CAPABILITY) == {"a": 1.0, "b": 0.5}
    assert capability_outcomes(general, graded.outcomes["general"]) == {
        CAPABILITY + "a": [True] * 10,
        CAPABILITY + "b": [False] * 5 + [True] * 5,
    }


def test_capabilities_are_judged_together_and_apart_from_the_general_set() -> None:
    general = items(*["a"] * 40, *["b"] * 40)
    before, after = (EvalResult(Metrics(), (), tuple(said)) for said in (["y"] * 80, ["n"] * 30 + ["y"] * 50))

    outcomes = [item_outcomes([], general, result) for result in (before, after)]
    found = uncertainty_of(*outcomes)

    assert list(outcomes[0]) == ["general", CAPABILITY + "a", CAPABILITY + "b"]
    assert set(found.shares) == {"general"}
    assert found.fields == {}
    assert found.families == "1 change, 2 capabilities, each group by itself"
    general_change, capability_change = found.shares["general"].change, found.capabilities["a"].change
    assert general_change is not None
    assert capability_change is not None
    assert general_change.adjusted_p == general_change.p_value, "a group of its own"
    assert capability_change.adjusted_p == pytest.approx(2 * capability_change.p_value)
    verdicts = {name: share.change.verdict for name, share in found.capabilities.items() if share.change}
    assert verdicts == {"a": "lost", "b": "not shown"}
    assert found.capabilities["a"].items == 40
    assert uncertainty_in(json.loads(json.dumps({"uncertainty": asdict(found)}))) == found


def test_files_of_earlier_versions_have_no_capabilities() -> None:
    found = uncertainty_in({"uncertainty": {"level": 0.95, "margin": 0.05, "power": 0.8, "shares": {}, "fields": {}}})

    assert found is not None
    assert found.capabilities == {}


def test_items_that_moved_are_named_by_capability() -> None:
    general = [*items("a", "a", "b"), GeneralItem(Address("set.jsonl", 9), "", "?", YES)]

    moved = moved_items(general, ["yes", "no", "yes", "yes"], ["no", "yes", "yes", "nothing"])

    assert moved == ItemTransitions(
        {"a": ("a-1",), NO_TOPIC: ("set.jsonl:9",)},
        {"a": ("a-2",)},
        (
            LostItem("a-1", "a", "a 1?", "yes", "yes", "no"),
            LostItem("set.jsonl:9", NO_TOPIC, "?", None, "yes", "nothing"),
        ),
    )


def test_some_lost_items_of_each_capability_are_kept_with_replies() -> None:
    few = moved_items(items(*["a"] * 20, "b"), ["yes"] * 21, ["no"] * 21)
    many = moved_items(items(*(f"topic {at}" for at in range(100))), ["yes"] * 100, ["no"] * 100)

    assert few is not None
    assert [item.capability for item in few.lost_items] == ["a"] * MOST_LOST_OF_EACH + ["b"]
    assert {name: len(ids) for name, ids in few.lost.items()} == {"a": 20, "b": 1}
    assert many is not None
    assert len(many.lost_items) == MOST_LOST_ITEMS
    assert len(many.lost) == 100


def test_without_both_sides_nothing_is_said() -> None:
    general = items("a", "a")

    assert moved_items(general, [], ["yes", "no"]) is None
    assert moved_items(general, ["yes", "no"], ["yes"]) is None
    assert moved_items([], [], []) is None
    assert moved_items(general, ["yes", "no"], ["yes", "no"]) == ItemTransitions()


def test_transitions_are_read_as_they_are_written_and_what_is_damaged_is_named() -> None:
    general = items(*["a"] * 3, "b")
    moved = moved_items(general, ["yes", "no", "yes", "yes"], ["no", "yes", "no", "yes"])
    assert moved is not None
    notices: list[str] = []

    def read(value: object) -> ItemTransitions | None:
        return read_transitions(Fields.of(json.loads(json.dumps(value)), "result.json", notices))

    assert read(asdict(moved)) == moved
    assert read({}) is None
    assert notices == []
    assert read({"lost": {"a": [1]}, "gained": 3, "lost_items": [{"id": "x"}]}) == ItemTransitions(
        {"a": ()}, {}, (LostItem("x", "", "", None, "", ""),)
    )
    assert len(notices) == 2


def test_an_item_that_could_not_be_checked_on_one_side_is_neither_lost_nor_gained() -> None:
    general = items("a", "a", "a")
    replies = ["yes"] * 3, ["no"] * 3

    moved = item_transitions(general, *replies, right_before=[True, None, True], right_after=[None, False, False])

    assert moved is not None
    assert (moved.lost, moved.gained) == ({"a": ("a-3",)}, {})

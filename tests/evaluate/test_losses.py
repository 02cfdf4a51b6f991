"""Losses by document: sources, intervals, and what is shown of a change that is paired document by document."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from tutelage.evaluate.losses import by_source, loss_measures
from tutelage.evaluate.means import ratio_interval
from tutelage.runs.fields import Fields
from tutelage.runs.losses import DocumentLosses, Losses, PlaceMeasure, losses_in, read_loss_measures
from tutelage.types import Address


def losses(nats: list[float], tokens: list[int] | None = None, **more: tuple[int, ...]) -> DocumentLosses:
    counts = tuple(tokens or [10] * len(nats))
    found = DocumentLosses(tuple(map(str, range(len(nats)))), tuple(nats), counts, (0,) * len(nats))
    return replace(found, **more)


def heldout(**sources: DocumentLosses) -> Losses:
    return {"heldout": sources}


def test_documents_go_to_their_files_in_order() -> None:
    found = by_source(
        {Address("b", 2): (4.0, 2), Address("a", 10): (3.0, 1), Address("b", 1): (5.0, 4), Address("a", 9): (1.0, 3)},
        {Address("a", 9): 7},
    )

    assert found == {
        "a": DocumentLosses(("9", "10"), (1.0, 3.0), (3, 1), (7, 0)),
        "b": DocumentLosses(("1", "2"), (5.0, 4.0), (4, 2), (0, 0)),
    }


def test_one_source_is_all_and_several_stand_beside_it() -> None:
    first, second = losses([10.0, 30.0], [10, 20]), losses([6.0, 9.0, 15.0], [2, 3, 4])

    one = loss_measures({}, heldout(a=first))["heldout"]
    two = loss_measures({}, heldout(a=first, b=second))["heldout"]

    assert one.sources == {}
    assert one.all.per_token.after is not None
    assert one.all.per_token.after.value == pytest.approx(40 / 30)
    assert set(two.sources) == {"a", "b"}
    assert two.sources["a"] == one.all
    assert (two.all.documents, two.all.tokens) == (5, 39)
    interval = ratio_interval([10.0, 30.0, 6.0, 9.0, 15.0], [10, 20, 2, 3, 4])
    mean = two.all.per_token.after
    assert mean is not None
    assert (mean.value, mean.low, mean.high) == pytest.approx((70 / 39, interval.low, interval.high))


def test_the_change_is_paired() -> None:
    """Documents of very unlike losses, each a little better: only the pairs show it."""
    random = np.random.default_rng(1)
    hard = random.uniform(1, 60, 40)
    before = losses(hard.tolist())
    after = losses((hard - random.uniform(0.5, 1.5, 40)).tolist())

    rate = loss_measures(heldout(a=before), heldout(a=after))["heldout"].all.per_token

    assert rate.before is not None
    assert rate.after is not None
    assert rate.change is not None
    assert rate.before.low is not None
    assert rate.after.value > rate.before.low, "unpaired, nothing would be shown"
    assert rate.change.verdict == "better"
    assert rate.change.value == pytest.approx(rate.after.value - rate.before.value)
    assert rate.change.high is not None
    assert rate.change.high < 0


@pytest.mark.parametrize(
    ("moves", "shown"),
    [
        ([1.0, 1.5, 0.5, 1.0], "worse"),
        ([-1.0, -1.5, -0.5, -1.0], "better"),
        ([3.0, -2.0, 1.0, -1.5], "not shown"),
        ([0.0, 0.0, 0.0, 0.0], "not shown"),
        ([-1.0], "not shown"),  # one document says nothing of others
        ([math.nan, -1.0, -1.5], "not shown"),
        ([math.inf, -1.0, -1.5], "not shown"),
    ],
)
def test_words_stand_only_where_the_interval_excludes_0(moves: list[float], shown: str) -> None:
    before = losses([20.0] * len(moves))
    after = losses([20.0 + move for move in moves])

    change = loss_measures(heldout(a=before), heldout(a=after))["heldout"].all.per_token.change

    assert change is not None
    assert change.verdict == shown


def test_what_is_not_the_same_documents_has_no_change() -> None:
    before = losses([20.0, 30.0])
    for after in (losses([20.0, 30.0, 5.0]), losses([20.0, 30.0], [10, 11]), replace(before, names=("0", "7"))):
        rate = loss_measures(heldout(a=before), heldout(a=after))["heldout"].all.per_token
        assert rate.change is None
        assert rate.before is not None
        assert rate.after is not None


def test_bytes_have_a_rate_of_their_own_where_they_are_counted() -> None:
    sized = losses([20.0, 33.0], bytes=(40, 50))
    (place,) = loss_measures({"general_text": {"a": sized}}, {"general_text": {"a": sized}}).values()

    assert place.all.bytes == 90
    assert place.all.per_byte is not None
    assert place.all.per_byte.after is not None
    assert place.all.per_byte.after.value == pytest.approx(53 / 90)
    assert loss_measures({}, heldout(a=losses([1.0])))["heldout"].all.per_byte is None


def test_intervals_hold_the_true_change() -> None:
    """95 % of them, of 30 documents whose lengths and losses differ: at least 92 % of 400 sets."""
    random = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        tokens = random.integers(5, 80, 30)
        before = random.normal(2.0, 0.7, 30) * tokens
        after = before + random.normal(-0.1, 0.3, 30) * tokens
        both = [losses(nats.tolist(), tokens.tolist()) for nats in (before, after)]
        change = loss_measures(heldout(a=both[0]), heldout(a=both[1]))["heldout"].all.per_token.change
        assert change is not None
        assert change.low is not None
        assert change.high is not None
        held += change.low <= -0.1 <= change.high
    assert 0.92 <= held / 400 <= 0.985


def test_what_is_written_is_read_again() -> None:
    saved = heldout(a=losses([1.0, 2.0]), b=losses([5.0], bytes=(9,)))
    written = {place: {source: asdict(one) for source, one in found.items()} for place, found in saved.items()}
    measures = loss_measures(saved, {"heldout": saved["heldout"], "general_text": {"c": losses([3.0, 4.0])}})
    fields = Fields({place: asdict(one) for place, one in measures.items()}, "result.json", notices := [])

    assert losses_in({"losses": written}) == saved
    assert losses_in({}) == {}
    assert read_loss_measures(fields) == measures
    assert notices == []


@pytest.mark.parametrize(
    "damaged",
    [{"heldout": 3}, {"heldout": {"all": {"documents": 0}}}, {"heldout": {"all": {"documents": "x", "tokens": 3}}}, {}],
)
def test_what_is_damaged_is_left_out(damaged: dict[str, object]) -> None:
    assert read_loss_measures(Fields(damaged, "result.json", [])) == {}


def test_a_damaged_verdict_takes_only_the_change() -> None:
    content = {
        "documents": 2, "tokens": 5, "bytes": 0,
        "per_token": {"after": {"value": 1.0}, "change": {"value": -1.0, "verdict": "great"}},
    }  # fmt: skip
    found = read_loss_measures(Fields({"heldout": {"all": content}}, "result.json", []))["heldout"]

    assert isinstance(found, PlaceMeasure)
    assert found.all.per_token.change is None
    assert found.all.per_token.after is not None

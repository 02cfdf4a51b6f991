from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage import Ledger, Message
from tutelage.errors import DataError
from tutelage.ledger import SAMPLES_KEPT
from tutelage.types import Address, Change, Conversation, Drop


def drop(number: int, reason: str = "too_long") -> Drop:
    return Drop(Address("rows.jsonl", number), reason, f"detail é {number}")


def change(number: int, reason: str = "split") -> Change:
    return Change(Address("rows.jsonl", number), reason, f"detail {number}")


@given(outcomes=st.lists(st.sampled_from(["keep", "change", "too_long", "no_reply"]), max_size=40))
def test_the_books_balance(outcomes: list[str]) -> None:
    ledger = Ledger()
    for number, outcome in enumerate(outcomes, start=1):
        ledger.enter()
        if outcome in ("keep", "change"):
            ledger.keep()
        if outcome == "change":
            ledger.change(change(number))
        if outcome in ("too_long", "no_reply"):
            ledger.drop(drop(number, outcome))
    ledger.check()
    books = ledger.as_dict()
    assert books["rows_in"] == len(outcomes) == books["rows_kept"] + books["rows_dropped"]
    assert books["rows_dropped"] == sum(books["dropped"].values()) == ledger.rows_dropped
    assert books["changed"] == ({"split": outcomes.count("change")} if "change" in outcomes else {})
    assert json.loads(json.dumps(books)) == books


@pytest.mark.parametrize(("rows_in", "kept"), [(2, 1), (1, 2)])
def test_books_that_do_not_balance_are_our_bug(rows_in: int, kept: int) -> None:
    ledger = Ledger()
    ledger.enter(rows_in)
    ledger.keep(kept)
    with pytest.raises(AssertionError, match="does not balance"):
        ledger.check()


def test_a_row_lost_on_the_way_is_seen() -> None:
    ledger = Ledger()
    ledger.enter(3)
    ledger.keep()
    ledger.drop(drop(2))
    with pytest.raises(AssertionError, match="3 in, 1 kept, 1 dropped"):
        ledger.check()


def test_strict_stops_at_the_first_drop(tmp_path: Path) -> None:
    heard: list[Drop | Change] = []
    ledger = Ledger(strict=True, path=tmp_path / "ledger.jsonl", listener=heard.append)
    ledger.change(change(1))
    with pytest.raises(DataError, match="too_long") as caught:
        ledger.drop(drop(2))
    assert caught.value.where == "rows.jsonl:2"
    assert caught.value.found == "detail é 2"
    assert caught.value.fix is not None
    assert isinstance(caught.value, ValueError)
    assert ledger.rows_dropped == 0
    assert heard == [change(1)]


def test_the_listener_hears_all_in_order() -> None:
    heard: list[Drop | Change] = []
    ledger = Ledger(listener=heard.append)
    ledger.drop(drop(1))
    ledger.change(change(2))
    ledger.drop(drop(3, "no_reply"))
    assert heard == [drop(1), change(2), drop(3, "no_reply")]


def test_every_drop_and_change_is_written(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path=path)
    for number in range(1, 21):
        ledger.drop(drop(number))
    ledger.change(change(21))
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert lines[0] == {"dropped": "too_long", "address": "rows.jsonl:1", "detail": "detail é 1"}
    assert lines[-1] == {"changed": "split", "address": "rows.jsonl:21", "detail": "detail 21"}
    assert len(lines) == 21
    assert "é" in path.read_text("utf-8")


def test_few_samples_are_held() -> None:
    ledger = Ledger()
    for number in range(1, 101):
        ledger.drop(drop(number))
        ledger.change(change(number))
    assert ledger.dropped["too_long"] == ledger.changed["split"] == 100
    assert ledger.drop_samples["too_long"] == [drop(number) for number in range(1, SAMPLES_KEPT + 1)]
    assert len(ledger.change_samples["split"]) == SAMPLES_KEPT
    samples = ledger.as_dict()["samples"]
    assert samples["too_long"][0] == {"address": "rows.jsonl:1", "detail": "detail é 1"}


def test_a_reason_of_drops_and_of_changes_keeps_both_samples() -> None:
    ledger = Ledger()
    ledger.drop(drop(1, "empty_turn"))
    ledger.change(change(2, "empty_turn"))
    shown = json.dumps(ledger.as_dict()["samples"], ensure_ascii=False)
    assert "rows.jsonl:1" in shown
    assert "rows.jsonl:2" in shown


def test_notes_are_said_once() -> None:
    ledger = Ledger()
    for text in ("a file is empty", "another", "a file is empty"):
        ledger.note(text)
    assert ledger.as_dict()["notes"] == ["a file is empty", "another"]


def test_the_most_common_reason_comes_first() -> None:
    ledger = Ledger()
    for number, reason in enumerate(["no_reply", "too_long", "too_long"]):
        ledger.drop(drop(number, reason))
    assert list(ledger.as_dict()["dropped"]) == ["too_long", "no_reply"]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (Address("a.jsonl", 3), "a.jsonl:3"),
        (Address("a.parquet", 3, "row"), "a.parquet:row 3"),
        (Address("a.json", 0, "item"), "a.json[0]"),
    ],
)
def test_addresses_as_people_read_them(address: Address, shown: str) -> None:
    assert str(address) == shown


def test_what_is_a_document() -> None:
    address = Address("a", 1)
    assert Conversation((Message("text", "a"),), address).is_text
    assert not Conversation((Message("user", "a"), Message("assistant", "b")), address).is_text
    assert not Conversation((Message("assistant", "a"),), address).is_text

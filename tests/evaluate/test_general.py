"""Every kind of check, bad rows with their address, and the general set that comes with the house."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import DataError, SourceNotFoundError
from tutelage.evaluate.checks import CHECKS
from tutelage.evaluate.general import GeneralItem, passes, read_general
from tutelage.evaluate.grading import grade
from tutelage.types import Address

OWN_SET = Path(__file__).resolve().parents[2] / "datasets" / "general.jsonl"

CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    (
        {"kind": "contains_any", "values": ["Paris", "city of light"]},
        ["It is Paris.", "PARIS", "the City of Light!"],
        ["parish", "comparison", "", "Lyon", "city light"],
    ),
    ({"kind": "contains_all", "values": ["red", "blue"]}, ["blue, Red"], ["red", "reddish blue", ""]),
    ({"kind": "excludes", "values": ["no", "C++"]}, ["know", "yes", "C", ""], ["No.", "well, no", "use C++ here"]),
    ({"kind": "regex", "pattern": r"^\d+$"}, ["7", "text\n42"], ["7 apples", "seven"]),
    ({"kind": "max_words", "count": 2}, ["", "one", " one  two "], ["one two three"]),
    ({"kind": "min_words", "count": 2}, ["one two", "one\ntwo three"], ["", "one"]),
    ({"kind": "lines", "min": 2, "max": 3}, ["a\nb", "a\n\n \nb\nc"], ["a", "", "a\nb\nc\nd"]),
    ({"kind": "case", "value": "upper"}, ["LOUD 3!"], ["Loud"]),
    ({"kind": "case", "value": "lower"}, ["quiet 3!"], ["Quiet"]),
    ({"kind": "starts_with", "value": "Dear"}, ["Dear you", "  Dear you"], ["dear you", "My Dear"]),
    ({"kind": "ends_with", "value": "!"}, ["yes!", "yes! \n"], ["yes", "! no"]),
    (
        {
            "kind": "instruction",
            "id": "length_constraints:number_words",
            "arguments": {"num_words": 2, "relation": "at least"},
        },
        ["one two"],
        ["one", ""],
    ),
    ({"kind": "plain_text"}, ["words", "a {b}"], ["", " ", "{}", ' {"a": 1}', "[1]"]),
    (
        {"kind": "equals", "values": ["Paris", " Lutetia "]},
        ["Paris", " Lutetia\n"],
        ["paris", "Paris.", "", "in Paris"],
    ),
    ({"kind": "equals", "values": ["Straße"], "ignore_case": True}, ["STRASSE", "straße"], ["Strase"]),
    ({"kind": "number", "value": 1234}, ["It is $1,234.", "#### 1234\nor 5"], ["1234 or 5", "none", "1234.5"]),
    ({"kind": "number", "value": 0.3, "tolerance": 0.1}, ["0.2", "0.40", "3/10"], ["0.41", "0.19", "30%"]),
    ({"kind": "json"}, ["[1]", " null ", '{"a": 1}'], ["", "a", "{'a': 1}", "1 2"]),
]
ELSEWHERE = {"json_schema", "code"}  # in test_answer_checks.py


def item(*checks: dict[str, Any]) -> GeneralItem:
    models = tuple(CHECKS[check["kind"]].model_validate(check) for check in checks)
    return GeneralItem(Address("general.jsonl", 1), "", "?", models)


def write(folder: Path, *lines: Any) -> str:
    path = folder / "general.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("check", "right", "wrong"), CASES, ids=lambda one: str(one)[:40])
def test_checks(check: dict[str, Any], right: list[str], wrong: list[str]) -> None:
    for reply in right:
        assert passes(item(check), reply), reply
    for reply in wrong:
        assert not passes(item(check), reply), reply


def test_every_kind_is_tried_above() -> None:
    assert {check["kind"] for check, _, _ in CASES} | ELSEWHERE == set(CHECKS)


def test_all_checks_must_hold_and_shares_are_counted() -> None:
    both = item({"kind": "min_words", "count": 2}, {"kind": "ends_with", "value": "!"})

    graded = grade((), [both] * 4, (), ["oh yes!", "yes!", "oh yes", "well, oh yes!"])

    assert graded.outcomes == {"general": [True, False, False, True]}
    assert graded.mean("general") == 0.5


def test_rows_keep_their_line_numbers(tmp_path: Path) -> None:
    row = {"prompt": "Hi", "checks": [{"kind": "plain_text"}], "topic": "greeting"}
    path = write(tmp_path, row, "", row)

    items = read_general(path)

    assert [(str(one.address), one.topic, one.prompt) for one in items] == [
        (f"{path}:1", "greeting", "Hi"), (f"{path}:3", "greeting", "Hi"),
    ]  # fmt: skip


GOOD = {"prompt": "Hi", "checks": [{"kind": "plain_text"}]}


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        "[1]",
        "3",
        {"checks": [{"kind": "plain_text"}]},
        {"prompt": "Hi"},
        {"prompt": "Hi", "checks": None},
        {"prompt": "Hi", "checks": {"kind": "plain_text"}},
        {"prompt": "Hi", "checks": ["plain_text"]},
        {"prompt": "Hi", "checks": [{"kind": "no_such_kind"}]},
        {"prompt": "Hi", "checks": [{"kind": ["regex"]}]},
        {"prompt": "Hi", "checks": [{"kind": "contains_any"}]},
        {"prompt": "Hi", "checks": [{"kind": "lines", "min": 1}]},
    ],
    ids=str,
)
def test_a_bad_row_is_named(tmp_path: Path, bad: Any) -> None:
    path = write(tmp_path, GOOD, bad)

    with pytest.raises(DataError, match="general set cannot be read") as caught:
        read_general(path)

    assert caught.value.where == f"{path}:2"


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": "Hi", "checks": []},
        {"prompt": 3, "checks": [{"kind": "plain_text"}]},
        {"prompt": "Hi", "checks": [{"kind": "regex", "pattern": "("}]},
        {"prompt": "Hi", "checks": [{"kind": "regex", "pattern": 7}]},
        {"prompt": "Hi", "checks": [{"kind": "contains_any", "values": "abc"}]},
        {"prompt": "Hi", "checks": [{"kind": "contains_all", "values": []}]},
        {"prompt": "Hi", "checks": [{"kind": "max_words", "count": "3"}]},
        {"prompt": "Hi", "checks": [{"kind": "case", "value": "title"}]},
        {"prompt": "Hi", "checks": [{"kind": "instruction", "id": "punctuation:no_dot"}]},
        {"prompt": "Hi", "checks": [{"kind": "instruction", "id": "punctuation:no_comma", "arguments": {"n": 1}}]},
        {"prompt": "Hi", "checks": [{"kind": "equals", "values": []}]},
        {"prompt": "Hi", "checks": [{"kind": "number", "value": "3"}]},
        {"prompt": "Hi", "checks": [{"kind": "number", "value": 3, "tolerance": -1}]},
        {"prompt": "Hi", "checks": [{"kind": "code", "tests": "assert f("}]},
        {"prompt": "Hi", "checks": [{"kind": "code", "tests": "f()", "seconds": 0}]},
        {"prompt": "Hi", "checks": [{"kind": "code", "tests": "f()", "isolated": False}]},
        {"prompt": "Hi", "checks": [{"kind": "json_schema"}]},
    ],
    ids=str,
)
def test_a_check_that_could_not_be_asked_is_named_when_read(tmp_path: Path, bad: Any) -> None:
    """Otherwise it passes for anything, or ends the run after the training, without an address."""
    path = write(tmp_path, GOOD, bad)

    with pytest.raises(DataError) as caught:
        read_general(path)

    assert caught.value.where == f"{path}:2"


def test_an_empty_set_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        read_general(write(tmp_path, "", " "))
    with pytest.raises(SourceNotFoundError, match="missing"):
        read_general(str(tmp_path / "none.jsonl"))


def test_a_file_that_is_not_utf8_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "general.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")

    with pytest.raises(DataError):
        read_general(str(path))


def test_our_own_set_loads() -> None:
    items = read_general(str(OWN_SET))

    assert len(items) >= 50
    assert len({one.prompt for one in items}) == len(items)
    assert all(one.topic for one in items)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " \n",
        "{}",
        '{"product": "camera", "category": "refund", "urgent": true, "order": "X0053"}',
        '[{"product": "camera"}]',
        '{"product": null, "category": "other", "urgent": false, "order": null}',
    ],
)
def test_no_item_of_our_set_passes_on_nothing_or_on_the_tasks_answer(reply: str) -> None:
    """A model that has turned into a JSON machine must not look as if it had forgotten nothing."""
    assert [str(one.address) for one in read_general(str(OWN_SET)) if passes(one, reply)] == []


def test_no_single_reply_passes_many_items_of_our_set() -> None:
    items = read_general(str(OWN_SET))

    for reply in ("yes", "Yes.", "no", "I am sorry, but I cannot help with that.", "1 2 3 4 5 6 7 8 9 10", "the " * 50):
        assert sum(passes(item, reply) for item in items) <= 0.1 * len(items), reply

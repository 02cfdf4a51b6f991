"""Marks on a turn, and keys below the columns that nothing reads."""

from __future__ import annotations

import json

import pytest

USER = {"role": "user", "content": "one"}
BAD = {"role": "assistant", "content": "BAD"}
GOOD = [{"role": "user", "content": "two"}, {"role": "assistant", "content": "good"}]


def weights(put, load, mark, **row):
    result = load(put("a.jsonl", json.dumps({"messages": [USER, BAD | mark, *GOOD], **row}) + "\n"))
    assert not result.ledger.dropped, result.ledger.drop_samples
    return [said.weight for said in result.conversations[0].messages if said.role == "assistant"], result.ledger.notes


def drop_of(put, load, turns):
    result = load(put("a.jsonl", json.dumps({"messages": turns}) + "\n"))
    [reason] = result.ledger.dropped
    return reason, result.ledger.drop_samples[reason][0]


@pytest.mark.parametrize(
    "name",
    ["train", "training", "trainable", "loss", "loss_mask", "train_on_turn", "use_loss", "compute_loss", "label",
     "weight", "loss_weight", "loss_scale", "learn", "supervised"],
)  # fmt: skip
def test_r10_a_mark_against_training_keeps_the_turn_as_context(put, load, name):
    value = 0 if name in {"weight", "loss_weight", "loss_scale"} else False
    assert weights(put, load, {name: value}) == ([0.0, None], [])
    assert weights(put, load, {name: 0})[0] == [0.0, None]
    assert weights(put, load, {name: 1})[0] == [1.0, None]
    assert weights(put, load, {name: None})[0] == [None, None]


@pytest.mark.parametrize("name", ["masked", "ignore", "no_loss", "skip_train", "exclude_from_loss", "context_only"])
def test_r10_marks_that_hide(put, load, name):
    assert weights(put, load, {name: True}) == ([0.0, None], [])
    assert weights(put, load, {name: False})[0] == [1.0, None]


def test_r10_marks_are_multiplied_so_that_none_is_lost(put, load):
    assert weights(put, load, {"train": True, "weight": 0.5})[0] == [0.5, None]
    assert weights(put, load, {"weight": 1, "trainable": False})[0] == [0.0, None]
    assert weights(put, load, {"train": True, "weight": 0})[0] == [0.0, None]


@pytest.mark.parametrize(
    "beside", [{"train_turns": [0, 0, 0, 1]}, {"metadata": {"train_turns": [False, False, False, True]}},
               {"metadata": '{"train_turns": [false, false, false, true]}'}],
)  # fmt: skip
def test_a_list_beside_the_turns_says_which_are_trained(put, load, beside):
    assert weights(put, load, {}, **beside)[0] == [0.0, None]
    assert weights(put, load, {}, metadata={"train_turns": None, "id": "7"})[0] == [None, None]


@pytest.mark.parametrize("marks", [[True], [False, True, False, True, True], [False, 2, False, True], "1111"])
def test_a_list_that_does_not_fit_the_turns_is_dropped(put, load, marks):
    row = {"messages": [USER, BAD, *GOOD], "metadata": {"train_turns": marks}}
    result = load(put("a.jsonl", json.dumps(row)))
    assert dict(result.ledger.dropped) == {"unclear_mark": 1}
    detail = result.ledger.drop_samples["unclear_mark"][0].detail
    assert "`metadata.train_turns`" in detail
    assert "each of the 4 turns" in detail


def test_r10_mask_is_read_where_the_row_shows_its_sense(put, load):
    turns = [USER | {"mask": True}, BAD | {"mask": True}, GOOD[0] | {"mask": True}, GOOD[1] | {"mask": False}]
    result = load(put("a.jsonl", json.dumps({"messages": turns})))
    assert [said.weight for said in result.conversations[0].messages] == [None, 0.0, None, 1.0]
    reason, drop = drop_of(put, load, [USER | {"mask": False}, BAD | {"mask": True}, *GOOD])
    assert reason == "unclear_mark"
    assert "write `train`" in drop.detail
    assert str(drop.address).endswith("a.jsonl:1")


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        ({"train_detail": [{"begin_offset": 0, "end_offset": 2, "train": False}]}, "unclear_mark"),
        ({"trainable": "no"}, "wrong_type"),
        ({"loss": 2.31}, "wrong_type"),
        ({"loss_mask": [0, 1, 1]}, "wrong_type"),
        ({"loss_weight": "0"}, "wrong_type"),
        ({"content": [{"type": "text", "text": "BAD", "train": False}]}, "unclear_mark"),
    ],
)
def test_r10_marks_that_cannot_be_followed_drop_the_row(put, load, mark, reason):
    assert drop_of(put, load, [USER, BAD | mark, *GOOD])[0] == reason


def test_r10_a_pair_of_turns_is_marked_as_one(put, load):
    row = {"conversation": [{"human": "a", "assistant": "BAD", "train": False}, {"human": "c", "assistant": "d"}]}
    result = load(put("a.jsonl", json.dumps(row)))
    assert [said.weight for said in result.conversations[0].messages] == [None, 0.0, None, None]


def test_r10_a_column_that_names_the_masked_role(put, load):
    assert weights(put, load, {}, mask="User")[0] == [None, None]
    turns = [{"from": "User", "value": "q"}, {"from": "Assistant", "value": "a", "label": "quality:4"}]
    result = load(put("a.jsonl", json.dumps({"mask": "User", "conversations": turns})))
    assert [said.weight for said in result.conversations[0].messages] == [0.0, None]
    assert result.ledger.notes == [f"{result.conversations[0].address.file}: `label` of a turn is not used"]


def test_r10_keys_that_nothing_reads_are_named_once(put, load):
    turns = [USER | {"timestamp": 3, "empty": None}, BAD | {"feedback": "bad", "tool_calls": None}, *GOOD]
    calls = [{"id": "c", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}]
    parts = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
    more = [{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": calls}]
    path = put("a.jsonl", (json.dumps({"messages": turns + more}) + "\n") * 3)
    result = load(path)
    assert sorted(result.ledger.notes) == [
        f"{path}: `cache_control` of a content part is not used",
        f"{path}: `feedback` of a turn is not used",
        f"{path}: `index` of a call is not used",
        f"{path}: `timestamp` of a turn is not used",
    ]


def test_r10_many_keys_are_not_all_named(put, load):
    rows = [{"messages": [USER, BAD | {f"key{number}": 1}]} for number in range(40)]
    result = load(put("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert len(result.conversations) == 40
    assert len(result.ledger.notes) == 21
    assert result.ledger.notes[-1].endswith("more keys below the columns are not used")


def test_r11_unused_columns_of_a_mixed_file_are_named(put, load):
    pair = {"question": "q", "hint": "h", "answer": "a"}
    rows = [pair, pair, {"messages": GOOD, "hint": None, "origin": "x"}]
    path = put("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert f"{path}: columns not used: hint, origin" in load(path).ledger.notes
    both = [{"messages": GOOD}] * 3 + [{"prompt": "p", "output": "o", "answer": "a"}]
    mixed = put("b.jsonl", "".join(json.dumps(row) + "\n" for row in both))
    assert f"{mixed}: `output` is used where it holds a value, `answer` otherwise" in load(mixed).ledger.notes


def test_r11_a_column_that_one_shape_uses_is_unused_in_another(put, load):
    rows = [{"prompt": "p", "completion": "c"}] * 2 + [{"messages": GOOD, "history": [["a", "b"]]}]
    path = put("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert f"{path}: columns not used: history" in load(path).ledger.notes


@pytest.mark.parametrize("weight", [10**400, -(10**400), 1e308 * 10, 10**4200])
def test_d3_absurd_weights_drop_the_row(put, load, weight):
    reason, drop = drop_of(put, load, [USER, BAD | {"weight": weight}])
    assert reason == "wrong_type"
    assert len(drop.detail) < 200


def test_d3_absurd_numbers_elsewhere_drop_the_row(put, load):
    good = json.dumps({"messages": GOOD})
    lines = [
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "train": 1e999}]}',
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "name": NaN}]}',
        '{"prompt": "q", "completion": "a", "tools": [{"name": "f", "parameters": {"minimum": 1e999}}]}',
    ]
    result = load(put("a.jsonl", "\n".join([good, *lines, good])))
    assert len(result.conversations) == 2
    assert dict(result.ledger.dropped) == {"wrong_type": 2, "bad_tools": 1}


def weights_of_row(put, load, **beside):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 0.5},
             {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]  # fmt: skip
    rows = [{"messages": turns} | beside, {"prompt": "q", "completion": "a"} | beside]
    result = load(put("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert not result.ledger.dropped
    weights = [[message.weight for message in row.messages] for row in result.conversations]
    return weights, " ".join(note for note in result.ledger.notes if "mixed" not in note)


@pytest.mark.parametrize(
    ("beside", "factor"),
    [({"weight": 0}, 0.0), ({"loss_weight": 0.5}, 0.5), ({"sample_weight": "0.5"}, 0.5), ({"train": False}, 0.0),
     ({"trainable": "false"}, 0.0), ({"is_masked": True}, 0.0), ({"train": 0}, 0.0),
     ({"weight": 2, "loss": True}, 2.0)],
)  # fmt: skip
def test_r10_a_mark_on_the_whole_row_weighs_its_replies(put, load, beside, factor):
    weights, notes = weights_of_row(put, load, **beside)
    assert weights == [[None, 0.5 * factor, None, factor], [None, factor]]
    for name in beside:
        assert f"`{name}` of a row says how much its replies are trained" in notes


def test_r10_a_mark_that_leaves_the_row_as_it_is(put, load):
    for beside in ({"train": True}, {"weight": 1.0}, {"ignore": False}, {"train": None}, {"loss_mask": []}):
        assert weights_of_row(put, load, **beside)[0] == [[None, 0.5, None, None], [None, None]]


@pytest.mark.parametrize("beside", [{"weight": "72 kg"}, {"loss": 0.0}, {"train": "express"}, {"weight": True}])
def test_r10_a_column_that_only_has_the_name_of_a_mark_is_named(put, load, beside):
    weights, notes = weights_of_row(put, load, **beside)
    assert weights == [[None, 0.5, None, None], [None, None]]
    assert f"`{next(iter(beside))}` of a row is not used" in notes


@pytest.mark.parametrize(
    ("beside", "reason"),
    [({"weight": -1}, "wrong_type"), ({"loss_mask": [0, 1]}, "unclear_mark"), ({"mask": True}, "unclear_mark"),
     ({"label": False}, "unwanted_reply")],
)  # fmt: skip
def test_r10_a_mark_on_the_row_that_cannot_be_read_costs_it(put, load, beside, reason):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    lines = [json.dumps({"messages": turns} | more) for more in ({}, beside)]
    assert dict(load(put("a.jsonl", "\n".join(lines))).ledger.dropped) == {reason: 1}


def test_r10_a_column_named_for_a_field_is_no_mark(put, load):
    path = put("a.jsonl", json.dumps({"prompt": "q", "train": "false"}))
    result = load(path, columns={"prompt": "prompt", "response": "train"})
    assert result.texts == [[("user", "q"), ("assistant", "false")]]
    assert result.conversations[0].messages[1].weight is None

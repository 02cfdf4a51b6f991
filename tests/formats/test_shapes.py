from __future__ import annotations

import json

import pytest

from tutelage.errors import ConfigError, DataError
from tutelage.types import Message

SAID = [("user", "q"), ("assistant", "a")]


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "q", "output": "a"}, SAID),
        ({"instruction": "q", "input": "", "response": "a"}, SAID),
        ({"instruction": "q", "input": "i", "output": "a"}, [("user", "q\n\ni"), ("assistant", "a")]),
        ({"instruction": "q", "context": "i", "response": "a"}, [("user", "q\n\ni"), ("assistant", "a")]),
        ({"instruction": "", "input": "i", "target": "a"}, [("user", "i"), ("assistant", "a")]),
        ({"instruction": "q", "output": "a", "system": "s"}, [("system", "s"), *SAID]),
        ({"instruction": "q", "output": "a", "system": " ", "history": None}, SAID),
        ({"instruction": "q", "output": "a", "history": [["x", "y"]]}, [("user", "x"), ("assistant", "y"), *SAID]),
        ({"query": "q", "response": "a", "history": '[["x", "y"]]'}, [("user", "x"), ("assistant", "y"), *SAID]),
        ({"prompt": "q", "completion": "a"}, SAID),
        ({"question": "q", "answer": "a"}, SAID),
        ({"input": "q", "target": "a"}, SAID),
        ({"text": " a document "}, [("text", " a document ")]),
        ({"document": "d"}, [("text", "d")]),
        ({"content": "d"}, [("text", "d")]),
        ({"instruction": "q", "output": "a", "text": "### q ### a"}, SAID),
        ({"prompt": "q", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, SAID),
        ({"messages": json.dumps([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}])}, SAID),
    ],
)
def test_shapes_are_found(put, load, row, expected):
    assert load(put("a.jsonl", lines(row))).texts == [expected]


def test_prompt_and_completion_may_be_messages(put, load):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "q"}]
    row = {"prompt": turns, "completion": [{"role": "assistant", "content": "a"}]}
    for completion in (row["completion"], row["completion"][0], "a"):
        [conversation] = load(put("a.jsonl", lines(row | {"completion": completion}))).conversations
        assert conversation.messages == (
            Message("user", "x"),
            Message("assistant", "y", weight=0.0),
            Message("user", "q"),
            Message("assistant", "a"),
        )


def test_a_mixed_file_is_read_row_by_row(put, load):
    path = put("a.jsonl", lines({"question": "q", "answer": "a"}, {"text": "d"}, {"question": "q", "answer": "a"}))
    result = load(path)
    assert result.texts == [SAID, [("text", "d")], SAID]
    assert any("2 rows are prompt_completion, 1 text" in note for note in result.ledger.notes)


def test_a_row_of_the_files_shape_with_a_hole_is_no_other_shape(put, load):
    whole = {"instruction": "q", "output": "a", "text": "t"}
    result = load(put("a.jsonl", lines(whole, whole | {"output": None}, whole)))
    assert result.texts == [SAID, SAID]
    assert dict(result.ledger.dropped) == {"missing_field": 1}


def test_no_shape_lists_the_keys(put, load):
    with pytest.raises(DataError, match="No row fits a known shape") as caught:
        load(put("a.jsonl", lines({"frage": "q", "antwort": "a"}, {"frage": "q"})))
    said = str(caught.value)
    assert "frage (2), antwort (1)" in said
    assert "alpaca, sharegpt, messages, prompt_completion, text" in said
    assert "--columns prompt=KEY,response=KEY" in said


def test_a_turn_alone_is_no_document(put, load):
    with pytest.raises(DataError, match="No row fits"):
        load(put("a.jsonl", lines({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"prompt": "frage", "response": "antwort"}, SAID),
        ({"prompt": "frage", "response": "antwort", "input": "dazu"}, [("user", "q\n\ni"), ("assistant", "a")]),
        ({"prompt": "frage", "response": "antwort", "system": "rolle"}, [("system", "s"), *SAID]),
        ({"messages": "verlauf"}, SAID),
        ({"text": "frage"}, [("text", "q")]),
    ],
)
def test_columns_name_the_fields(put, load, columns, expected):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    row = {"frage": "q", "antwort": "a", "dazu": "i", "rolle": "s", "verlauf": turns, "prompt": "no", "response": "no"}
    assert load(put("a.jsonl", lines(row)), columns=columns).texts == [expected]


def test_a_column_that_is_not_there(put, load):
    with pytest.raises(DataError, match="No row has the column 'frge'") as caught:
        load(put("a.jsonl", lines({"frage": "q", "antwort": "a"})), columns={"prompt": "frge", "response": "antwort"})
    assert "nearest: 'frage'" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": "alpacca"}, "nearest: 'alpaca'"),
        ({"columns": {"promt": "x"}}, "nearest: 'prompt'"),
        ({"columns": {"prompt": "x"}}, "prompt and response"),
        ({"columns": {"messages": "x", "text": "y"}}, "do not make a conversation"),
        ({"columns": {"text": "x"}, "shape": "alpaca"}, "make the shape 'text'"),
    ],
)
def test_settings_that_cannot_work(put, load, options, words):
    with pytest.raises(ConfigError) as caught:
        load(put("a.jsonl", lines({"x": "q", "y": "a"})), **options)
    assert words in str(caught.value)


def test_a_shape_may_be_forced(put, load):
    path = put("a.jsonl", lines({"prompt": "q", "completion": "a", "text": "t"}, {"prompt": "q", "completion": "a"}))
    result = load(path, shape="text")
    assert result.texts == [[("text", "t")]]
    assert dict(result.ledger.dropped) == {"missing_field": 1}
    with pytest.raises(DataError, match="No row fits the shape 'messages'"):
        load(path, shape="messages")


def test_columns_passed_over_are_told(put, load):
    notes = load(put("a.jsonl", lines({"prompt": "q", "question": "x", "answer": "a", "id": 3}))).ledger.notes
    assert any("`prompt` is used" in note for note in notes)
    assert any("columns kept beside the rows, not trained: id" in note for note in notes)

from __future__ import annotations

import json

import pytest

from tests.formats.row_shapes.conftest import ROWS
from tutelage.errors import DataError
from tutelage.types import Message, ToolCall

TIDE = ToolCall("tide", {"port": "Kiel"}, "k1")
KIEL = (Message("user", "Name a port."), Message("assistant", "Kiel."))
BRIEF = Message("system", "Be brief.")


def test_langsmith_examples(shape_rows):
    result = shape_rows("langsmith_example")
    first, second = result.conversations
    assert first.messages == (Message("user", "Tide in Kiel?"), Message("assistant", "", tool_calls=(TIDE,)))
    assert second.messages == KIEL
    assert second.metadata["id"] == "x2"
    assert dict(result.ledger.dropped) == {"unclear_prompt": 1}


def test_only_calls_of_a_model_are_rows_of_langsmith_runs(shape_rows):
    result = shape_rows("langsmith_run")
    [conversation] = result.conversations
    assert conversation.messages == (BRIEF, *KIEL)
    assert dict(result.ledger.dropped) == {"outer_run": 1, "failed_request": 1}


def test_langfuse_items_and_observations(shape_rows):
    result = shape_rows("langfuse_item")
    assert [conversation.messages for conversation in result.conversations] == [KIEL]
    assert dict(result.ledger.dropped) == {"held_out_row": 1}
    result = shape_rows("langfuse_observation")
    assert [conversation.messages for conversation in result.conversations] == [(BRIEF, *KIEL)]
    assert dict(result.ledger.dropped) == {"outer_run": 1, "failed_request": 1}


def test_flat_spans_are_put_in_the_order_of_their_numbers(shape_rows):
    [conversation] = shape_rows("openinference").conversations
    expected = [
        Message("assistant" if n % 2 else "user", f"turn {n}", weight=0.0 if n % 2 else None) for n in range(12)
    ]
    assert conversation.messages == (
        *expected,
        Message("user", "Tide in Kiel?"),
        Message("assistant", None, tool_calls=(TIDE,)),
    )
    assert conversation.tools[0]["function"]["name"] == "tide"
    assert conversation.metadata == {"model": "m-1"}


@pytest.mark.parametrize("name", ["openinference_attributes", "openinference_table", "opentelemetry_attributes"])
def test_spans_with_attributes(shape_rows, name):
    [conversation] = shape_rows(name).conversations
    assert conversation.messages == KIEL


def test_opentelemetry_parts(shape_rows):
    result = shape_rows("opentelemetry")
    [conversation] = result.conversations
    assert conversation.messages == (
        BRIEF,
        Message("user", "Tide in Kiel?"),
        Message("assistant", None, tool_calls=(TIDE,), weight=0.0),
        Message("tool", "low", tool_call_id="k1"),
        Message("assistant", "Low.", reasoning="The table says low."),
    )
    assert conversation.metadata == {"model": "m-1"}
    assert dict(result.ledger.dropped) == {"unfinished_reply": 1}


def test_what_annotators_wrote_is_the_reply_and_nothing_that_was_cancelled_or_predicted(shape_rows):
    result = shape_rows("label_studio")
    assert result.texts == [
        [("user", "Name a port."), ("assistant", "Kiel.")],
        [("user", "Name a port."), ("assistant", "Lübeck.")],
        [("user", "Name a hill."), ("assistant", "Bungsberg.")],
    ]
    assert dict(result.ledger.dropped) == {"no_reply": 1}


def test_a_table_of_spans_saved_as_csv(put, load):
    asked = json.dumps([{"message.role": "user", "message.content": "Name a port."}]).replace('"', '""')
    said = json.dumps([{"message.role": "assistant", "message.content": "Kiel."}]).replace('"', '""')
    columns = ("context.span_id", *(f"attributes.llm.{name}" for name in ("input_messages", "output_messages")))
    header = ",".join((*columns, "attributes.llm.invocation_parameters"))
    result = load(put("spans.csv", f'{header}\n1,"{asked}","{said}",{{}}\n2,,,\n'))
    assert [conversation.messages for conversation in result.conversations] == [KIEL]
    assert dict(result.ledger.dropped) == {"wrong_shape": 1}


def test_only_submitted_responses_count(shape_rows):
    result = shape_rows("argilla")
    assert result.texts == [
        [("user", "Name a port."), ("assistant", "Kiel.")],
        [("user", "Name a port."), ("assistant", "Lübeck.")],
    ]
    assert dict(result.ledger.dropped) == {"no_reply": 1}
    result = shape_rows("argilla_nested")
    assert [conversation.messages for conversation in result.conversations] == [KIEL]
    assert dict(result.ledger.dropped) == {"no_reply": 1}


@pytest.mark.parametrize("name", ["discord", "slack", "whatsapp"])
def test_talks_without_an_assistant_are_refused(load, name):
    with pytest.raises(DataError, match="an assistant whose words are the replies"):
        load(ROWS / f"{name}.jsonl")


def test_a_file_of_plain_text_that_is_a_chat_is_refused(put, load):
    with pytest.raises(DataError, match="WhatsApp"):
        load(put("chat.txt", "[02/01/26, 10:15:22] Ada: hi\n[02/01/26, 10:15:40] Bo: hi\n"))


def test_the_trace_of_data_designer_is_what_the_model_was_asked(shape_rows):
    first, _second = shape_rows("data_designer").conversations
    assert first.messages == (
        Message("system", "You answer in one line."),
        Message("user", "What is the 15th thing to know?"),
        Message("assistant", "Here is answer 19."),
    )
    assert first.metadata == {
        "topic": "ships",
        "category": "ships",  # what a column `topic` is called elsewhere
        "id": "5af0aca2d64648e0a05cf4fe14fbc7d5",
        "quality.Clear": 4,
    }


def test_two_traces_of_data_designer_are_two_conversations_and_none_is_chosen(shape_rows, put, load):
    turns = [{"role": "user", "content": "Name a port."}, {"role": "assistant", "content": "Kiel."}]
    row = {"port__trace": turns, "port": "Kiel.", "tide__trace": turns, "tide": "Kiel."}
    result = shape_rows("data_designer", row)
    assert dict(result.ledger.dropped) == {"unclear_prompt": 1}
    chosen = load(put("two.jsonl", json.dumps(row)), columns={"messages": "tide__trace"})
    assert [conversation.messages for conversation in chosen.conversations] == [KIEL]

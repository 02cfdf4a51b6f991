from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from tests.formats.row_shapes.conftest import ROWS
from tutelage.errors import DataError
from tutelage.types import Message, ToolCall


def test_of_a_preference_the_preferred_list_is_trained_and_the_prompts_replies_are_context(shape_rows):
    [conversation] = shape_rows("openai_preference").conversations
    assert conversation.messages == (
        Message("user", "Name a river."),
        Message("assistant", "The Elbe.", weight=0.0),
        Message("user", "Where does it end?"),
        Message("assistant", "In the North Sea."),
    )
    [conversation] = shape_rows("openai_preference_completion").conversations
    assert conversation.messages == (Message("user", "Name a river."), Message("assistant", "The Elbe."))


def test_gemini_parts_join_and_results_of_functions_are_tool_turns(shape_rows):
    result = shape_rows("vertex_gemini")
    [conversation] = result.conversations
    assert conversation.messages == (
        Message("system", "Answer briefly."),
        Message("user", "Weather in Oslo?"),
        Message("assistant", None, tool_calls=(ToolCall("weather", {"city": "Oslo"}),)),
        Message("tool", '{"degrees": 4}', name="weather"),
        Message("assistant", "Four degrees."),
    )
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    [tool] = conversation.tools
    assert tool["function"] == {"name": "weather", "description": "Weather of a city.", "parameters": parameters}
    assert dict(result.ledger.dropped) == {"unsupported_content": 1}


KIEL = (Message("user", "Name a port."), Message("assistant", "Kiel."))
BRIEF = Message("system", "Be brief.")
TIDE = ToolCall("tide", {"port": "Kiel"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("azure_chat", (BRIEF, *KIEL)),
        ("vertex_chat", (BRIEF, *KIEL)),
        ("bedrock_text", KIEL),
        ("claude_bedrock", (BRIEF, *KIEL)),
        ("cohere", (BRIEF, *KIEL)),
        ("together", KIEL),
        ("databricks", KIEL),
        ("nvidia_customizer", KIEL),
        ("fireworks", (Message("user", "Hi"), Message("assistant", "Hello.", weight=0.0), *KIEL)),
    ],
)
def test_a_vendors_rows_in_a_base_shape(load, name, expected):
    for options in ({}, {"shape": name}):
        [conversation] = load(ROWS / f"{name}.jsonl", **options).conversations
        assert conversation.messages == expected


def test_openais_weights_and_calls(load):
    [conversation] = load(ROWS / "openai_chat.jsonl").conversations
    assert conversation.messages == (
        Message("user", "Hi"),
        Message("assistant", "Hello.", weight=0.0),
        Message("user", "Tide in Kiel?"),
        Message("assistant", None, tool_calls=(replace(TIDE, id="call_1"),)),
        Message("tool", "low", tool_call_id="call_1"),
        Message("assistant", "It is low.", weight=1.0),
    )
    [tool] = conversation.tools
    assert tool["function"]["name"] == "tide"


def test_mistrals_calls_are_joined_by_their_ids(load):
    [conversation] = load(ROWS / "mistral.jsonl").conversations
    assert conversation.messages == (
        Message("user", "Tide in Kiel?"),
        Message("assistant", "", tool_calls=(replace(TIDE, id="a1B2c3D4e"),)),
        Message("tool", "low", name="tide", tool_call_id="a1B2c3D4e"),
        Message("assistant", "Low.", weight=1.0),
    )


def test_mistrals_thinking_is_reasoning(shape_rows):
    [conversation] = shape_rows("mistral_thinking").conversations
    assert conversation.messages == (KIEL[0], replace(KIEL[1], reasoning="Baltic, so Kiel."))


def test_separators_of_the_completions_api_are_no_text(shape_rows):
    result = shape_rows("openai_completions")
    assert result.texts == [
        [("user", "Name a port."), ("assistant", "Kiel")],
        [("user", "Name a lake."), ("assistant", "Como")],
    ]
    assert any("separators" in note for note in result.ledger.notes)


@pytest.mark.parametrize(
    ("name", "reason"), [("reinforcement", "end with the user"), ("pretokenized", "token ids belong to one tokenizer")]
)
def test_rows_without_words_to_train_are_refused(load, name, reason):
    with pytest.raises(DataError, match=reason):
        load(ROWS / f"{name}.jsonl")


def test_reference_answers_can_be_named(put, load):
    row = {"messages": [{"role": "user", "content": "2 + 3?"}], "reference_answer": "5"}
    columns = {"prompt": "messages", "response": "reference_answer"}
    assert load(put("a.jsonl", json.dumps(row)), columns=columns).texts == [[("user", "2 + 3?"), ("assistant", "5")]]


def test_palm_rows(shape_rows):
    [conversation] = shape_rows("vertex_palm").conversations
    assert conversation.messages == KIEL
    [conversation] = shape_rows("vertex_chat_bison").conversations
    assert conversation.messages == (
        BRIEF,
        Message("user", "Name a lake.", weight=0.0),
        Message("assistant", "Como.", weight=0.0),
        *KIEL,
    )


def test_bedrocks_documents_and_blocks(shape_rows, load):
    assert shape_rows("bedrock_pretraining").texts == [[("text", "Kiel has a port.")]]
    result = load(ROWS / "bedrock_converse.jsonl")
    assert [conversation.messages for conversation in result.conversations] == [(BRIEF, *KIEL)]
    assert dict(result.ledger.dropped) == {"unsupported_content": 1}


def test_input_beside_other_columns_is_no_document(put, load):
    with pytest.raises(DataError, match="No row fits a known shape"):
        load(put("a.jsonl", json.dumps({"input": "q", "label": 3})))


def test_only_the_last_reply_is_trained_where_that_is_asked_for(load):
    path = ROWS / "llama_api.jsonl"
    hello = Message("assistant", "Hello.", weight=0.0)
    [conversation] = load(path, shape="llama_api").conversations
    assert conversation.messages == (BRIEF, Message("user", "Hi"), hello, *KIEL)
    [conversation] = load(path).conversations
    assert conversation.messages[2] == Message("assistant", "Hello.")


def test_openpipes_split_is_honored_and_empty_ids_are_none(shape_rows):
    result = shape_rows("openpipe")
    [conversation] = result.conversations
    assert conversation.messages == (Message("user", "Tide in Kiel?"), Message("assistant", None, tool_calls=(TIDE,)))
    assert conversation.metadata["split"] == "TRAIN"
    assert dict(result.ledger.dropped) == {"held_out_row": 1}


def test_of_a_preference_in_messages_the_last_is_the_chosen(shape_rows):
    result = shape_rows("swift_preference")
    [conversation] = result.conversations
    assert conversation.messages == (Message("user", "Hi"), Message("assistant", "Hello.", weight=0.0), *KIEL)
    assert dict(result.ledger.dropped) == {"no_reply": 1}
    [conversation] = shape_rows("swift_preference_messages").conversations
    assert conversation.messages == KIEL


@pytest.mark.parametrize("name", ["kto", "kto_messages"])
def test_replies_that_are_not_wanted_are_dropped(load, name):
    result = load(ROWS / f"{name}.jsonl")
    assert [conversation.messages for conversation in result.conversations] == [KIEL]
    assert dict(result.ledger.dropped) == {"unwanted_reply": 1}

from __future__ import annotations

from msgspec.structs import replace

from tests.formats.row_shapes.conftest import ROWS
from tutelage.types import Message, ToolCall

KEPT = (
    Message("user", "How long does dough rise?"),
    Message("assistant", "About an hour.", reasoning="Warm rooms are faster."),
    Message("user", "And in the fridge?"),
    Message("assistant", "A night."),
)


def test_of_a_chatgpt_export_the_kept_path_is_read(shape_rows):
    [conversation] = shape_rows("chatgpt_export").conversations
    assert conversation.messages == KEPT
    assert conversation.metadata == {"id": "c-1", "model": "m-2", "timestamp": 1700000000.5}


def test_of_all_paths_each_reply_is_trained_once_and_a_cut_one_never(shape_rows):
    first, second, third = shape_rows("chatgpt_export", tree_paths="all").conversations
    assert first.messages == (KEPT[0], Message("assistant", "Ten minutes."))
    assert second.messages == KEPT
    assert third.messages == (
        KEPT[0],
        Message("assistant", "About an hour.", reasoning="Warm rooms are faster.", weight=0.0),
        Message("user", "And with rye?"),
        Message("assistant", "Two ho", weight=0.0),
    )


def test_a_tree_that_cannot_be_walked_is_dropped(shape_rows):
    node = {"message": {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["a"]}}}
    looped = {"mapping": {"a": node | {"parent": "b"}, "b": node | {"parent": "a"}}, "current_node": "a"}
    missing = {"mapping": {"a": node | {"parent": "gone"}}, "current_node": "a"}
    forked = {"mapping": {"a": node | {"parent": None}, "b": node | {"parent": None}}}
    result = shape_rows("chatgpt_export", looped, missing, forked)
    assert dict(result.ledger.dropped) == {"broken_tree": 3}


TIDE = ToolCall("tide", {"port": "Kiel"})
KIEL = (Message("user", "Name a port."), Message("assistant", "Kiel."))
BRIEF = Message("system", "Be brief.")


def test_of_a_claude_export_blocks_and_attachments_are_read_on_the_kept_path(shape_rows):
    result = shape_rows("claude_export")
    [conversation] = result.conversations
    asked = (
        Message("user", "note.txt\n\nKiel, noon\n\nLow or high?"),
        Message("assistant", None, reasoning="Ask the table.", tool_calls=(replace(TIDE, id="t1"),)),
        Message("tool", "low", tool_call_id="t1"),
        Message("assistant", "It is low."),
    )
    assert conversation.messages == (
        *asked,
        Message("user", "Thanks"),
        Message("assistant", "You are welcome."),
    )
    assert conversation.metadata == {"id": "c-1", "timestamp": "2026-01-02T03:04:05Z"}
    assert dict(result.ledger.dropped) == {"unsupported_content": 1}
    other, kept = shape_rows("claude_export", tree_paths="all").conversations
    assert [message.content for message in other.messages[-2:]] == ["Sure?", "Yes."]
    assert [message.weight for message in other.messages if message.role == "assistant"] == [None, None, None]
    assert [message.weight for message in kept.messages if message.role == "assistant"] == [0.0, 0.0, None]


def test_anthropics_results_are_tool_turns(load):
    [conversation] = load(ROWS / "anthropic_messages.jsonl").conversations
    assert conversation.messages == (
        BRIEF,
        Message("user", "Tide in Kiel?"),
        Message("assistant", None, reasoning="Look it up.", tool_calls=(replace(TIDE, id="t1"),)),
        Message("tool", "low", tool_call_id="t1"),
        Message("assistant", "Low."),
    )
    [tool] = conversation.tools
    assert tool["function"]["parameters"] == {"type": "object", "properties": {"port": {"type": "string"}}}


def test_items_of_the_responses_api_are_joined_and_what_was_said_before_is_context(shape_rows):
    result = shape_rows("openai_responses")
    [conversation] = result.conversations
    assert conversation.messages == (
        BRIEF,
        Message("user", "Hi"),
        Message("assistant", "Hello.", weight=0.0),
        Message("user", "Tide in Kiel?"),
        Message("assistant", None, tool_calls=(replace(TIDE, id="k1"),), weight=0.0),
        Message("tool", "low", tool_call_id="k1"),
        Message("assistant", "Low.", reasoning="The table says low."),
    )
    assert conversation.tools[0]["function"]["name"] == "tide"
    assert dict(result.ledger.dropped) == {"unfinished_reply": 1, "unsupported_content": 1}


def test_requests_and_results_of_a_batch_are_joined_whatever_their_order(shape_rows, load):
    result = shape_rows("openai_batch_request")
    assert result.texts == [
        [("user", "Name a port."), ("assistant", "Kiel.")],
        [("user", "Name a lake."), ("assistant", "Como.")],
    ]
    assert result.conversations[0].metadata == {"id": "b2", "model": "m-1"}
    assert result.conversations[0].address.number == 1
    assert dict(result.ledger.dropped) == {"failed_request": 1, "unanswered": 1}
    assert dict(result.ledger.changed) == {"merged": 3}
    assert dict(shape_rows("openai_batch_result").ledger.dropped) == {"unanswered": 1}


def test_each_whole_choice_of_a_log_is_a_conversation(shape_rows):
    result = shape_rows("proxy_log")
    [conversation] = result.conversations
    assert conversation.messages == (Message("user", "Hi"), Message("assistant", "Hello.", weight=0.0), *KIEL)
    assert dict(result.ledger.dropped) == {"unfinished_reply": 1, "unsupported_content": 1}
    [conversation] = shape_rows("litellm_log").conversations
    assert conversation.messages == KIEL
    assert conversation.metadata == {"id": "x", "model": "m-1"}


def test_a_session_of_claude_code_is_one_conversation_along_its_chain(shape_rows):
    result = shape_rows("claude_code_session")
    [conversation] = result.conversations
    calls = (replace(TIDE, id="t1"),)
    assert conversation.messages == (
        Message("user", "Tide in Kiel?"),
        Message("assistant", "One moment.", reasoning="Look it up.", tool_calls=calls),
        Message("tool", "low", tool_call_id="t1"),
        Message("assistant", "Low."),
    )
    assert (conversation.address.number, conversation.metadata) == (2, {"id": "s-1"})
    assert dict(result.ledger.dropped) == {"side_chain": 1, "session_event": 2, "other_path": 1}
    assert dict(result.ledger.changed) == {"merged": 5}
    left, kept = shape_rows("claude_code_session", tree_paths="all").conversations
    assert left.messages[-1] == Message("assistant", "High.")
    assert (kept.messages[1].weight, kept.messages[-1]) == (0.0, Message("assistant", "Low."))


def test_a_session_of_codex_is_read_from_its_items(shape_rows):
    result = shape_rows("codex_session")
    [conversation] = result.conversations
    assert conversation.messages == (
        BRIEF,
        Message("user", "Tide in Kiel?"),
        Message("assistant", None, reasoning="Look it up.", tool_calls=(replace(TIDE, id="k1"),)),
        Message("tool", "low", tool_call_id="k1"),
        Message("assistant", "Low."),
    )
    assert dict(result.ledger.changed) == {"merged": 4}
    assert dict(result.ledger.dropped) == {"session_event": 3}

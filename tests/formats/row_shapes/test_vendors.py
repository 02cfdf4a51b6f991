from __future__ import annotations

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

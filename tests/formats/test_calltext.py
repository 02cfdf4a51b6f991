"""Shapes of agents' data: Hermes, xLAM, Bedrock, Anthropic, KTO, Llama's own roles."""

from __future__ import annotations

import json

import pytest

from tutelage.types import Message, ToolCall

PARAMETERS = {"type": "object", "properties": {"camera_id": {"type": "string"}}, "required": ["camera_id"]}
TOOL = {"type": "function", "function": {"name": "get_feed", "description": "A feed.", "parameters": PARAMETERS}}
SYSTEM = (
    "You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags.\n"
    "<tools>\n[" + str(TOOL) + "]\n</tools>\nFor each function call return a JSON object within <tool_call></tool_call>"
    " tags:\n<tool_call>\n{'arguments': <args-dict>, 'name': <function-name>}\n</tool_call>"
)
SAID = (
    "I look.\n<tool_call>\n{'arguments': {'camera_id': 'it\\'s 1', 'live': True}, 'name': 'get_feed'}\n</tool_call>\n"
    '<tool_call>\n{"name": "get_feed", "arguments": {"camera_id": "2"}}\n</tool_call>'
)
ANSWERED = "<tool_response>\n{'ok': 1}\n</tool_response>\n<tool_response>\nsecond\n</tool_response>\n"


def hermes(**changes):
    turns = {"system": SYSTEM, "human": "Look.", "gpt": SAID, "tool": ANSWERED} | changes
    said = [{"from": role, "value": text} for role, text in turns.items() if text is not None]
    return {"conversations": [*said, {"from": "gpt", "value": "Done."}], "tools": json.dumps([TOOL])}


def kept(put, load, row, **options):
    result = load(put("a.jsonl", json.dumps(row)), **options)
    assert not result.ledger.dropped, result.ledger.drop_samples
    return result


def reason(put, load, row, **options):
    good = {"prompt": "q", "completion": "a", "query": "q", "answers": "a"}
    result = load(put("a.jsonl", json.dumps(good) + "\n" + json.dumps(row)), **options)
    [dropped] = result.ledger.dropped
    drop = result.ledger.drop_samples[dropped][0]
    assert str(drop.address).endswith("a.jsonl:2")
    return dropped, drop.detail


def test_e3_hermes_function_calling(put, load):
    result = kept(put, load, hermes())
    [row] = result.conversations
    assert row.tools == (TOOL,)
    assert row.messages == (
        Message("user", "Look."),
        Message("assistant", "I look.", tool_calls=(
            ToolCall("get_feed", {"camera_id": "it's 1", "live": True}), ToolCall("get_feed", {"camera_id": "2"}),
        )),
        Message("tool", "{'ok': 1}"),
        Message("tool", "second"),
        Message("assistant", "Done."),
    )  # fmt: skip
    assert dict(result.ledger.changed) == {"system_text_removed": 1}
    assert len(result.ledger.notes) == 2


QWEN = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>\n"
    + json.dumps(TOOL)
    + "\n</tools>\n\nFor each function call, "
    "return a json object within <tool_call></tool_call> XML tags:\n<tool_call>\n{}\n</tool_call>"
)


@pytest.mark.parametrize("words", [SYSTEM, QWEN])
@pytest.mark.parametrize("persona", ["You are Luna of the bank. Be kind.", "Luna, e.g. of\nthe bank", "Tools: none!"])
def test_e3_a_persona_beside_the_words_about_tools_stays(put, load, words, persona):
    for text, expected in (
        (f"{persona}\n\n{words}", persona),
        (f"{persona} {words}" if persona[-1] in ".!" else f"{persona}\n{words}", persona),
        (f"{words}\n{persona}", persona),
        (f"Hello.\n{words}\n\n{persona}", f"Hello.\n\n{persona}"),
    ):
        result = kept(put, load, hermes(system=text))
        assert result.texts[0][:2] == [("system", expected), ("user", "Look.")]
        assert dict(result.ledger.changed) == {"system_text_removed": 1}
        [change] = result.ledger.change_samples["system_text_removed"]
        assert persona[:16] not in change.detail


def test_e3_a_persona_between_or_around_marks_in_words(put, load):
    first, rest = SYSTEM.split(". ", 1)
    text = f"{first}. You are Luna. {rest.rsplit(' tags:', 1)[0]} tags. Never guess."
    assert kept(put, load, hermes(system=text)).texts[0][0] == ("system", "You are Luna.\n\nNever guess.")
    mingled = SYSTEM.replace("You are a function calling AI model. You are", "You are Luna,")
    assert reason(put, load, hermes(system=mingled))[0] == "tools_in_text"


def test_e3_results_are_unwrapped_without_tools_too(put, load):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
                        {"role": "tool", "content": "<tool_response>\nx\n</tool_response>"},
                        {"role": "assistant", "content": "b"}]}  # fmt: skip
    assert kept(put, load, row).texts[0][2] == ("tool", "x")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gpt": "<tool_call>\n{'name': open('x')}\n</tool_call>"}, "bad_tool_arguments"),
        ({"gpt": "<tool_call>\n{'name': 'get_feed', 'arguments': {'camera_id': '1'}}"}, "calls_in_text"),
        ({"gpt": SAID + " And now?"}, "calls_in_text"),
        ({"gpt": "<tool_call>{'name': 'f', 'arguments': {'x': '\\ud800'}}</tool_call>"}, "lone_surrogate"),
        ({"tool": "<tool_response>x</tool_response> and more"}, "calls_in_text"),
        ({"system": "Be kind.\n<tools>\n[{'name': 'f'}]\n</tools>"}, "tools_in_text"),
    ],
)
def test_e3_hermes_rows_that_cannot_be_read_are_refused_by_name(put, load, changes, expected):
    assert reason(put, load, hermes(**changes))[0] == expected


def test_e3_without_tools_such_words_are_words(put, load):
    row = {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "q"},
                        {"role": "assistant", "content": SAID}]}  # fmt: skip
    assert kept(put, load, row).texts == [[("system", SYSTEM), ("user", "q"), ("assistant", SAID)]]


def test_e3_many_openings_take_no_square_time(put, load):
    text = "<tool_call>" * 60_000
    assert reason(put, load, hermes(gpt=text))[0] == "calls_in_text"
    assert reason(put, load, hermes(tool="<tool_response>" * 60_000 + " " * 60_000))[0] == "calls_in_text"


def xlam(answers):
    table = {
        "query": {"description": "The words.", "type": "str"},
        "limit": {"description": "How many.", "type": "int, optional", "default": "10"},
        "names": {"description": "Which.", "type": "List[str], optional"},
        "sizes": {"description": "Sizes.", "type": "Dict[str, int]"},
        "maybe": {"description": "Any.", "type": "Optional[float]"},
        "any": {"description": "Any.", "type": "Union[str, int]"},
    }
    tools = json.dumps([{"name": "search", "description": "Search.", "parameters": table}])
    return {"id": 1, "query": "Find it.", "answers": answers, "tools": tools}


CALLS = [{"name": "search", "arguments": {"query": "x"}}, {"name": "search", "arguments": {"query": "y"}}]
XLAM = {"columns": {"prompt": "query", "response": "answers"}}


@pytest.mark.parametrize("answers", [json.dumps(CALLS), CALLS])
def test_e3_xlam_by_its_columns(put, load, answers):
    [row] = kept(put, load, xlam(answers), **XLAM).conversations
    calls = (ToolCall("search", {"query": "x"}), ToolCall("search", {"query": "y"}))
    assert row.messages == (Message("user", "Find it."), Message("assistant", None, tool_calls=calls))
    parameters = row.tools[0]["function"]["parameters"]
    kinds = {name: value.get("type") for name, value in parameters["properties"].items()}
    assert kinds == {"query": "string", "limit": "integer", "names": "array", "sizes": "object", "maybe": "number",
                     "any": None}  # fmt: skip
    assert parameters["required"] == ["query", "sizes", "any"]
    assert parameters["properties"]["limit"]["default"] == "10"


def test_e3_xlam_rows_that_cannot_be_read(put, load):
    assert reason(put, load, xlam("[]"), **XLAM)[0] == "empty_reply"
    strange = xlam(json.dumps(CALLS)) | {"tools": '[{"name": "f", "parameters": {"x": {"type": "gadget, optional"}}}]'}
    dropped, detail = reason(put, load, strange, **XLAM)
    assert dropped == "bad_tools"
    assert "gadget" in detail


@pytest.mark.parametrize("name", ["label", "kto_tag"])
@pytest.mark.parametrize("shape", [{"prompt": "q", "completion": "bad"}, {"messages": [
    {"role": "user", "content": "q"}, {"role": "assistant", "content": "bad"}]}])  # fmt: skip
def test_e3_replies_that_are_not_wanted_are_not_trained(put, load, name, shape):
    for value in (False, "False"):
        dropped, detail = reason(put, load, shape | {name: value})
        assert dropped == "unwanted_reply"
        assert name in detail
    assert not kept(put, load, shape | {name: True}).ledger.notes


def test_e3_a_label_that_is_a_class_is_a_column_like_any_other(put, load):
    result = kept(put, load, {"prompt": "q", "completion": "a", "label": 3})
    assert result.ledger.notes[0].endswith("`label` of a row is not used")
    assert kept(put, load, {"text": "some words", "label": False}).conversations[0].is_text


BEDROCK = {
    "schemaVersion": "bedrock-conversation-2024",
    "system": [{"text": "Be brief."}],
    "messages": [
        {"role": "user", "content": [{"text": "Weather?"}, {"cachePoint": {"type": "default"}}]},
        {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "I ask.", "signature": "s"}}},
            {"text": "A moment."},
            {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Bonn"}}},
        ]},
        {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"json": {"rain": True}}],
                                                     "status": "success"}}]},
        {"role": "assistant", "content": [{"text": "It rains."}]},
    ],
    "toolConfig": {"tools": [{"toolSpec": {"name": "weather", "description": "w",
                                          "inputSchema": {"json": PARAMETERS}}}]},
}  # fmt: skip


def test_e3_bedrock_conversations(put, load):
    [row] = kept(put, load, BEDROCK).conversations
    assert row.tools == ({"type": "function", "function": {"name": "weather", "description": "w",
                                                           "parameters": PARAMETERS}},)  # fmt: skip
    assert row.messages == (
        Message("system", "Be brief."),
        Message("user", "Weather?"),
        Message("assistant", "A moment.", "I ask.", (ToolCall("weather", {"city": "Bonn"}, "t1"),)),
        Message("tool", '{"rain": true}', tool_call_id="t1"),
        Message("assistant", "It rains."),
    )


@pytest.mark.parametrize("block", [{"image": {"format": "png"}}, {"document": {"name": "x"}}, {"video": {}}])
def test_e3_bedrock_blocks_that_are_no_text_are_refused_by_name(put, load, block):
    row = {"messages": [{"role": "user", "content": [{"text": "q"}, block]}, {"role": "assistant", "content": "a"}]}
    dropped, detail = reason(put, load, row)
    assert dropped == "unsupported_content"
    assert next(iter(block)) in detail


def test_r27_results_that_anthropic_writes_as_parts(put, load):
    turns = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "I ask.", "signature": "s"},
                                          {"type": "tool_use", "id": "t1", "name": "weather", "input": {"a": 1}},
                                          {"type": "tool_use", "id": "t2", "name": "weather", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "rain"},
                                     {"type": "tool_result", "tool_use_id": "t2", "content": [
                                         {"type": "text", "text": "s"}, {"type": "text", "text": "un"}]},
                                     {"type": "text", "text": "Well?"}]},
        {"role": "assistant", "content": "Rain."},
    ]  # fmt: skip
    tools = [{"name": "weather", "input_schema": PARAMETERS}]
    result = kept(put, load, {"system": [{"type": "text", "text": "Brief."}], "messages": turns, "tools": tools})
    [row] = result.conversations
    assert row.messages[0] == Message("system", "Brief.")
    assert row.messages[3:6] == (
        Message("tool", "rain", tool_call_id="t1"),
        Message("tool", "sun", tool_call_id="t2"),
        Message("user", "Well?"),
    )
    assert row.tools == ({"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},)
    picture = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "image", "source": {}}]}
    bad = [turns[0], turns[1], {"role": "user", "content": [picture]}, turns[3]]
    assert reason(put, load, {"messages": bad})[0] == "unsupported_content"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"rain": True, "city": "Köln", "none": None}, '{"rain": true, "city": "Köln", "none": null}'),
        ([1, 2], "[1, 2]"), ([{"a": 1}], '[{"a": 1}]'), (5, "5"), (False, "false"), ([], "[]"), ({}, "{}"),
        (["a", "b"], "ab"), ([{"type": "text", "text": "x"}], "x"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("role", ["tool", "ipython", "observation"])
def test_r27_what_a_tool_gave_back_may_be_any_json(put, load, role, content, text):
    turns = [
        {"role": "user", "content": "q"},
        {"role": role, "content": content},
        {"role": "assistant", "content": "a"},
    ]
    assert kept(put, load, {"messages": turns}).texts[0][1] == ("tool", text)


def test_r27_call_ids_may_be_numbers(put, load):
    turns = [{"role": "user", "content": "q"},
             {"role": "assistant", "tool_calls": [{"id": 7, "function": {"name": "f"}}]},
             {"role": "tool", "tool_call_id": 7.0, "content": "x"}, {"role": "assistant", "content": "a"}]  # fmt: skip
    messages = kept(put, load, {"messages": turns}).conversations[0].messages
    assert (messages[1].tool_calls[0].id, messages[2].tool_call_id) == ("7", "7")

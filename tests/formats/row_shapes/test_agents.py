"""Numbers 85 to 96."""

from __future__ import annotations

import pytest

from tests.formats.row_shapes.spoken import TIN, reply, result, system, user
from tutelage.errors import DataError
from tutelage.types import ToolCall

OSLO = ToolCall("weather", {"city": "Oslo"})
ROME = ToolCall("weather", {"city": "Rome"})
NO_ACCESS = system("You are a helpful assistant, with no access to external functions.")
CALLED = (user("Weather in Oslo?"), reply(None, OSLO), result("cold"), reply("Cold."))
RUN = (
    system("You fix bugs."),
    user("The lamp stays off."),
    reply("I look.", ToolCall("bash", {"command": "ls"}, "c1")),
    result("lamp.py", name="bash", tool_call_id="c1"),
    reply("It is fixed."),
)
SHELL = (user("You may run commands."), reply("Ok.", weight=0.0), user("How many files?"))

BASE = {
    "glaive_toolcall": [CALLED, TIN],
    "hermes_function_calling": [CALLED],
    "apigen_mt": [
        (
            system("# Policy\nNever book twice."),
            user("Seat 4, please."),
            reply(None, ToolCall("book", {"seat": 4})),
            result('{"ok": true}'),
            reply("Seat 4 is yours."),
        )
    ],
    "agent_instruct": [(*SHELL, reply("Act: ls | wc -l", weight=1.0))],
}

READ = {
    "glaive_v2": (
        [
            (
                system("You are a helpful assistant."),
                user("Weather in L'Aquila?"),
                reply("I look.", ToolCall("weather", {"city": "L'Aquila"})),
                result('{"degrees": 4}', name="weather"),
                reply("Four degrees."),
            ),
            (NO_ACCESS, *TIN),
        ],
        {"bad_tool_arguments": 1},
    ),
    "xlam": ([(user("Weather in Oslo and Rome?"), reply(None, OSLO, ROME))], {"empty_reply": 1}),
    "toolace": (
        [
            (
                system("Today is Monday."),
                user("Weather in Oslo and Rome?"),
                reply(
                    None,
                    ToolCall("Get Weather", {"city": "Oslo, by the sea", "days": [1, 2], "exact": True}),
                    ToolCall("Get Weather", {"city": "Rome"}),
                ),
                result('{"degrees": 4}'),
                result('{"degrees": 20}'),
                reply("Four and twenty degrees."),
            )
        ],
        {"calls_in_text": 1},
    ),
    "function_calling_chatml": (
        [
            (
                system("You are a helpful assistant."),
                user("Weather in Oslo?"),
                reply(None, OSLO),
                result('{"degrees": 4}', name="weather"),
                reply("Four degrees."),
            ),
            (NO_ACCESS, *TIN),
        ],
        {},
    ),
    "agent_instruct_text": ([(*SHELL, reply("Act: echo 'a'", weight=1.0))], {}),
    "toolbench_speakers": (
        [
            (user("Plan: ask for the weather."), reply("Action: weather")),
            (user("Plan: answer."), reply("It is cold.")),
        ],
        {},
    ),
    "swe_agent": (
        [
            (system("You fix bugs."), user("Demo: ls"), user("The lamp stays off."), reply("I open lamp.py.")),
            (
                system("You fix bugs."),
                user("Demo: ls"),
                user("The lamp stays off."),
                reply("I open lamp.py.", weight=1.0),
            ),
        ],
        {"unresolved_run": 1},
    ),
    "openhands": ([RUN], {"unresolved_run": 1}),
    "resolved_messages": ([RUN], {"unresolved_run": 2}),
    "swe_smith": ([RUN], {"unresolved_run": 1}),
}

TOOLS = {
    "glaive_toolcall": [["weather"], []],
    "hermes_function_calling": [["weather"]],
    "apigen_mt": [["book"]],
    "agent_instruct": [[]],
    "glaive_v2": [["weather"], []],
    "xlam": [["weather"]],
    "toolace": [["Get Weather"]],
    "function_calling_chatml": [["weather", "news"], []],
    "openhands": [["bash"]],
    "resolved_messages": [["bash"]],
}


def names(conversations):
    return [[tool["function"]["name"] for tool in conversation.tools] for conversation in conversations]


@pytest.mark.parametrize("name", BASE)
def test_shapes_that_are_a_base_shape(base_rows, name):
    outcome = base_rows(name)
    assert [conversation.messages for conversation in outcome.conversations] == BASE[name]
    assert names(outcome.conversations) == TOOLS[name]
    assert not outcome.ledger.dropped


@pytest.mark.parametrize("name", READ)
def test_shapes_with_a_reader(shape_rows, name):
    expected, dropped = READ[name]
    outcome = shape_rows(name)
    assert [conversation.messages for conversation in outcome.conversations] == expected
    assert names(outcome.conversations) == TOOLS.get(name, [[]] * len(expected))
    assert dict(outcome.ledger.dropped) == dropped


@pytest.mark.parametrize("name", ["bfcl_questions", "bfcl_answers"])
def test_the_leaderboards_files_are_refused(rows_path, load, name):
    with pytest.raises(DataError, match=r"curate\.decontaminate\.evaluations"):
        load(rows_path(name))


def test_parameters_of_xlam_become_a_schema(shape_rows):
    [tool] = shape_rows("xlam").conversations[0].tools
    assert tool["function"]["parameters"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Its name."},
            "unit": {"type": "string", "default": "C"},
        },
        "required": ["city"],
    }


def glaive(chat, system_text="SYSTEM: You are a helpful assistant."):
    return {"system": system_text, "chat": chat}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (glaive("USER: a\n\n\nASSISTANT: b\n\n\nASSISTANT: c"), "unclear_turns"),
        (glaive("USER: a\n\n\nASSISTANT: <functioncall> weather"), "bad_tool_arguments"),
        (glaive("USER: a\n\n\nASSISTANT: b", 'SYSTEM: Here is a thing: {"name": "f"}'), "tools_in_text"),
        (glaive("USER: a\n\n\nASSISTANT: b", 'SYSTEM: x {"name": "f"'), "bad_tools"),
    ],
)
def test_texts_of_glaive_that_cannot_be_told_are_dropped(shape_rows, row, reason):
    assert dict(shape_rows("glaive_v2", row).ledger.dropped) == {reason: 1}


def toolace(system_text, *said):
    turns = [{"from": "user" if index % 2 == 0 else "assistant", "value": text} for index, text in enumerate(said)]
    return {"system": system_text, "conversations": turns}


EXPERT = 'You are an expert in composing functions. [{"name": "f(x) plus", "description": "d", "parameters": {}}]'


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (toolace("You are an expert in composing functions. No list.", "q", "a"), "bad_tools"),
        (toolace(f"{EXPERT} Only call the second function.", "q", "a"), "tools_in_text"),
        (toolace(EXPERT, "q", "[f(x) plus(a=1, b)]"), "calls_in_text"),
        (toolace(EXPERT, "q", "[f(x) plus(a=open)]"), "calls_in_text"),
        (toolace(EXPERT, "q", "[f(x) plus(a=[1)]"), "calls_in_text"),
    ],
)
def test_texts_of_toolace_that_cannot_be_told_are_dropped(shape_rows, row, reason):
    assert dict(shape_rows("toolace", row).ledger.dropped) == {reason: 1}


def test_names_of_functions_may_hold_brackets_and_values_any_literal(shape_rows):
    row = toolace(EXPERT, "q", """[f(x) plus(a='it\\'s )', $top=-1.5, from={"b": [None, true]}), f(x) plus()]""")
    [conversation] = shape_rows("toolace", row).conversations
    first, second = conversation.messages[1].tool_calls
    assert first == ToolCall("f(x) plus", {"a": "it's )", "$top": -1.5, "from": {"b": [None, True]}})
    assert second == ToolCall("f(x) plus", {})


def test_a_run_that_does_not_say_how_it_ended_is_read(shape_rows):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert shape_rows("openhands", {"trajectory": turns}).texts == [[("user", "q"), ("assistant", "a")]]

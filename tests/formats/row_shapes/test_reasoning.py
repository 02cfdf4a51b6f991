"""Numbers 77 to 84."""

from __future__ import annotations

import pytest

from tests.formats.row_shapes.spoken import context, reply, result, system, user
from tutelage.types import ToolCall

SIX = user("What is 6 times 7?")

BASE = {
    "mixture_of_thoughts": [(SIX, reply("<think>\n6*7=42\n</think>\n\n42"))],
    "open_thoughts_3": [(SIX, reply("<think>6*7=42</think>\n\n42"))],
    "numina_math": [(SIX, reply("42"))],
    "nemotron_chat_3": [
        (
            system("Be brief."),
            user("What is tin?"),
            context("Metal.", reasoning="A metal."),
            user("In one word more?"),
            reply("Soft metal.", reasoning="Two words."),
        )
    ],
}

READ = {
    "openr1_math": ([(SIX, reply("<think>6*7=42</think>\n42"))], {"unverified_reply": 1}),
    "open_thoughts_v1": ([(SIX, reply("42", reasoning="6*7=42"))], {"unclear_reasoning": 1}),
    "s1k": (
        [
            (SIX, reply("It is 42.", reasoning="6*7=42")),
            (user("What is 1 plus 1?"), reply("2", reasoning="one and one")),
        ],
        {"unverified_reply": 1},
    ),
    "s1k_first": ([(SIX, reply("It is 42.", reasoning="6*7=42"))], {}),
    "llama_nemotron": (
        [
            (
                system("detailed thinking on"),
                user("What is tin?"),
                context("A food."),
                user("Really?"),
                reply("<think>tin is Sn</think>\nA metal."),
            )
        ],
        {"two_system_texts": 1},
    ),
    "nemotron_post_training": (
        [
            (
                user("Weather in Oslo?"),
                reply("", ToolCall("weather", {"city": "Oslo"}, "c1")),
                result("cold"),
                reply("Cold."),
            )
        ],
        {},
    ),
    "answer_tags": ([(system("Be brief."), SIX, reply("<think>6*7=42</think>\n\n42"))], {}),
    "answer_tags_messages": ([(SIX, reply("<think>6*7=42</think>\n\n42"))], {}),
    "answer_tags_output": ([(user("Multiply.\n\n6 and 7"), reply("<think>6*7=42</think>\n\n42"))], {}),
    "reasoning_columns": ([(SIX, reply("42", reasoning="6*7=42"))], {}),
}


@pytest.mark.parametrize("name", BASE)
def test_shapes_that_are_a_base_shape(is_base_shape, name):
    is_base_shape(name, BASE[name])


@pytest.mark.parametrize("name", READ)
def test_shapes_with_a_reader(becomes, name):
    becomes(name, *READ[name])


def test_a_judge_may_find_right_what_a_rule_could_not(shape_rows):
    row = {
        "problem": "p",
        "generations": ["a", "b"],
        "is_reasoning_complete": [True, True],
        "correctness_math_verify": [False, False],
        "correctness_llama": [False, True],
    }
    [conversation] = shape_rows("openr1_math", row).texts
    assert conversation == [("user", "p"), ("assistant", "b")]
    unverified = {key: value for key, value in row.items() if not key.startswith("correctness")}
    assert dict(shape_rows("openr1_math", unverified).ledger.dropped) == {"unverified_reply": 1}


def test_which_model_wrote_the_reply_is_metadata(shape_rows):
    models = [conversation.metadata["model"] for conversation in shape_rows("s1k").conversations]
    assert models == ["deepseek", "gemini"]


def test_a_system_text_that_asks_for_other_marks_stays(shape_rows):
    said = [
        {"from": "user", "value": "q"},
        {
            "from": "assistant",
            "value": "<|begin_of_thought|>t<|end_of_thought|><|begin_of_solution|>s<|end_of_solution|>",
        },
    ]
    [conversation] = shape_rows("open_thoughts_v1", {"system": "Be kind.", "conversations": said}).conversations
    assert conversation.messages == (system("Be kind."), user("q"), reply("s", reasoning="t"))


def test_tools_and_license_of_a_mix_are_each_rows_own(shape_rows):
    [conversation] = shape_rows("nemotron_post_training").conversations
    assert [tool["function"]["name"] for tool in conversation.tools] == ["weather"]
    assert conversation.metadata["license"] == "CC BY 4.0"
    assert shape_rows("llama_nemotron").conversations[0].metadata == {
        "license": "cc-by-4.0",
        "model": "m-r",
        "category": "chat",
    }


def test_a_reply_without_the_tags_stays_as_it_is(shape_rows):
    tagged = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "<think>t</think><answer>a</answer>"},
        ]
    }
    plain = {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>t</think>a <answer>"}]
    }
    outcome = shape_rows("answer_tags_messages", tagged, tagged, plain)
    assert outcome.texts == [[("user", "q"), ("assistant", "<think>t</think>\n\na")]] * 2
    assert dict(outcome.ledger.dropped) == {"wrong_shape": 1}

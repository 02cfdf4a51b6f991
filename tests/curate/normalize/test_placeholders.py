"""Placeholders are seen where nobody filled them in, not where they are the subject."""

from __future__ import annotations

import pytest

from tutelage.curate.normalize.placeholders import bracket_slot, unfilled_variable, without_empty_input
from tutelage.types import Address, Conversation, Message


def row(prompt: str, reply: str) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", reply)), Address("a.jsonl", 1))


@pytest.mark.parametrize(
    "empty", ["No input", "<noinput>", "N/A", "no input.", "Not applicable", "nan", "No Input Required"]
)
def test_an_input_that_says_there_is_none_goes(empty: str) -> None:
    assert without_empty_input(f"Name three colors.\n\n{empty}") == "Name three colors."


@pytest.mark.parametrize(
    "prompt",
    [
        "N/A",
        "What does N/A mean?",
        "Classify the value.\nN/A",
        "Translate.\n\nNo input was given to me.",
        "Is it so?\n\nNo",
    ],
)
def test_other_prompts_stay(prompt: str) -> None:
    assert without_empty_input(prompt) == prompt


@pytest.mark.parametrize(
    "reply", ["I am {{name}}, made by {{ author }}.", "您好，我是 {{name}}。", "Hello {{user.first_name}}!"]
)
def test_a_variable_that_was_never_filled_in_is_seen(reply: str) -> None:
    assert unfilled_variable(row("Who are you?", reply)) is not None


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("Write a Jinja line.", "Hello {{ name }}"),
        ("Use {{name}} in it.", "Hello {{name}}"),
        ("How do I greet?", "Write `{{ name }}` there."),
        ("Give me the formula.", r"\frac{{a}}{{b}} and x^{{n}}"),
        ("Format a dict.", "f'{{{key}}}'"),
    ],
)
def test_templates_code_and_latex_are_no_variable_left(prompt: str, reply: str) -> None:
    assert unfilled_variable(row(prompt, reply)) is None


def test_slots_in_brackets() -> None:
    assert bracket_slot("Best,\n[Your Name]") == "[Your Name]"
    assert bracket_slot("see [name](https://example.org) and [1]") is None
    assert bracket_slot("a[name] = 2 and [date]: x") in (None, "[name]")

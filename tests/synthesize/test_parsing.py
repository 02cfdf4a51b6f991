"""Replies are read in the asked form or not at all; every item is taken or dropped with its reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.synthesize.parsing import INPUT, INSTRUCTION, OUTPUT, Item, parse_items, parse_yes_or_no
from tutelage.types import Address, Drop

TRIPLE = (INSTRUCTION, INPUT, OUTPUT)


def item(number: int, instruction: str = "Name the capital.", given: str = "Peru", output: str = "Lima") -> str:
    return f"{number}. Instruction: {instruction}\n{number}. Input: {given}\n{number}. Output: {output}\n###\n"


def reasons(text: str, *, most: int = 20) -> list[str]:
    """`taken`, or why not, for each item."""
    found = parse_items(text, TRIPLE, request="request 1", most=most)
    return ["taken" if isinstance(one, Item) else one.reason for one in found]


def test_whole_items_are_taken_with_their_numbers() -> None:
    found = parse_items(item(1) + "\n" + item(2, given="<none>", output="a\n\nb"), TRIPLE, request="request 7")
    assert found == [
        Item(Address("request 7", 1, "item"), {INSTRUCTION: "Name the capital.", INPUT: "Peru", OUTPUT: "Lima"}),
        Item(Address("request 7", 2, "item"), {INSTRUCTION: "Name the capital.", INPUT: "", OUTPUT: "a\n\nb"}),
    ]
    assert str(found[0].address) == "request 7[1]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["no_item"]),
        ("I cannot help with that.", ["no_item"]),
        ("###\n###\n", ["no_item"]),
        ("**1. Instruction:** a b c d\n###", ["no_item"]),
        (item(1).removesuffix("###\n"), ["no_end_mark"]),  # where a token limit cut
        (item(1) + item(2)[:-9], ["taken", "no_end_mark"]),
        (item(1).removesuffix("###\n") + item(2), ["taken", "taken"]),  # the next number closes it as well
        (item(1).removesuffix("###\n") + item(3), ["no_end_mark"]),
        (item(1) + item(3) + item(4), ["taken", "wrong_number", "taken"]),
        (item(2), ["wrong_number"]),
        (item(1) + item(1), ["taken", "wrong_number"]),
        (item(1) + item(2) + item(3), ["taken", "taken", "beyond_asked"]),
        ("1. Instruction: a\n1. Output: b\n###", ["wrong_parts"]),
        ("1. Instruction: a\n1. Output: b\n1. Input: c\n###", ["wrong_parts"]),
        ("1. Instruction: a\n1. Input: c\n1. Output: b\n1. Output: d\n###", ["wrong_parts"]),
        (item(1, output=""), ["empty_part"]),
        (item(1, instruction="  "), ["empty_part"]),
        (item(1) + "I hope these help!", ["text_after_end"]),
        (
            item(1, output="one\n###\ntwo") + item(2),
            ["text_after_end", "taken"],
        ),  # only half of the output would be taken
        ("Sure, here they are:\n\n" + item(1), ["taken"]),
        ("<think>\n" + item(1) + "no, others\n</think>\n" + item(1, output="Quito"), ["taken"]),
        ("```\n" + item(1) + "```", ["taken"]),
        (item(1).replace("\n", "\r\n"), ["taken"]),
    ],
)
def test_what_is_not_in_the_form_is_dropped_with_its_reason(text: str, expected: list[str]) -> None:
    assert reasons(text, most=2 if "beyond_asked" in expected else 20) == expected


def test_a_number_inside_a_text_ends_nothing() -> None:
    output = "It costs\n20.5 dollars\n20. That is the price.\n2. Then pay."
    (found,) = parse_items(item(1, output=output), TRIPLE, request="request 1")
    assert isinstance(found, Item)
    assert found.parts[OUTPUT] == output


@pytest.mark.parametrize("tail", ["two\n###\n", "two\n"])
def test_an_item_that_may_go_on_behind_its_mark_is_never_taken(tail: str) -> None:
    first, second = parse_items(item(1, output="one") + tail + item(2), TRIPLE, request="request 1")
    assert isinstance(first, Drop)
    assert first.reason == "text_after_end"
    assert isinstance(second, Item)


def test_items_may_begin_at_another_number() -> None:
    text = "9. Instruction: Write a poem about spring.\n###\n10. Instruction: Count to ten in French.\n###"
    found = parse_items(text, (INSTRUCTION,), request="request 1", first=9, most=8)
    assert [one.parts[INSTRUCTION] for one in found if isinstance(one, Item)] == [
        "Write a poem about spring.",
        "Count to ten in French.",
    ]


def test_a_list_that_was_to_go_on_may_begin_anew_and_nowhere_else() -> None:
    text = "1. Instruction: Write a poem.\n2. Instruction: Count to ten.\n3. Instruction: cut off he"
    found = parse_items(text, (INSTRUCTION,), request="request 1", first=9, most=2)
    assert [one.parts[INSTRUCTION] for one in found if isinstance(one, Item)] == ["Write a poem.", "Count to ten."]
    assert [one.reason for one in found if isinstance(one, Drop)] == ["beyond_asked"]
    (drop,) = parse_items("2. Instruction: Write.\n###", (INSTRUCTION,), request="request 1", first=9)
    assert isinstance(drop, Drop)
    assert drop.reason == "wrong_number"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Yes", True), ("no.", False), ("<think>yes?</think>\nNo", False), (" YES ", True)],
)
def test_yes_or_no(text: str, expected: bool) -> None:
    assert parse_yes_or_no(text, address=Address("request 1", 1, "item")) is expected


@pytest.mark.parametrize("text", ["", "Yes and no", "It is not a classification task.", "Yes, it is"])
def test_any_other_answer_is_no_verdict(text: str) -> None:
    found = parse_yes_or_no(text, address=Address("request 1", 1, "item"))
    assert isinstance(found, Drop)
    assert found.reason == "no_verdict"


LINES = [*("1. Instruction: a", "1. Input: b", "1. Output: c"), *("2. Instruction: d", "2. Input:", "2. Output: e")]


@given(st.text(max_size=400) | st.lists(st.sampled_from([*LINES, "###", "", "x"])).map("\n".join))
def test_any_text_is_read_and_what_is_taken_stands_in_it_closed(text: str) -> None:
    found = parse_items(text, TRIPLE, request="request 1")
    assert found
    for one in found:
        if isinstance(one, Item):
            assert list(one.parts) == list(TRIPLE)
            assert one.parts[OUTPUT]
            after = text.split(f"{one.address.number}. Output:", 1)[1]
            ends = ("###", f"{one.address.number + 1}. Instruction:")
            assert any(line.strip().startswith(ends) for line in after.splitlines())

"""The eight loose variants and the four accuracies, counted by hand."""

from __future__ import annotations

import pytest

from tutelage.evaluate.instructions.accuracy import follows_loosely, instruction_accuracy, loose_variants
from tutelage.evaluate.instructions.instruction import Instruction
from tutelage.evaluate.instructions.kinds import instruction_of

QUOTED = instruction_of("startend:quotation", {})
NO_COMMA = instruction_of("punctuation:no_comma", {})
NO_CAT = instruction_of("keywords:forbidden_words", {"forbidden_words": ["cat"]})


def test_eight_variants() -> None:
    assert loose_variants("Sure!\n*a*\nb\nBye") == (
        "Sure!\n*a*\nb\nBye", "*a*\nb\nBye", "Sure!\n*a*\nb", "*a*\nb",
        "Sure!\na\nb\nBye", "a\nb\nBye", "Sure!\na\nb", "a\nb",
    )  # fmt: skip


@pytest.mark.parametrize("reply", ['Sure!\n"a"', '"a"\nBye', 'Sure!\n"a"\nBye', '**"a"**', 'Sure!\n*"a"*\nBye'])
def test_a_loose_verdict_forgives_lines_around_and_asterisks(reply: str) -> None:
    assert not QUOTED.follows(reply)
    assert follows_loosely(QUOTED, reply)


@pytest.mark.parametrize("reply", ["", "one line, with a comma", "Sure!"])
def test_nothing_left_of_a_reply_follows_nothing(reply: str) -> None:
    """Without its first line the reply is empty, and an empty text has no comma."""
    assert follows_loosely(NO_COMMA, reply) is (reply == "Sure!")


def test_four_accuracies() -> None:
    prompts: list[list[Instruction]] = [[QUOTED, NO_COMMA], [NO_CAT], [NO_CAT, NO_COMMA, QUOTED], [NO_COMMA]]
    replies = ['Sure, here:\n"a"', "a cat", '"dog"', "a"]

    accuracy = instruction_accuracy(prompts, replies)

    assert accuracy.prompt_strict == 2 / 4
    assert accuracy.prompt_loose == 3 / 4
    assert accuracy.instruction_strict == 4 / 7
    assert accuracy.instruction_loose == 6 / 7


def test_a_reply_for_each_prompt() -> None:
    with pytest.raises(ValueError, match="shorter"):
        instruction_accuracy([[QUOTED], [QUOTED]], ["a"])

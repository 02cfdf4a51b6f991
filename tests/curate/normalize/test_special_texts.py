"""Control tokens in letters at the edges of a text, and tags of reasoning without their other half."""

from __future__ import annotations

import pytest

from tutelage.curate.normalize.reasoning import Unmendable, mend_reasoning
from tutelage.curate.normalize.special_texts import special_texts, without_end_tokens
from tutelage.types import Message


@pytest.mark.parametrize("token", special_texts("end"))
def test_an_end_token_in_letters_goes(token: str) -> None:
    assert without_end_tokens(f"Business{token}") == "Business"
    assert without_end_tokens(f"Business {token}\n{token}\n") == "Business"


@pytest.mark.parametrize("token", special_texts("begin"))
def test_a_beginning_token_in_letters_goes(token: str) -> None:
    assert without_end_tokens(f"{token} Business") == "Business"


@pytest.mark.parametrize(
    "text",
    [
        "The token `<|endoftext|>` ends it.",
        "It ends in `<|endoftext|>`",
        "<s>was</s> now and <s>old</s>",
        "Write <s>gone</s>",
        "a < b > c",
        "[EOS] stands first here.",
        "A list: [1, 2]",
        "  spaces stay  ",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert without_end_tokens(text) == text


def reply(content: str, reasoning: str | None = None) -> Message:
    return Message("assistant", content, reasoning=reasoning)


def test_before_a_lone_closing_tag_stands_the_reasoning() -> None:
    assert mend_reasoning(reply("two and two\n</think>\n\nFour.")) == reply("Four.", "two and two")


@pytest.mark.parametrize("content", ["</think>\n\nFour.", "<think>\n\n</think>\n\nFour."])
def test_an_empty_block_goes(content: str) -> None:
    assert mend_reasoning(reply(content)) == reply("Four.")


def test_a_closing_tag_behind_a_reply_whose_reasoning_stands_apart_goes() -> None:
    assert mend_reasoning(reply("Four.\n</think>", "sum")) == reply("Four.", "sum")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<think>\ntwo and two, then", "reasoning_unfinished"),
        ("only thoughts\n</think>", "reasoning_tags_unclear"),
        ("<think>a</think>b</think>c", "reasoning_tags_unclear"),
        ("a</think>b</think>c", "reasoning_tags_unclear"),
        ("Then <think> is written.", "reasoning_tags_unclear"),
    ],
)
def test_what_cannot_be_mended_in_one_way_is_dropped(content: str, reason: str) -> None:
    mended = mend_reasoning(reply(content))
    assert isinstance(mended, Unmendable)
    assert mended.reason == reason
    assert "<" in mended.detail


@pytest.mark.parametrize(
    "content",
    [
        "<think>\nsum\n</think>\n\nFour.",
        "The model writes `</think>` at the end.",
        "```\n<think>\n```\nshows it.",
        "a < b, and I think so.",
        "",
    ],
)
def test_pairs_and_talk_of_tags_stay(content: str) -> None:
    message = reply(content)
    assert mend_reasoning(message) is message

"""Blocks of reasoning at the end of a prompt."""

from __future__ import annotations

import pytest

from tutelage.render.chat_template.reasoning import (
    OpenBlock,
    contains_pieces,
    has_reasoning_tags,
    open_block_at_end,
    strip_empty_block,
    text_before_closed_block,
)

TAGS = [
    *(("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>")),
    *(("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>")),
]


@pytest.mark.parametrize(("tag", "closing"), TAGS)
@pytest.mark.parametrize("gap", ["", "\n", " ", "\n\n"])
def test_a_block_at_the_end_of_a_prompt_is_open(tag: str, closing: str, gap: str) -> None:
    assert open_block_at_end(f"<|im_start|>assistant\n{tag}{gap}") == OpenBlock(tag, closing, gap)


@pytest.mark.parametrize(
    "text", ["", "a", "<think>\nx", "<think>\n\n</think>\n\n", "think>", "<thin", "<think", "</think>"]
)
def test_a_block_that_is_closed_or_followed_by_words_is_not_open(text: str) -> None:
    assert open_block_at_end(text) is None


def test_only_the_last_block_counts() -> None:
    assert open_block_at_end("<think>\nx\n</think>\n\n[THINK]") == OpenBlock("[THINK]", "[/THINK]", "")


def test_a_tag_on_a_line_of_its_own_closes_on_one_of_its_own() -> None:
    assert OpenBlock("<think>", "</think>", "\n").close(" hm \n") == "hm\n</think>\n\n"
    assert OpenBlock("<think>", "</think>", "").close(" hm \n") == "hm</think>"


class TestContinued:
    LINES = OpenBlock("<think>", "</think>", "\n")

    def test_the_tag_that_the_prompt_has_is_not_said_again(self) -> None:
        assert self.LINES.continuation("<think>\nhm\n</think>\n\nyes") == "hm\n</think>\n\nyes"

    def test_white_space_before_the_tag_and_another_gap_are_no_matter(self) -> None:
        assert self.LINES.continuation(" \n<think> hm</think>yes") == "hm</think>yes"

    @pytest.mark.parametrize(
        "content", ["yes", "<think>\nhm", "x <think>hm</think>", "[THINK]hm[/THINK]", "hm</think>y", ""]
    )
    def test_content_that_does_not_open_and_close_the_block_is_left_alone(self, content: str) -> None:
        assert self.LINES.continuation(content) is None


class TestClosed:
    @pytest.mark.parametrize("block", ["<think>\n\n</think>\n\n", "<think></think>", "[THINK][/THINK]\n"])
    def test_what_stands_before_a_closed_block_keeps_its_white_space(self, block: str) -> None:
        assert text_before_closed_block(f"assistant\n{block}") == "assistant\n"

    @pytest.mark.parametrize("text", ["assistant\n", "<think>\n", "<think></think>x", ""])
    def test_there_may_be_none(self, text: str) -> None:
        assert text_before_closed_block(text) is None

    def test_a_block_with_words_is_no_empty_block(self) -> None:
        assert strip_empty_block("<think>\nhm\n</think>\n\nyes") == "<think>\nhm\n</think>\n\nyes"
        assert strip_empty_block("<think>\n\n</think>\n\nyes") == "yes"


class TestPieces:
    WORDS = "<think>hm</think>yes"

    @pytest.mark.parametrize("text", ["<think>\nhm\n</think>\n\nyes", "a <think> hm </think> yes b"])
    def test_pieces_in_their_order_are_held(self, text: str) -> None:
        assert contains_pieces(text, self.WORDS)

    @pytest.mark.parametrize("text", ["yes", "<think>yes</think>hm", "hm yes", "<think>hm</think>no"])
    def test_a_missing_or_moved_piece_is_seen(self, text: str) -> None:
        assert not contains_pieces(text, self.WORDS)

    def test_words_without_tags_have_no_pieces(self) -> None:
        assert not has_reasoning_tags("hm")
        assert not contains_pieces("hm", "hm")

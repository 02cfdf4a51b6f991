"""Ids on either side of the border between prompt and reply."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.judge import NAMED, TOKENIZERS, tokenizer_of
from tutelage.render import Tokenizer
from tutelage.render.prompt_boundary import decoded_after, reply_ids

PROMPTS = (
    "<s>user\nhi\n",
    "a:",
    "a: ",
    "a:\n\n",
    "ASSISTANT:",
    "[INST] a [/INST]",
    "<|im_start|>assistant\n",
    "🙂",
    "e",
    "日",
)
REPLIES = ("yes", " yes", "\nyes", "\n\nyes", "  yes", "\u0301", "🙂", "\u200d👧", "本", "", "\n", " ", "s<|im_end|>")


def loaded(kind: str) -> Tokenizer:
    fast = tokenizer_of(kind)
    return Tokenizer(fast, NAMED, frozenset({fast.token_to_id("</s>")}), fast.get_vocab_size(), {}, Path())


def behind(tokenizer: Tokenizer, prompt: str, reply: str) -> tuple[list[int], list[int] | None]:
    served, whole = tokenizer.encode([prompt, prompt + reply])
    return served, reply_ids(tokenizer, served, whole, reply)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_of_the_prompt_stay_and_the_reply_says_its_text(kind: str, prompt: str) -> None:
    tokenizer = loaded(kind)
    found = 0
    for reply in REPLIES:
        served, ids = behind(tokenizer, prompt, reply)
        if ids is None:
            continue
        found += 1
        assert tokenizer_of(kind).decode(served + ids, skip_special_tokens=False).endswith(reply)
        assert decoded_after(tokenizer, [(served, ids)]) == [reply]
    assert found >= len(REPLIES) - 2


@pytest.mark.parametrize("prompt", ["a:\n\n", "assistant\n\n"])
def test_white_space_that_words_would_cut_otherwise_stays_as_served(prompt: str) -> None:
    tokenizer = loaded("gpt2")
    served, ids = behind(tokenizer, prompt, "yes")
    whole = tokenizer.encode([prompt + "yes"])[0]
    assert whole[: len(served)] != served, "this tokenizer has no such rule: the test is about nothing"
    assert ids == tokenizer.encode(["yes"])[0]


def test_letters_that_would_merge_over_the_border_do_not() -> None:
    tokenizer = loaded("unsplit")
    served, ids = behind(tokenizer, "the ans", "wer")
    assert tokenizer.encode(["the answer"])[0][: len(served)] != served
    assert ids == tokenizer.encode(["wer"])[0]


def test_a_reply_that_cannot_be_said_has_no_ids() -> None:
    tokenizer = loaded("lossy")
    served = tokenizer.encode(["a"])[0]
    assert reply_ids(tokenizer, served, [], "B") is None


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(prompt=st.text(max_size=8), reply=st.text(max_size=8))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_whatever_is_said_is_read_back(kind: str, prompt: str, reply: str) -> None:
    tokenizer = loaded(kind)
    served, ids = behind(tokenizer, f"<s>user\n{prompt}:", reply)
    if ids is None:
        return
    fast = tokenizer_of(kind)
    whole = fast.decode(served + ids, skip_special_tokens=False)
    before = fast.decode(served, skip_special_tokens=False)
    assert whole.startswith(before)
    assert decoded_after(tokenizer, [(served, ids)])[0] == whole[len(before) :]
    if not kind.startswith("space"):
        assert whole[len(before) :] == reply

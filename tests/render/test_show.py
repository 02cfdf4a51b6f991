from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from served import pair, proven, renderer_of, talk

from tutelage.render import Tokenizer
from tutelage.render.show import CONTEXT, STOP, TRAINED, coloured, coloured_rows, token_texts
from tutelage.types import Address, Example

LETTERS = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=30)


def plain(ids: list[int]) -> Example:
    return Example(Address("a.jsonl", 1), 0, np.asarray(ids, dtype=np.int32), np.zeros(len(ids), dtype=np.float32), ())


@given(text=st.one_of(LETTERS, st.text("👩🏽‍🚀é日\n ", max_size=12)))
@settings(deadline=None)
def test_the_texts_of_the_tokens_are_the_text(tiny_tokenizer_folder: Path, text: str) -> None:
    tokenizer = Tokenizer.load(tiny_tokenizer_folder)
    ids = tokenizer.encode([text])[0]
    shown = token_texts(plain(ids), tokenizer)
    assert len(shown) == len(ids)
    assert "".join(shown) == text


def test_a_character_of_several_tokens_stands_at_its_last(tiny_tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.load(tiny_tokenizer_folder)
    assert token_texts(plain(tokenizer.encode(["a🙂b"])[0]), tokenizer) == ["a", "", "", "", "🙂", "b"]


def test_colours(chatml_folder: Path) -> None:
    renderer = renderer_of(chatml_folder)
    (example,) = proven(renderer, talk(*pair("hi [bold]", "yes 🙂")))
    text = coloured(example, renderer.tokenizer)
    assert text.plain == "<|im_start|>user\nhi [bold]<|im_end|>\n<|im_start|>assistant\nyes 🙂<|im_end|>"
    words = {style: "".join(text.plain[span.start : span.end] for span in text.spans if span.style == style)
             for style in (TRAINED, CONTEXT, STOP)}  # fmt: skip
    assert words[TRAINED] == "yes 🙂"
    assert words[STOP] == "<|im_end|>"
    assert words[CONTEXT] == "<|im_start|>user\nhi [bold]<|im_end|>\n<|im_start|>assistant\n"


def test_plain_values_for_a_page(chatml_folder: Path) -> None:
    renderer = renderer_of(chatml_folder)
    examples = proven(renderer, talk(*pair("a", "b")))
    (row,) = coloured_rows(examples, renderer.tokenizer)
    assert row["address"] == "rows.jsonl:1"
    assert [token["id"] for token in row["tokens"]] == examples[0].ids.tolist()
    assert [token["weight"] for token in row["tokens"]] == examples[0].weights.tolist()
    assert [token["text"] for token in row["tokens"] if token["stop"]] == ["<|im_end|>"]

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tests.support.serving_oracle import pair, proven, renderer_of, talk
from tutelage.render import Tokenizer
from tutelage.render.token_text import (
    ASCII_MARKERS,
    CONTEXT,
    MARKERS,
    STOP,
    TRAINED,
    TokenTexts,
    colored,
    colored_rows,
    has_color,
    markers_for,
    token_texts,
    visible,
)
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


LINES = ["The customer asks for the blue lamp, please.", "do not , isn't it . two  spaces", "one\n  two"] * 3


def _byte_fallback() -> FastTokenizer:
    """As Llama 2: a mark for spaces, one put before the text, bytes for letters that have no token."""
    fast = FastTokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    fast.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    fast.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False))
    return fast


def _leading_space() -> FastTokenizer:
    """As T5: the space before a word is part of it."""
    fast = FastTokenizer(models.Unigram())
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<unk>", "<s>"], unk_token="<unk>", show_progress=False
    )
    fast.train_from_iterator(LINES, trainer)
    return fast


def _word_pieces() -> FastTokenizer:
    """As BERT: the decoder puts spaces between words and takes them away before some signs."""
    fast = FastTokenizer(models.WordPiece(unk_token="[UNK]"))
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]", "[CLS]"], show_progress=False)
    fast.train_from_iterator(LINES, trainer)
    return fast


def _bytes() -> FastTokenizer:
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer, fast.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    fast.train_from_iterator([*LINES, "é日本🙂 é日本🙂"], trainer)
    return fast


KINDS = {
    "byte fallback": _byte_fallback,
    "leading space": _leading_space,
    "word pieces": _word_pieces,
    "bytes": _bytes,
}


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    fast = KINDS[kind]()
    return Tokenizer(fast, {}, frozenset({0}), fast.get_vocab_size(), {}, Path("made-in-the-test"))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_any_ids_of_any_tokenizer_have_texts_that_are_the_decoded_sequence(kind: str, data: Any) -> None:
    """Also ids that no text encodes to: halves of letters, runs of bytes that are no letters."""
    tokenizer = tokenizer_of(kind)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=40))
    texts = TokenTexts(tokenizer).of(ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.one_of(LETTERS, st.text("👩🏽‍🚀é日\n .,'do", max_size=20)))
@settings(deadline=None, max_examples=100)
def test_any_text_in_any_tokenizer_keeps_its_letters(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode([text])[0]
    assert "".join(TokenTexts(tokenizer).of(ids)) == tokenizer.decode(ids)


def test_letters_made_of_bytes_stand_at_their_last_token() -> None:
    tokenizer = tokenizer_of("byte fallback")
    shown = TokenTexts(tokenizer).of(tokenizer.encode(["the €€"])[0])
    assert shown[-6:] == ["", "", "€", "", "", "€"]
    assert "".join(shown[:-6]) == "the "


def test_a_space_belongs_to_the_token_that_has_it() -> None:
    tokenizer = tokenizer_of("leading space")
    (first, second) = tokenizer.encode(["the", "a the"])
    assert "".join(TokenTexts(tokenizer).of(first)) == "the"
    assert "".join(TokenTexts(tokenizer).of(second)[-len(first) :]) == " the"


class CountingTokenizer(Tokenizer):
    """Counts the ids that it is asked to decode."""

    asked: list[int]

    def decode(self, ids: Any) -> str:
        self.asked.append(len(ids))
        return super().decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_the_work_is_linear_in_the_length(kind: str) -> None:
    fast = tokenizer_of(kind).fast
    tokenizer = CountingTokenizer(fast, {}, frozenset({0}), fast.get_vocab_size(), {}, Path("made-in-the-test"))
    object.__setattr__(tokenizer, "asked", [])
    ids = np.random.default_rng(7).integers(0, tokenizer.vocabulary_size, 4000).tolist()
    assert "".join(TokenTexts(tokenizer).of(ids)) == tokenizer.fast.decode(ids, skip_special_tokens=False)
    assert sum(tokenizer.asked) < 16 * len(ids) + 4 * tokenizer.vocabulary_size


def test_colours(chatml_folder: Path) -> None:
    renderer = renderer_of(chatml_folder)
    (example,) = proven(renderer, talk(*pair("hi [bold]", "yes 🙂")))
    text = colored(example, renderer.tokenizer)
    assert text.plain == "<|im_start|>user\nhi [bold]<|im_end|>\n<|im_start|>assistant\nyes 🙂<|im_end|>"
    words = {style: "".join(text.plain[span.start : span.end] for span in text.spans if span.style == style)
             for style in (TRAINED, CONTEXT, STOP)}  # fmt: skip
    assert words[TRAINED] == "yes 🙂"
    assert words[STOP] == "<|im_end|>"
    assert words[CONTEXT] == "<|im_start|>user\nhi [bold]<|im_end|>\n<|im_start|>assistant\n"


def test_plain_values_for_a_page(chatml_folder: Path) -> None:
    renderer = renderer_of(chatml_folder)
    examples = proven(renderer, talk(*pair("a", "b")))
    (row,) = colored_rows(examples, renderer.tokenizer)
    assert row["address"] == "rows.jsonl:1"
    assert [token["id"] for token in row["tokens"]] == examples[0].ids.tolist()
    assert [token["weight"] for token in row["tokens"]] == examples[0].weights.tolist()
    assert [token["text"] for token in row["tokens"] if token["stop"]] == ["<|im_end|>"]


def marked(folder: Path, **options: Any) -> str:
    renderer = renderer_of(folder)
    (example,) = proven(renderer, talk(*pair("hi", "yes\nno"), *pair("so", "do")))
    return colored(example, renderer.tokenizer, **options).plain


def test_signs_say_without_colour_what_is_trained(chatml_folder: Path) -> None:
    start, end = "<|im_start|>", "<|im_end|>"
    assert marked(chatml_folder, markers=MARKERS) == (
        f"{start}user\nhi{end}\n{start}assistant\n⟦yes\nno{end}■⟧\n{start}user\nso{end}\n{start}assistant\n⟦do{end}■⟧"
    )
    assert marked(chatml_folder, markers=ASCII_MARKERS).endswith("assistant\n[[do<|im_end|>{stop}]]")
    assert "⟦" not in marked(chatml_folder)


def test_every_id_stands_behind_its_token(chatml_folder: Path) -> None:
    renderer = renderer_of(chatml_folder)
    (example,) = proven(renderer, talk(*pair("hi", "yes\nno")))
    shown = colored(example, renderer.tokenizer, id_markers=MARKERS).plain
    ids = [int(part.split("⟩")[0]) for part in shown.split("⟨")[1:]]
    assert ids == example.ids.tolist()
    newline = renderer.tokenizer.encode(["\n"])[0][0]
    assert f"↵⟨{newline}⟩\n" in shown


@pytest.mark.parametrize("text", ["\x1b[2J", "\r", "\u202e", "\x07", "\ud800"])
def test_text_of_a_row_cannot_steer_the_terminal(text: str) -> None:
    assert text not in visible(f"a{text}b")
    assert all(category(one) not in ("Cc", "Cf", "Cs") for one in visible(f"a{text}b", line_ends=False))


def test_line_ends_are_marked_where_wanted() -> None:
    assert visible("a\n\tb") == "a↵\n⇥\tb"
    assert visible("a\n\tb", line_ends=False) == "a\n\tb"


def test_colour_needs_a_terminal_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not has_color(Console(file=io.StringIO()))
    assert has_color(Console(file=io.StringIO(), force_terminal=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_color(Console(file=io.StringIO(), force_terminal=True))


@pytest.mark.parametrize(
    ("encoding", "markers"), [("utf-8", MARKERS), ("ascii", ASCII_MARKERS), ("latin-1", ASCII_MARKERS)]
)
def test_markers_are_those_that_can_be_written(encoding: str, markers: Any) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert markers_for(Console(file=stream)) == markers

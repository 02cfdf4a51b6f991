"""Piecewise encoding gives the ids of whole encoding, or it is not used."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tutelage.model.embedded import embedded_models
from tutelage.model.locate import model_folder
from tutelage.render.segment_cache import SegmentEncoder
from tutelage.render.word_cache import CUTTING_PATTERNS, GPT2_PATTERN, WordEncoder

MATERIAL = Path(__file__).resolve().parents[2].parent / "shared/material/tokenizers"
PUBLISHED = ("gpt-neox-20b", "laion-pythia-cut", "torchtune")
CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "hello  world\n\nhello again",
    "naïve café 🙂 123",
    "a    b\n\n    c\n    d",
] * 9
CONTROL = ("<|start|>", "<|end|>", "<s>", "<|start|>x", "\n\n##")

needs_embedded = pytest.mark.skipif(
    importlib.util.find_spec(embedded_models()["smollm2-135m"]["package"]) is None,
    reason="the embedded model's package is not installed",
)


def trained(
    pre: Any, *, normalizer: Any = None, added: Sequence[AddedToken] | None = None, unigram: bool = False
) -> Tokenizer:
    """A small tokenizer with control tokens of which one begins another and one is mostly white space."""
    tokenizer = Tokenizer(
        models.Unigram() if unigram else models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    tokenizer.pre_tokenizer, tokenizer.normalizer = pre, normalizer
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<unk>"]
    trainer = (
        trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
        if unigram
        else trainers.BpeTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in CONTROL])
    if added:
        tokenizer.add_tokens(list(added))
    return tokenizer


def metaspace(scheme: str) -> Callable[[], Tokenizer]:
    return lambda: trained(pre_tokenizers.Metaspace(prepend_scheme=scheme, split=scheme != "never"))


CUT: dict[str, Callable[[], Tokenizer]] = {
    "byte level": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "byte level with a prefix space": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "metaspace first": metaspace("first"),
    "metaspace always": metaspace("always"),
    "metaspace never": metaspace("never"),
    "unigram": lambda: trained(pre_tokenizers.Metaspace(), unigram=True),
    "prepending normalizer": lambda: trained(
        pre_tokenizers.Split("zz", "isolated"),
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    ),
    "lower case": lambda: trained(
        pre_tokenizers.Whitespace(),
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), normalizers.Lowercase()]),
        added=[AddedToken("Fox", normalized=True), AddedToken("lazy dog", normalized=True)],
    ),
}
CUT_AT_WORDS: dict[str, Callable[[], Tokenizer]] = {
    f"words by {name}": lambda pattern=pattern, normalizer=normalizer: trained(
        pre_tokenizers.Sequence(
            [
                *([pre_tokenizers.Split(Regex(r"\p{N}"), "isolated")] if normalizer is None else []),
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
        normalizer=normalizer,
    )
    for (name, pattern), normalizer in zip(
        enumerate(sorted(CUTTING_PATTERNS)), cycle((None, normalizers.NFC())), strict=False
    )
}
CUT |= CUT_AT_WORDS
NOT_AT_WORDS: dict[str, Callable[[], Tokenizer]] = {
    "an unknown pattern": lambda: trained(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\p{L}+ \p{L}+|."), "isolated"), pre_tokenizers.ByteLevel(False, True, False)]
        )
    ),
    "a known pattern whose matches are cut out": lambda: trained(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(GPT2_PATTERN), "removed", True), pre_tokenizers.ByteLevel(False, True, False)]
        )
    ),
    "digits alone": lambda: trained(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), pre_tokenizers.ByteLevel(False, True, False)]
        )
    ),
    "a normalized token": lambda: trained(
        pre_tokenizers.ByteLevel(False), added=[AddedToken("lazy dog", normalized=True)]
    ),
    "a normalizer": lambda: trained(pre_tokenizers.ByteLevel(False), normalizer=normalizers.Replace("o ", "e")),
}
CUT |= NOT_AT_WORDS
UNSAFE: dict[str, Callable[[], Tokenizer]] = {
    name: lambda flag=flag: trained(
        pre_tokenizers.ByteLevel(add_prefix_space=False), added=[AddedToken("<tool>", normalized=False, **{flag: True})]
    )
    for name, flag in {"strips left": "lstrip", "strips right": "rstrip", "whole words": "single_word"}.items()
}


@cache
def tokenizer_named(name: str) -> Tokenizer:
    if name == "smollm2":
        return Tokenizer.from_file(str(model_folder("smollm2-135m") / "tokenizer.json"))
    if name in PUBLISHED:
        return Tokenizer.from_file(str(MATERIAL / f"{name}.tokenizer.json"))
    return (CUT | UNSAFE)[name]()


@cache
def encoder_named(name: str) -> SegmentEncoder:
    return SegmentEncoder(tokenizer_named(name))


ALL = [
    *CUT,
    *UNSAFE,
    pytest.param("smollm2", marks=needs_embedded),
    *(
        pytest.param(name, marks=pytest.mark.skipif(not MATERIAL.is_dir(), reason="needs the published tokenizers"))
        for name in PUBLISHED
    ),
]


def whole(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [one.ids for one in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def pieces(tokenizer: Tokenizer) -> st.SearchStrategy[str]:
    """Added tokens, halves of them, white space, words and anything else."""
    words = [one.content for one in tokenizer.get_added_tokens_decoder().values()] or ["<none>"]
    return st.one_of(
        st.sampled_from(words),
        st.sampled_from(words),
        st.sampled_from([word[: len(word) // 2] for word in words] + [word[len(word) // 2 :] for word in words]),
        st.sampled_from(
            [
                "",
                " ",
                "  ",
                "\n",
                "\n\n",
                "\t",
                "x",
                "Fox",
                "the quick",
                " brown",
                "'s",
                "12",
                ".\r\n",
                "\x1c",
                "\u2028",
                "é",
                "🙂",
                "\u0301",
                "▁",
            ]
        ),
        st.text(max_size=6),
    )


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None)  # the first example loads the tokenizer
@given(data=st.data())
def test_the_ids_are_those_of_the_whole_texts(name: str, data: st.DataObject) -> None:
    tokenizer = tokenizer_named(name)
    texts = data.draw(st.lists(st.lists(pieces(tokenizer), max_size=8).map("".join), min_size=1, max_size=5))
    assert encoder_named(name).encode(texts) == whole(tokenizer, texts)


@pytest.mark.parametrize("name", CUT)
def test_these_tokenizers_are_cut(name: str) -> None:
    assert encoder_named(name).fallback_reason is None


@pytest.mark.parametrize("name", ["byte level", *CUT_AT_WORDS])
def test_these_tokenizers_are_cut_at_words(name: str) -> None:
    assert encoder_named(name)._words is not None


@pytest.mark.parametrize("name", ["byte level with a prefix space", "metaspace never", "unigram", *NOT_AT_WORDS])
def test_where_words_are_not_known_to_be_independent_segments_are_encoded_whole(name: str) -> None:
    assert encoder_named(name)._words is None


@needs_embedded
def test_the_embedded_model_is_cut_at_words() -> None:
    assert encoder_named("smollm2")._words is not None


def test_a_separator_that_another_token_begins_before_is_not_relied_on() -> None:
    tokenizer = trained(pre_tokenizers.ByteLevel(False), added=[AddedToken("fox<", normalized=False)])
    texts = ["the fox jumps", "the quick brown fox over"]
    assert WordEncoder(tokenizer, "<|end|>").encode(texts) == whole(tokenizer, texts)


def test_words_that_are_remembered_are_not_encoded_again_and_are_bounded() -> None:
    counted = Counted(tokenizer_named("byte level"))
    encoder = WordEncoder(counted, "<|end|>", words_kept=8)
    encoder.encode(["the quick brown fox"])
    counted.characters = 0
    encoder.encode(["the brown fox", "the fox quick"])
    assert counted.characters == 0
    for number in range(40):
        text = f"the {number} quick brown {number + 1} dog"
        assert encoder.encode([text]) == whole(counted.fast, [text])
        assert len(encoder._words) <= 8
        assert len(encoder._openings) <= 8


@needs_embedded
def test_the_embedded_model_is_cut() -> None:
    assert encoder_named("smollm2").fallback_reason is None


@pytest.mark.parametrize("name", UNSAFE)
def test_tokens_that_look_at_their_neighbours_are_not_cut_at(name: str) -> None:
    assert "<tool>" in str(encoder_named(name).fallback_reason)


def test_without_added_tokens_texts_are_encoded_whole() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    encoder = SegmentEncoder(tokenizer)
    assert encoder.fallback_reason is not None
    assert encoder.encode(["hello world"]) == whole(tokenizer, ["hello world"])


class Counted:
    """A tokenizer that counts the characters it is given, and can be made to answer otherwise after a while."""

    def __init__(self, fast: Tokenizer) -> None:
        self.fast, self.characters, self.added_id = fast, 0, 0
        self.encode_special_tokens = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fast, name)

    def encode_batch_fast(self, texts: list[str], *, add_special_tokens: bool) -> list[Any]:
        self.characters += sum(map(len, texts))
        return [Answer([i + self.added_id for i in ids]) for ids in whole(self.fast, texts)]


class Answer:
    def __init__(self, ids: list[int]) -> None:
        self.ids = ids


def long_conversation(turns: int) -> list[str]:
    """What is encoded for each turn: the prompt, and the prompt with its reply."""
    text, texts = "<|start|>the lazy dog<|end|>", []
    for number in range(turns):
        text += f"<|start|>hello {number} the quick brown fox<|end|><|start|>"
        texts.append(text)
        text += f"again {number} jumps over<|end|>"
        texts.append(text)
    return texts


def test_the_cost_of_a_conversation_grows_with_its_text_and_not_with_its_square() -> None:
    counted = Counted(tokenizer_named("byte level"))
    encoder = SegmentEncoder(counted)
    texts = long_conversation(60)
    counted.characters = 0
    assert encoder.encode(texts) == whole(counted.fast, texts)
    of_witnesses = len(texts) / 64 * len(texts[-1])
    assert counted.characters < 2 * len(texts[-1]) + 3 * of_witnesses < sum(map(len, texts)) / 4


def test_what_was_encoded_before_is_remembered() -> None:
    counted = Counted(tokenizer_named("byte level"))
    encoder = SegmentEncoder(counted)
    encoder.encode(["<|start|>the quick brown fox<|end|>"])
    counted.characters = 0
    encoder.encode(["<|start|>the quick brown fox<|end|><|start|>the quick brown fox"])
    assert counted.characters == 0


def test_memory_of_what_was_encoded_is_bounded() -> None:
    encoder = SegmentEncoder(tokenizer_named("byte level"), memo_ids=50)
    for number in range(40):
        encoder.encode([f"<|start|>number {number} the quick brown fox"])
        assert encoder.remembered_ids <= 50
    assert encoder.remembered_ids > 0


def test_a_tokenizer_that_stops_being_piecewise_is_caught_by_the_witness() -> None:
    counted = Counted(tokenizer_named("byte level"))
    encoder = SegmentEncoder(counted)
    texts = [f"<|start|>hello {number}<|end|>" for number in range(500)]
    assert encoder.encode(texts) == whole(counted.fast, texts)
    counted.added_id = 1  # what is remembered is now wrong, as if pieces had not been independent
    with pytest.raises(AssertionError, match="piecewise"):
        encoder.encode(texts)


def test_control_tokens_as_plain_text_are_not_cut_at() -> None:
    tokenizer = Tokenizer.from_str(tokenizer_named("byte level").to_str())
    encoder = SegmentEncoder(tokenizer)
    text = "<|start|>hello<|end|>"
    as_tokens = encoder.encode([text])
    tokenizer.encode_special_tokens = True
    as_letters = encoder.encode([text])
    assert as_letters == whole(tokenizer, [text]) != as_tokens


def test_each_text_has_a_list_of_its_own() -> None:
    encoder = encoder_named("byte level")
    first, second = encoder.encode(["hello world", "hello world"])
    first.append(-1)
    assert second == encoder.encode(["hello world"])[0]


def test_it_can_be_sent_to_another_process() -> None:
    texts = ["<|start|>hello<|end|>", "world"]
    again = pickle.loads(pickle.dumps(encoder_named("metaspace first")))
    assert again.encode(texts) == encoder_named("metaspace first").encode(texts)

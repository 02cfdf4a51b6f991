"""Scores of given texts equal what the model's own forward says of prompt and text, each alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_kinds import VOCABULARY, tiny_kind
from tutelage.errors import ConfigError
from tutelage.generate.scoring import GivenText, score
from tutelage.model.adapters.lora import add_lora
from tutelage.model.adapters.prompt_tuning import add_prompt
from tutelage.model.architecture import architecture_of
from tutelage.model.attention.packed import use_generation_attention
from tutelage.types import TokenIds

torch.set_num_threads(1)


@pytest.fixture
def texts() -> list[GivenText]:
    """Families of several texts, single ones, texts of one token, and a prompt of one."""
    random = np.random.default_rng(5)

    def ids(tokens: int) -> TokenIds:
        return random.integers(4, VOCABULARY, tokens).astype(np.int32)

    family, other, single = ids(11), ids(30), ids(1)
    return [
        *(GivenText(family, ids(tokens)) for tokens in (1, 4, 9, 1)),
        GivenText(single, ids(6)),
        *(GivenText(other, ids(tokens)) for tokens in (2, 12, 7)),
    ]


def by_own_forward(model: Any, given: GivenText) -> tuple[list[float], bool]:
    """Logarithms of probabilities from one plain forward over prompt and text."""
    use_generation_attention(model)
    ids = torch.from_numpy(np.concatenate([given.prompt, given.text])).long()
    with torch.no_grad():
        logits = model(input_ids=ids[None]).logits[0].float()
    logprobs = logits[-len(given.text) - 1 : -1].log_softmax(-1)
    labels = torch.from_numpy(given.text).long()
    return logprobs.gather(1, labels[:, None])[:, 0].tolist(), bool((logprobs.argmax(1) == labels).all())


@pytest.mark.parametrize("row_tokens", [1, 40, 1024])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "mistral", "mamba", "bloom", "gpt_neox", "cohere"])
def test_scores_equal_the_models_own_forward(kind: str, row_tokens: int, texts: list[GivenText]) -> None:
    model = tiny_kind(kind)
    expected = [by_own_forward(model, given) for given in texts]
    finished: list[int] = []

    scores = score(model, texts, architecture_of(model), row_tokens=row_tokens, done=finished.append)

    assert sum(finished) == len(texts)
    for result, (logprobs, is_likeliest) in zip(scores, expected, strict=True):
        np.testing.assert_allclose(result.logprobs, logprobs, atol=2e-4)
        assert result.is_likeliest == is_likeliest
        assert result.total == pytest.approx(sum(logprobs), abs=1e-3)


@pytest.mark.parametrize("with_prompt", [False, True])
def test_adapters_take_part(texts: list[GivenText], *, with_prompt: bool) -> None:
    model = tiny_kind("llama")
    plain = score(model, texts, architecture_of(model))
    adapted, _ = add_prompt(model, tokens=3) if with_prompt else _lora(model)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    scores = score(adapted, texts, architecture_of(adapted))

    expected = [by_own_forward(adapted, given) for given in texts]

    assert [result.logprobs for result in plain] != [result.logprobs for result in scores]
    for result, (logprobs, _) in zip(scores, expected, strict=True):
        np.testing.assert_allclose(result.logprobs, logprobs, atol=2e-4)


def _lora(model: Any) -> tuple[Any, Any]:
    return add_lora(model, rank=4, alpha=8, dropout=0.0, targets="all-linear")


def test_what_a_greedy_reply_says_is_likeliest(texts: list[GivenText]) -> None:
    model = tiny_kind("llama")
    prompt = texts[0].prompt
    with torch.no_grad():
        likeliest = int(model(input_ids=torch.from_numpy(prompt).long()[None]).logits[0, -1].argmax())
    pair = [GivenText(prompt, np.array([token], dtype=np.int32)) for token in (likeliest, (likeliest + 1) % VOCABULARY)]

    assert [result.is_likeliest for result in score(model, pair, architecture_of(model))] == [True, False]


def test_a_text_or_prompt_without_tokens_is_refused() -> None:
    ids = np.array([5, 6], dtype=np.int32)
    for prompt, text in ((ids, ids[:0]), (ids[:0], ids)):
        with pytest.raises(ConfigError, match="only be scored after a prompt"):
            GivenText(prompt, text)

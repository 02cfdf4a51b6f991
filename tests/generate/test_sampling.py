"""Tokens are chosen as transformers' own processors would, and a reply's random numbers are its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.support.own_forward import LetterTokenizer, random_prompts
from tests.support.tiny_kinds import tiny_kind
from tutelage.errors import ConfigError
from tutelage.generate import sampling as sampling_module
from tutelage.generate.engine import Engine
from tutelage.generate.requests import Request, Sampling
from tutelage.generate.sampling import Choice, likeliest, next_tokens, token_logprobs

torch.set_num_threads(1)

PROMPT = np.array([3, 7, 7, 11], dtype=np.int32)
SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 1.7, "top_k": 1},
    {"temperature": 1.7, "top_k": 12},
    {"temperature": 1.0, "top_k": 100_000},
    {"temperature": 1.2, "top_p": 0.05},
    {"temperature": 1.2, "top_p": 0.9},
    {"temperature": 4.0, "top_p": 0.999},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 2.0, "min_p": 1.0},
    {"temperature": 1.0, "repetition_penalty": 1.4},
    {"temperature": 1.0, "repetition_penalty": 0.8},
    {"temperature": 1.5, "top_k": 40, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.2},
]


def random_logits(vocabulary: int, seed: int, *, step: float = 0.0) -> torch.Tensor:
    """[V]; rounded to multiples of `step`, so that many are equal."""
    logits_V = 3.0 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))
    return (logits_V / step).round() * step if step else logits_V


def own_probabilities(logits_V: torch.Tensor, sampling: Sampling, generated: list[int]) -> torch.Tensor:
    """[V], as transformers has them, in the order in which its `generate` puts its processors."""
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        processors.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(MinPLogitsWarper(sampling.min_p))
    ids = torch.tensor([[*PROMPT.tolist(), *generated]])
    return processors(ids, logits_V[None].clone())[0].softmax(0)


def probabilities(
    logits_V: torch.Tensor, sampling: Sampling, generated: list[int], monkeypatch: pytest.MonkeyPatch
) -> torch.Tensor:
    """[V]: what `Choice` draws from."""
    seen: list[torch.Tensor] = []
    kept = sampling_module._kept

    def watched(*given: Any) -> torch.Tensor:
        seen.append(kept(*given))
        return seen[-1]

    with monkeypatch.context() as patch:
        patch.setattr(sampling_module, "_kept", watched)
        token = Choice(sampling, 0, PROMPT, list(generated)).token(logits_V.clone())
    assert seen[0][token] > 0
    return seen[0] / seen[0].sum()


@pytest.mark.parametrize("vocabulary", [20, 1000])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_probabilities_are_those_of_transformers(
    settings: dict[str, Any], vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(**settings)
    for seed in range(20):
        logits_V, generated = random_logits(vocabulary, seed), [1, 5, 5, 19]
        expected_V = own_probabilities(logits_V, sampling, generated)

        found_V = probabilities(logits_V, sampling, generated, monkeypatch)

        assert torch.equal(found_V > 0, expected_V > 0)
        torch.testing.assert_close(found_V, expected_V, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_of_equally_likely_tokens_all_stay_or_none(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = Sampling(**settings)
    for seed in range(20):
        logits_V = random_logits(300, seed, step=1.5)
        expected_V = own_probabilities(logits_V, sampling, [])

        found_V = probabilities(logits_V, sampling, [], monkeypatch)

        assert torch.equal(found_V > 0, torch.isin(found_V, found_V[expected_V > 0])), "ties, and nothing else"
        if sampling.top_p == 1.0:  # transformers' top-p keeps some of the ties: those that its sorting puts last
            torch.testing.assert_close(found_V, expected_V, rtol=1e-4, atol=1e-7)


def test_the_first_likely_tokens_may_not_be_enough_for_top_p(monkeypatch: pytest.MonkeyPatch) -> None:
    flat_V = random_logits(2000, 0) / 30
    sampling = Sampling(temperature=1.0, top_p=0.9)

    found_V = probabilities(flat_V, sampling, [], monkeypatch)

    assert int((found_V > 0).sum()) > sampling_module.LIKELY_TOKENS
    assert torch.equal(found_V > 0, own_probabilities(flat_V, sampling, []) > 0)


@pytest.mark.parametrize("settings", [{"temperature": 1.0}, {"temperature": 1.3, "top_k": 5}, {"top_p": 0.7}], ids=str)
def test_tokens_are_drawn_as_often_as_they_are_likely(settings: dict[str, Any]) -> None:
    draws, sampling = 20_000, Sampling(**{"temperature": 0.8} | settings)
    logits_V = random_logits(12, 5)
    expected_V = own_probabilities(logits_V, sampling, []).double()
    choice = Choice(sampling, 0, PROMPT)

    tokens = torch.tensor([choice.token(logits_V.clone()) for _ in range(draws)])

    shares_V = torch.bincount(tokens, minlength=12) / draws
    errors_V = (expected_V * (1 - expected_V) / draws).sqrt()
    assert bool(((shares_V - expected_V).abs() <= 4.5 * errors_V).all())


def test_greedy_takes_the_most_likely_token_after_the_penalties() -> None:
    logits_SV = torch.tensor([[0.0, 2.0, 1.5, -1.0], [0.0, 2.0, 1.5, -1.0], [0.0, 2.0, 1.5, -1.0]])
    prompt = np.array([1], dtype=np.int32)
    choices = [
        Choice(Sampling(), 0, prompt),
        Choice(Sampling(repetition_penalty=2.0), 0, prompt),
        Choice(Sampling(presence_penalty=1.0), 0, prompt, [1, 2, 2]),
    ]
    before = logits_SV.clone()

    assert next_tokens(logits_SV, choices) == [1, 2, 1]
    assert torch.equal(logits_SV, before), "logprobs are read from them"


def test_presence_penalty_is_subtracted_once_from_what_the_reply_has(monkeypatch: pytest.MonkeyPatch) -> None:
    logits_V = random_logits(20, 1)
    lowered_V = logits_V.clone()
    lowered_V[[4, 9]] -= 1.25

    found_V = probabilities(logits_V, Sampling(temperature=1.0, presence_penalty=1.25), [4, 9, 4], monkeypatch)

    torch.testing.assert_close(found_V, lowered_V.softmax(0))


def test_penalties_pass_over_tokens_that_a_model_reads_but_never_writes() -> None:
    prompt = np.array([2, 500], dtype=np.int32)

    assert Choice(Sampling(repetition_penalty=3.0), 0, prompt).token(torch.tensor([0.0, 1.0, 2.0])) == 1


@pytest.mark.parametrize("temperature", [1e-38, 1e-6, 1e6])
def test_extreme_temperatures_choose_a_token(temperature: float) -> None:
    logits_V = random_logits(50, 2)
    tokens = {
        Choice(Sampling(temperature=temperature, seed=seed), 0, PROMPT).token(logits_V.clone()) for seed in range(40)
    }

    assert tokens == {int(logits_V.argmax())} if temperature < 1 else len(tokens) > 10


def test_logprobs_are_those_of_the_tokens() -> None:
    logits_SV = torch.stack([random_logits(30, seed) for seed in (1, 2)])

    found = token_logprobs(logits_SV, [4, 17])

    assert found == pytest.approx([float(logits_SV.log_softmax(1)[0, 4]), float(logits_SV.log_softmax(1)[1, 17])])
    assert token_logprobs(logits_SV[[]], []) == []


def test_a_seed_gives_one_reply_whatever_grows_beside_it() -> None:
    model = tiny_kind("llama", factor=2.0)
    watched, *others = random_prompts((7, 3, 12, 5, 9), vocabulary=128)

    def reply(seed: int, neighbors: int, **settings: Any) -> tuple[int, ...]:
        requests = [Request(prompt, 15, Sampling(temperature=1.0, seed=9)) for prompt in others[:neighbors]]
        requests.insert(neighbors // 2, Request(watched, 15, Sampling(temperature=1.0, seed=seed)))
        engine = Engine(model, LetterTokenizer(), **settings)  # type: ignore[arg-type] # all that it asks of one
        return next(one.ids for one in engine.generate(requests) if one.request == neighbors // 2)

    alone = reply(1, 0)

    assert reply(1, 4) == alone
    assert reply(1, 3, active_replies=2) == alone
    assert len({reply(seed, 1) for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", float("inf")),
        ("seed", -1),
    ],
)
def test_a_setting_out_of_its_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match="out of its range") as refused:
        Sampling(**{name: value})

    assert refused.value.where == name
    assert refused.value.found == str(value)


@pytest.mark.parametrize("vocabulary", [3, 255, 256, 511, 512, 700, 1024])
def test_the_likeliest_token_is_that_of_argmax(vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = torch.randn(40, vocabulary, generator=generator)
    logits[1], logits[2, -1], logits[3, vocabulary // 2] = 0.5, 99.0, float("nan")
    logits[4:20] = logits[4:20].round()  # several are the largest
    logits[5] = float("-inf")

    assert torch.equal(likeliest(logits), logits.argmax(dim=1))

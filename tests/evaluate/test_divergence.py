"""The divergence from the base equals that of two whole models, each token alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_kinds import VOCABULARY, tiny_kind
from tutelage.evaluate.divergence import can_be_compared, divergence, reply_states, with_noise
from tutelage.generate.scoring import GivenText
from tutelage.model.adapters.lora import add_lora
from tutelage.model.architecture import architecture_of
from tutelage.model.attention.packed import use_generation_attention

torch.set_num_threads(1)


@pytest.fixture
def replies() -> list[GivenText]:
    """Two to one prompt, others to their own, one of a single token."""
    random = np.random.default_rng(11)
    lengths = [(9, 5), (9, 12), (3, 1), (20, 8)]
    ids = [(random.integers(4, VOCABULARY, p), random.integers(4, VOCABULARY, r)) for p, r in lengths]
    ids[1] = (ids[0][0], ids[1][1])
    return [GivenText(prompt.astype(np.int32), reply.astype(np.int32)) for prompt, reply in ids]


def changed(model: Any) -> Any:
    """Another model of the kind, all weights moved a little."""
    other = copy.deepcopy(model)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return other


def by_own_forwards(base: Any, tuned: Any, given: GivenText) -> float:
    """Sum over a reply of KL(base || tuned), in float64 from plain forwards."""
    ids = torch.from_numpy(np.concatenate([given.prompt, given.text])).long()[None]
    logprobs = []
    for model in (base, tuned):
        use_generation_attention(model)
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -len(given.text) - 1 : -1]
        logprobs.append(logits.double().log_softmax(-1))
    return float(torch.nn.functional.kl_div(logprobs[1], logprobs[0], log_target=True, reduction="sum"))


@pytest.mark.parametrize("row_tokens", [1, 1024])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "cohere", "mamba", "bloom"])
def test_it_is_that_of_two_whole_models(kind: str, row_tokens: int, replies: list[GivenText]) -> None:
    base = tiny_kind(kind)
    tuned = changed(base)
    architecture = architecture_of(base)
    assert can_be_compared(architecture, head_is_trained=True)
    finished: list[int] = []

    states = reply_states(base, replies, architecture, keeps_head=True, row_tokens=row_tokens, done=finished.append)
    measured = divergence(tuned, replies, states, architecture_of(tuned), row_tokens=row_tokens, done=finished.append)

    assert sum(finished) == 2 * len(replies)
    expected = [by_own_forwards(base, tuned, given) for given in replies]
    assert measured.sums == pytest.approx(expected, rel=2e-3, abs=1e-5)
    assert measured.tokens == (5, 12, 1, 8)
    assert measured.mean == pytest.approx(sum(expected) / 26, rel=2e-3)
    assert measured.mean > 1e-4
    assert measured.interval is not None
    assert measured.interval.low < measured.mean < measured.interval.high


def test_an_untouched_model_diverges_by_rounding_alone(replies: list[GivenText]) -> None:
    base = tiny_kind("llama")
    architecture = architecture_of(base)
    states = reply_states(base, replies, architecture, keeps_head=False)
    measured = divergence(base, replies, states, architecture, row_tokens=20)
    assert abs(measured.mean) < 1e-6
    assert with_noise(measured, measured).noise == measured.mean


def test_with_an_adapter_the_base_needs_no_copy_of_its_head(replies: list[GivenText]) -> None:
    model, _ = add_lora(tiny_kind("llama"), rank=4, alpha=8, dropout=0.0, targets="all-linear")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    architecture = architecture_of(model)
    with model.disable_adapter():
        states = reply_states(model, replies, architecture, keeps_head=False)
    assert states.head is None
    measured = divergence(model, replies, states, architecture)

    expected = []
    for given in replies:
        ids = torch.from_numpy(np.concatenate([given.prompt, given.text])).long()[None]
        use_generation_attention(model)
        with torch.no_grad():
            tuned_logits = model(input_ids=ids).logits[0, -len(given.text) - 1 : -1]
            with model.disable_adapter():
                base_logits = model(input_ids=ids).logits[0, -len(given.text) - 1 : -1]
        tuned, plain = tuned_logits.log_softmax(-1), base_logits.log_softmax(-1)
        expected.append(float(torch.nn.functional.kl_div(tuned, plain, log_target=True, reduction="sum")))
    assert measured.sums == pytest.approx(expected, rel=2e-3, abs=1e-5)


def test_the_direction_is_from_the_base(replies: list[GivenText]) -> None:
    base = tiny_kind("llama")
    tuned = changed(changed(base))
    there, back = (
        divergence(
            other,
            replies,
            reply_states(first, replies, architecture_of(first), keeps_head=True),
            architecture_of(other),
        )
        for first, other in ((base, tuned), (tuned, base))
    )
    assert there.mean == pytest.approx(sum(by_own_forwards(base, tuned, given) for given in replies) / 26, rel=2e-3)
    assert there.mean != pytest.approx(back.mean, rel=1e-2)

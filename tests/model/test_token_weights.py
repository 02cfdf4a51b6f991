"""DFT, TALR and EAFT against plain autograd: the gradient is the reweighted one, the loss stays the cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GraniteForCausalLM

from tests.model.test_loss import FAMILIES, LENGTHS, Documents, GradientsOf, with_random_adapter
from tutelage.model import loss as loss_module
from tutelage.model.architecture import PLAIN
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.loss import row_loss
from tutelage.model.precision import cast_model
from tutelage.model.token_weights import FIRST_TEMPERATURE, SMALLEST_WEIGHT, TokenWeights, token_weights_of
from tutelage.pack import pack_rows
from tutelage.types import Example

WAYS = (TokenWeights("dft"), TokenWeights("talr", 1.7), TokenWeights("eaft"))
way = pytest.mark.parametrize("token_weights", WAYS, ids=lambda one: one.kind)


def weight_by_hand(kind: str, temperature: float, logits_V: torch.Tensor, token: int) -> float:
    """The formulas as they are written, in fp64, for one token."""
    probabilities = logits_V.double().softmax(0)
    if kind == "dft":
        return float(probabilities[token])
    if kind == "talr":
        return max(float(probabilities[token]) ** (1 / temperature), SMALLEST_WEIGHT)
    top = sorted(probabilities.tolist(), reverse=True)[:20]
    shares = [one / sum(top) for one in top]
    return -sum(one * math.log(one) for one in shares) / math.log(20)


def reference(model: Any, examples: Sequence[Example], given: TokenWeights) -> tuple[float, torch.Tensor]:
    """Cross-entropy of documents, each alone through transformers' forward, and the sum whose gradient is followed."""
    model.set_attn_implementation("eager")
    plain, followed = 0.0, []
    for example in examples:
        ids = torch.from_numpy(example.ids).long()
        log_probabilities = model(input_ids=ids[None], use_cache=False).logits[0].float().log_softmax(1)
        for place in range(1, len(ids)):
            if example.weights[place]:
                loss = -log_probabilities[place - 1, ids[place]] * float(example.weights[place])
                logits_V = log_probabilities[place - 1].detach()
                plain += loss.item()
                followed.append(loss * weight_by_hand(given.kind, given.temperature, logits_V, int(ids[place])))
    return plain, torch.stack(followed).sum()


def packed(
    model: Any, examples: Sequence[Example], given: TokenWeights | None, *, row_tokens: int = 128
) -> torch.Tensor:
    use_packed_attention(model)
    rows = pack_rows(examples, row_tokens=row_tokens)
    return torch.stack([row_loss(model, row, token_weights=given)[0] for row in rows]).sum()


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], share: float = 1e-6) -> None:
    length = torch.linalg.vector_norm(torch.stack([one.norm() for one in expected.values()]))
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert float((found[name] - value).norm()) <= share * float(length), name


@way
@pytest.mark.parametrize("method", ["full", "lora"])
def test_loss_is_the_cross_entropy_and_the_gradient_the_reweighted_one(
    tiny_model: Any, documents: Documents, gradients_of: GradientsOf, token_weights: TokenWeights, method: str
) -> None:
    model = with_random_adapter(tiny_model) if method == "lora" else tiny_model
    examples = documents(LENGTHS, scaled=True)
    plain, followed = reference(model, examples, token_weights)
    (followed / 7).backward()
    expected = gradients_of(model)

    found = packed(model, examples, token_weights)
    (found / 7).backward()

    assert found.item() == pytest.approx(plain, rel=1e-6)
    assert_near(gradients_of(model), expected)


@way
@pytest.mark.parametrize("head", ["own", "whole"])
def test_a_head_that_is_asked_otherwise_gives_the_same(
    tiny_model: Any, documents: Documents, gradients_of: GradientsOf, token_weights: TokenWeights, head: Any
) -> None:
    (example,) = documents([40])
    use_packed_attention(tiny_model)
    (row,) = pack_rows([example], row_tokens=64)
    chunked, _ = row_loss(tiny_model, row, token_weights=token_weights)
    chunked.backward()
    expected = gradients_of(tiny_model)

    found, _ = row_loss(tiny_model, row, architecture=replace(PLAIN, head=head), token_weights=token_weights)
    found.backward()

    assert found.item() == pytest.approx(chunked.item(), rel=1e-6)
    assert_near(gradients_of(tiny_model), expected, 2e-6)


@way
@pytest.mark.parametrize("family", ["granite_scale", "gemma2_cap"])
def test_scaled_and_capped_logits_weigh_by_what_the_model_predicts(
    documents: Documents, gradients_of: GradientsOf, token_weights: TokenWeights, family: str
) -> None:
    torch.manual_seed(0)
    model = FAMILIES[family]()
    if not isinstance(model, GraniteForCausalLM):  # logits near zero would all weigh the same
        model.get_output_embeddings().weight.data *= 20
    examples = documents(LENGTHS, vocabulary=96)
    plain, followed = reference(model, examples, token_weights)
    followed.backward()
    expected = gradients_of(model)

    found = packed(model, examples, token_weights)
    found.backward()

    assert found.item() == pytest.approx(plain, rel=1e-6)
    assert_near(gradients_of(model), expected, 3e-6)


@way
def test_rows_and_chunks_change_nothing(
    tiny_model: Any,
    documents: Documents,
    gradients_of: GradientsOf,
    token_weights: TokenWeights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = documents(LENGTHS)
    whole = packed(tiny_model, examples, token_weights)
    whole.backward()
    expected = gradients_of(tiny_model)

    monkeypatch.setattr(loss_module, "CHUNK_POSITIONS", {"cpu": 3})
    apart = packed(tiny_model, examples, token_weights, row_tokens=31)
    apart.backward()

    assert apart.item() == pytest.approx(whole.item(), rel=1e-6)
    assert_near(gradients_of(tiny_model), expected)


@way
def test_the_loss_is_bit_for_bit_the_one_without(
    tiny_model: Any, documents: Documents, token_weights: TokenWeights
) -> None:
    examples = documents(LENGTHS, scaled=True)

    assert packed(tiny_model, examples, token_weights).item() == packed(tiny_model, examples, None).item()


@way
def test_in_bf16_weights_are_fp32_and_without_gradient(
    tiny_model: Any, documents: Documents, token_weights: TokenWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast_model(tiny_model, "bf16")
    seen: list[torch.Tensor] = []
    of = TokenWeights.of
    monkeypatch.setattr(TokenWeights, "of", lambda *given: seen.append(of(*given)) or seen[-1])

    packed(tiny_model, documents([60]), token_weights).backward()

    assert len(seen) == 1
    assert seen[0].dtype == torch.float32
    assert not seen[0].requires_grad
    assert 0 < float(seen[0].mean()) < 1


def test_extreme_tokens_get_finite_weights() -> None:
    certain = torch.tensor([[1.0] + [0.0] * 29])
    even = torch.full((1, 30), 1 / 30)
    losses = torch.tensor([0.0, 1e4])
    of: Callable[[TokenWeights], list[float]] = lambda given: given.of(losses, certain.repeat(2, 1)).tolist()  # noqa: E731 # a line for each is clearer

    assert of(TokenWeights("dft")) == [1.0, 0.0]
    assert of(TokenWeights("talr", 0.0)) == pytest.approx([1.0, SMALLEST_WEIGHT])
    assert of(TokenWeights("eaft")) == [0.0, 0.0]
    assert TokenWeights("eaft").of(losses[:1], even).item() == pytest.approx(1.0, rel=1e-6)
    assert TokenWeights("eaft").of(losses[:1], torch.tensor([[0.5, 0.5]])).item() == pytest.approx(1.0)


def test_the_temperature_is_the_loss_of_the_step_before() -> None:
    assert token_weights_of("cross_entropy", (2.0,)) is None
    assert token_weights_of("talr", ()) == TokenWeights("talr", FIRST_TEMPERATURE)
    assert token_weights_of("talr", (3.0, 2.5)) == TokenWeights("talr", 2.5)

"""The divergence from the base against two models and torch's kl_div: loss, gradient, and what it leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from tests.model.test_loss import FAMILIES, LENGTHS, Documents, GradientsOf, with_random_adapter
from tests.model.test_token_weights import assert_near
from tutelage.model import loss as loss_module
from tutelage.model.adapters.lora import add_lora
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.base_outputs import HeldToBase
from tutelage.model.loss import base_outputs_of, row_loss
from tutelage.model.precision import cast_model
from tutelage.model.token_weights import TokenWeights
from tutelage.optim.master_weights import MasterWeights
from tutelage.pack import pack_rows
from tutelage.types import Example, PackedSequence

STRENGTH = 3.0


def reference(model: Any, base: Any, examples: Sequence[Example]) -> tuple[float, torch.Tensor]:
    """Cross-entropy of documents, each alone, and its sum with the divergence from a second model in memory."""
    model.set_attn_implementation("eager")
    base.set_attn_implementation("eager")
    plain, followed = 0.0, []
    for example in examples:
        ids, weights = torch.from_numpy(example.ids).long(), torch.from_numpy(example.weights)[1:]
        log_probabilities = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float().log_softmax(1)
        with torch.no_grad():
            base_log = base(input_ids=ids[None], use_cache=False).logits[0, :-1].float().log_softmax(1)
        loss = (cross_entropy(log_probabilities, ids[1:], reduction="none") * weights).sum()
        divergence = kl_div(log_probabilities, base_log, log_target=True, reduction="none").sum(1)
        plain += loss.item()
        followed.append(loss + STRENGTH * (divergence * weights).sum())
    return plain, torch.stack(followed).sum()


def mean_divergence(plain: float, followed: torch.Tensor, examples: Sequence[Example]) -> float:
    """What the reference adds to the cross-entropy, per weight of the tokens."""
    return (followed.item() - plain) / STRENGTH / float(sum(example.weights[1:].sum() for example in examples))


def rows_of(examples: Sequence[Example], *, replayed: bool = True, **given: Any) -> list[PackedSequence]:
    return [replace(row, replayed=replayed) for row in pack_rows(examples, row_tokens=128, **given)]


def summed(model: Any, rows: Sequence[PackedSequence], **given: Any) -> torch.Tensor:
    use_packed_attention(model)
    return torch.stack([row_loss(model, row, **({"held": HeldToBase(STRENGTH)} | given))[0] for row in rows]).sum()


@pytest.mark.parametrize("family", ["llama", "granite_scale", "gemma2_cap"])
@pytest.mark.parametrize("shared", [False, True])
def test_loss_is_the_cross_entropy_and_the_gradient_has_the_divergence(
    tiny_model: Any, documents: Documents, gradients_of: GradientsOf, family: str, shared: bool
) -> None:
    torch.manual_seed(0)
    base = tiny_model if family == "llama" else FAMILIES[family]()
    vocabulary = 400 if family == "llama" else 96
    model = with_random_adapter(copy.deepcopy(base))
    examples = documents(LENGTHS, scaled=True, vocabulary=vocabulary)
    plain, followed = reference(model, base, examples)
    (followed / 7).backward()
    expected = gradients_of(model)

    held = HeldToBase(STRENGTH)
    found = summed(model.train(), rows_of(examples, share_prefixes=shared), held=held)
    (found / 7).backward()

    assert found.item() == pytest.approx(plain, rel=1e-6)
    divergence, weight = held.measured.take()
    assert divergence / weight == pytest.approx(mean_divergence(plain, followed, examples), rel=2e-3)
    assert held.measured.take() == (0.0, 0.0)
    assert_near(gradients_of(model), expected, 2e-6)


@pytest.mark.parametrize("family", ["llama", "granite_scale", "gemma2_cap", "phi_bias"])
def test_where_all_weights_learn_the_base_is_what_was_kept_of_it(
    documents: Documents, tiny_model: Any, gradients_of: GradientsOf, family: str
) -> None:
    torch.manual_seed(0)
    model = tiny_model if family == "llama" else FAMILIES[family]()
    base = copy.deepcopy(model)
    examples = documents(LENGTHS, scaled=True, vocabulary=400 if family == "llama" else 96)
    use_packed_attention(model)
    outputs = base_outputs_of(model.train(), pack_rows(examples, row_tokens=64))
    assert model.training
    random = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=random)
    plain, followed = reference(model, base, examples)
    (followed / 7).backward()
    expected = gradients_of(model)

    found = summed(model, rows_of(examples), held=HeldToBase(STRENGTH, outputs))
    (found / 7).backward()

    assert found.item() == pytest.approx(plain, rel=1e-6)
    assert_near(gradients_of(model), expected, 3e-6)
    width = base.config.hidden_size
    trained = sum(example.trained_tokens for example in examples)
    bias = 96 * 4 if family == "phi_bias" else 0
    assert outputs.nbytes == 4 * width * (trained + base.config.vocab_size) + bias


def test_chunks_change_nothing(
    tiny_model: Any, documents: Documents, gradients_of: GradientsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = with_random_adapter(tiny_model), rows_of(documents(LENGTHS))
    summed(model, rows).backward()
    expected = gradients_of(model)

    monkeypatch.setattr(loss_module, "CHUNK_POSITIONS", {"cpu": 3})
    summed(model, rows).backward()

    assert_near(gradients_of(model), expected)


@pytest.mark.parametrize("weights", [None, TokenWeights("eaft")])
def test_rows_of_the_task_and_measures_are_left_alone(
    tiny_model: Any, documents: Documents, gradients_of: GradientsOf, weights: TokenWeights | None
) -> None:
    model, rows = with_random_adapter(tiny_model), rows_of(documents(LENGTHS), replayed=False)
    use_packed_attention(model)
    plain = torch.stack([row_loss(model, row, token_weights=weights)[0] for row in rows]).sum()
    plain.backward()
    expected = gradients_of(model)

    found = summed(model, rows, token_weights=weights)
    found.backward()

    assert found.item() == plain.item()
    gradients = gradients_of(model)
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)
    with torch.no_grad():
        assert summed(model, rows_of(documents(LENGTHS))).item() == plain.item()


def test_at_its_base_a_model_is_not_pulled(tiny_model: Any, documents: Documents, gradients_of: GradientsOf) -> None:
    model = with_random_adapter(tiny_model)
    for name, parameter in model.named_parameters():
        parameter.data.mul_(0.0 if "lora_B" in name else 1.0)
    rows = rows_of(documents(LENGTHS))
    summed(model, [replace(row, replayed=False) for row in rows]).backward()
    expected = gradients_of(model)

    summed(model, rows).backward()

    assert_near(gradients_of(model), expected)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_adapter_learns_on_and_gradients_reach_the_masters(
    tiny_model: Any, documents: Documents, mode: str
) -> None:
    """Switching the adapter off, PEFT marks it as not learning: hooks and marks must outlive that."""
    model = with_random_adapter(tiny_model)
    frozen = next(parameter for name, parameter in model.named_parameters() if "lora_A" in name)
    frozen.requires_grad_(False)
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    build = lambda masters: (torch.optim.SGD(list(masters.values()), lr=0.0),)  # noqa: E731 # as `adamw` makes one
    masters = MasterWeights(model, build=build)
    cast_model(model, "bf16")
    model.train(mode == "train")

    summed(model, rows_of(documents(LENGTHS))).backward()

    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == learning
    assert model.training == (mode == "train")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(master.grad is not None and float(master.grad.abs().sum()) > 0 for master in masters.masters.values())


def test_dropout_is_not_drawn_for_the_base(tiny_model: Any, documents: Documents) -> None:
    model, _ = add_lora(tiny_model, rank=4, alpha=8, dropout=0.5, targets="all-linear")
    states, losses = [], []
    for replayed in (False, True):
        torch.manual_seed(5)
        losses.append(summed(model.train(), rows_of(documents([30]), replayed=replayed)).item())
        states.append(torch.get_rng_state())

    assert torch.equal(*states)
    assert losses[0] == losses[1]

"""The chunked loss equals transformers' own forward and torch's cross-entropy, gradients included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from tutelage.errors import ConfigError
from tutelage.evaluate.heldout import heldout_loss
from tutelage.model import loss as loss_module
from tutelage.model.adapters.lora import add_lora
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.loss import row_loss
from tutelage.model.output_head import head_of
from tutelage.model.precision import cast_model
from tutelage.pack import pack_rows
from tutelage.types import Example

Documents = Callable[..., list[Example]]
PlainLoss = Callable[[Any, Sequence[Example]], torch.Tensor]
GradientsOf = Callable[[Any], dict[str, torch.Tensor]]

LENGTHS = (7, 31, 12, 2, 20, 9)
SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def packed_loss(model: Any, examples: Sequence[Example], *, row_tokens: int = 128) -> torch.Tensor:
    use_packed_attention(model)
    sums = [row_loss(model, row)[0] for row in pack_rows(examples, row_tokens=row_tokens)]
    return torch.stack(sums).sum()


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], share: float) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        scale = float(value.abs().max())
        assert float((found[name] - value).abs().max()) <= share * max(scale, 1e-3), name


def with_random_adapter(model: Any) -> Any:
    adapted, _ = add_lora(model, rank=4, alpha=8, dropout=0.0, targets="all-linear")
    random = torch.Generator().manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.05 * torch.randn(parameter.shape, generator=random))
    return adapted


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("scaled", [False, True])
def test_packed_rows_equal_single_documents(
    tiny_model: Any, documents: Documents, plain_loss: PlainLoss, gradients_of: GradientsOf, method: str, scaled: bool
) -> None:
    model = with_random_adapter(tiny_model) if method == "lora" else tiny_model
    examples = documents(LENGTHS, scaled=scaled)
    expected = plain_loss(model, examples)
    expected.backward()
    expected_gradients = gradients_of(model)

    found = packed_loss(model, examples)
    found.backward()

    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(gradients_of(model), expected_gradients, 1e-5)


def test_count_is_that_of_trained_tokens(tiny_model: Any, documents: Documents) -> None:
    examples = documents(LENGTHS, scaled=True)
    use_packed_attention(tiny_model)
    (row,) = pack_rows(examples, row_tokens=128)

    _, count = row_loss(tiny_model, row)

    assert count == sum(example.trained_tokens for example in examples)


def test_chunks_change_nothing(
    tiny_model: Any, documents: Documents, gradients_of: GradientsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = documents(LENGTHS, scaled=True)
    whole = packed_loss(tiny_model, examples)
    whole.backward()
    whole_gradients = gradients_of(tiny_model)

    monkeypatch.setattr(loss_module, "CHUNK_POSITIONS", {"cpu": 3})
    chunked = packed_loss(tiny_model, examples)
    chunked.backward()

    assert chunked.item() == pytest.approx(whole.item(), rel=1e-6)
    assert_same_gradients(gradients_of(tiny_model), whole_gradients, 1e-5)


def test_weights_scale_loss_and_gradient(tiny_model: Any, documents: Documents, gradients_of: GradientsOf) -> None:
    examples = documents(LENGTHS)
    doubled = [Example(example.address, 0, example.ids, 2 * example.weights, ()) for example in examples]
    once = packed_loss(tiny_model, examples)
    once.backward()
    once_gradients = gradients_of(tiny_model)

    twice = packed_loss(tiny_model, doubled)
    twice.backward()

    assert twice.item() == pytest.approx(2 * once.item(), rel=1e-6)
    expected = {name: 2 * value for name, value in once_gradients.items()}
    assert_same_gradients(gradients_of(tiny_model), expected, 1e-6)


def test_upstream_gradient_scales_the_gradient(
    tiny_model: Any, documents: Documents, gradients_of: GradientsOf
) -> None:
    examples = documents(LENGTHS)
    packed_loss(tiny_model, examples).backward()
    plain = gradients_of(tiny_model)

    (packed_loss(tiny_model, examples) / 40).backward()

    expected = {name: value / 40 for name, value in plain.items()}
    assert_same_gradients(gradients_of(tiny_model), expected, 1e-5)


FAMILIES: dict[str, Callable[[], Any]] = {
    "cohere_scale": lambda: CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.3)),
    "granite_scale": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=5.0)),
    "gemma2_cap": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.7, attn_logit_softcapping=None)
    ),
    "phi_bias": lambda: PhiForCausalLM(PhiConfig(**SMALL)),
}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_heads_of_other_families(
    family: str, documents: Documents, plain_loss: PlainLoss, gradients_of: GradientsOf
) -> None:
    torch.manual_seed(1)
    model = FAMILIES[family]()
    for parameter in model.parameters():  # large enough logits and a bias that is not zero
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    examples = documents((6, 11, 4), vocabulary=96, scaled=True)
    expected = plain_loss(model, examples)
    expected.backward()
    expected_gradients = gradients_of(model)

    found = packed_loss(model, examples)
    found.backward()

    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(gradients_of(model), expected_gradients, 2e-5)


@pytest.mark.parametrize("cap", [None, 0.8])
@pytest.mark.parametrize(("name", "value", "scale"), [("logit_scale", 0.3, 0.3), ("logits_scaling", 5.0, 0.2)])
def test_scale_and_cap_against_autograd(
    tiny_model: Any,
    documents: Documents,
    gradients_of: GradientsOf,
    name: str,
    value: float,
    scale: float,
    cap: float | None,
) -> None:
    setattr(tiny_model.config, name, value)
    tiny_model.config.final_logit_softcapping = cap
    (example,) = documents((25,), scaled=True)
    head = head_of(tiny_model)
    assert (head.scale, head.cap) == (pytest.approx(scale), cap)

    tiny_model.set_attn_implementation("eager")
    ids = torch.from_numpy(example.ids).long()
    logits = tiny_model(input_ids=ids[None], use_cache=False).logits[0] * scale
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    losses = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    expected = (losses * torch.from_numpy(example.weights)[1:]).sum()
    expected.backward()
    expected_gradients = gradients_of(tiny_model)

    found = packed_loss(tiny_model, [example])
    found.backward()

    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same_gradients(gradients_of(tiny_model), expected_gradients, 1e-5)


def test_documents_do_not_see_each_other(tiny_model: Any, documents: Documents) -> None:
    first, second, third = documents((14, 9, 11))
    silent = [Example(one.address, 0, one.ids, 0 * one.weights, ()) for one in (first, third)]
    alone = packed_loss(tiny_model, [silent[0], second, silent[1]])
    for seed in (5, 6):
        others = documents((14, 9, 11), seed=seed)
        changed = [Example(one.address, 0, one.ids, 0 * one.weights, ()) for one in (others[0], others[2])]
        assert packed_loss(tiny_model, [changed[0], second, changed[1]]).item() == alone.item()


def test_no_gradient_reaches_untrained_documents(tiny_model: Any, documents: Documents) -> None:
    trained, context = documents((8, 8))
    only = np.unique(np.setdiff1d(context.ids, trained.ids))
    silent = Example(context.address, 0, context.ids, 0 * context.weights, ())
    tiny_model.lm_head.weight = torch.nn.Parameter(tiny_model.lm_head.weight.detach().clone())  # untie
    packed_loss(tiny_model, [trained, silent]).backward()

    assert only.size > 0
    assert float(tiny_model.model.embed_tokens.weight.grad[only].abs().max()) == 0.0


def test_heldout_loss_is_the_same_mean(tiny_model: Any, documents: Documents, plain_loss: PlainLoss) -> None:
    examples = documents(LENGTHS)
    trained = sum(example.trained_tokens for example in examples)
    expected = plain_loss(tiny_model, examples).item() / trained
    use_packed_attention(tiny_model)

    for row_tokens in (31, 60, 128):
        rows = pack_rows(examples, row_tokens=row_tokens)
        assert heldout_loss(tiny_model, rows) == pytest.approx(expected, rel=1e-5)


def test_batch_and_accumulation_are_one_thing(tiny_model: Any, documents: Documents, gradients_of: GradientsOf) -> None:
    """16 examples in 1, 4 or 16 micro-batches: the same loss and the same gradients."""
    examples = documents((17, 20, 24, 32) * 4)
    trained = sum(example.trained_tokens for example in examples)
    use_packed_attention(tiny_model)
    losses, gradients = [], []
    for row_tokens, count in ((512, 1), (100, 4), (32, 16)):
        rows = pack_rows(examples, row_tokens=row_tokens)
        assert len(rows) == count
        total = 0.0
        for row in rows:
            row_sum, _ = row_loss(tiny_model, row)
            (row_sum / trained).backward()
            total += row_sum.item()
        losses.append(total / trained)
        gradients.append(gradients_of(tiny_model))

    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)
    for other in gradients[1:]:
        for name, value in gradients[0].items():
            torch.testing.assert_close(other[name], value, rtol=0.0, atol=1e-6)


def test_bf16_stays_close_to_fp32(tiny_model: Any, documents: Documents) -> None:
    examples = documents(LENGTHS)
    exact = packed_loss(tiny_model, examples).item()
    cast_model(tiny_model, "bf16")

    rounded = packed_loss(tiny_model, examples)

    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact, rel=5e-3)


def test_a_row_without_trained_tokens_costs_nothing(tiny_model: Any, documents: Documents) -> None:
    (example,) = documents((9,))
    use_packed_attention(tiny_model)
    (row,) = pack_rows([Example(example.address, 0, example.ids, 0 * example.weights, ())], row_tokens=9)

    total, count = row_loss(tiny_model, row)
    total.backward()

    assert (total.item(), count) == (0.0, 0)


def test_heldout_loss_makes_no_gradients(
    tiny_model: Any, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation should not pay for gradients of the output head."""
    use_packed_attention(tiny_model)
    rows = pack_rows(documents(LENGTHS), row_tokens=128)
    made: list[int] = []
    zeros_like = torch.zeros_like

    def counted(tensor: torch.Tensor, **more: Any) -> torch.Tensor:
        made.append(tensor.numel())
        return zeros_like(tensor, **more)

    monkeypatch.setattr(torch, "zeros_like", counted)
    heldout_loss(tiny_model, rows)

    assert tiny_model.lm_head.weight.numel() not in made


def test_adapted_head_is_refused(tiny_model: Any) -> None:
    adapted, _ = add_lora(tiny_model, rank=2, alpha=2, dropout=0.0, targets=["lm_head"])

    with pytest.raises(ConfigError, match="output head cannot be adapted") as caught:
        head_of(adapted)

    assert caught.value.where == "lora.target_modules"


def with_common_beginnings(documents: Documents) -> list[Example]:
    """Three levels: all begin alike, some of them go on alike, and so do some of those."""
    made = documents((90, 70, 60, 40, 80, 33, 75), seed=5, scaled=True)
    common = documents((20, 24, 18), seed=9)
    shared = []
    for number, one in enumerate(made):
        depth = (3, 3, 2, 1, 2, 0, 3)[number]
        head = np.concatenate([other.ids for other in common[:depth]]) if depth else np.empty(0, np.int32)
        weights = np.concatenate([np.zeros(len(head), np.float32), one.weights])
        shared.append(Example(one.address, 0, np.concatenate([head, one.ids]), weights, ()))
    return shared


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("row_tokens", [260, 600])
def test_shared_prefixes_change_neither_loss_nor_gradients(
    tiny_model: Any,
    documents: Documents,
    plain_loss: PlainLoss,
    gradients_of: GradientsOf,
    method: str,
    row_tokens: int,
) -> None:
    model = with_random_adapter(tiny_model) if method == "lora" else tiny_model
    examples = with_common_beginnings(documents)
    expected = plain_loss(model, examples)
    expected.backward()
    plain = gradients_of(model)

    use_packed_attention(model)
    rows = pack_rows(examples, row_tokens=row_tokens, share_prefixes=True)
    assert any(row.parents for row in rows)
    assert row_tokens < 600 or len({*rows[0].parents}) >= 4, "the beginnings must nest"
    found = torch.stack([row_loss(model, row)[0] for row in rows]).sum()
    found.backward()

    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-6, atol=0.0)
    assert_same_gradients(gradients_of(model), plain, 1e-5)


def test_shared_prefixes_in_held_out_loss(tiny_model: Any, documents: Documents) -> None:
    examples = with_common_beginnings(documents)
    use_packed_attention(tiny_model)
    plain, shared = (
        heldout_loss(tiny_model, pack_rows(examples, row_tokens=600, share_prefixes=share)) for share in (False, True)
    )
    assert shared == pytest.approx(plain, rel=1e-6)

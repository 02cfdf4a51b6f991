"""Lean modules compute what a model's own compute, and autograd keeps less for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tutelage.model.activation_checkpointing import recompute_activations
from tutelage.model.adapters.lora import add_lora
from tutelage.model.fused.norm_and_mlp import RecomputingGatedMLP, RecomputingNorm, reduce_saved_activations
from tutelage.model.precision import DTYPES
from tutelage.pack import pack_rows
from tutelage.types import Example

Documents = Callable[..., list[Example]]
LearnedFrom = Callable[..., tuple[list[float], dict[str, torch.Tensor]]]
DOCUMENTS = (40, 31, 12, 2, 60)
SHAPE: dict[str, Any] = {
    "vocab_size": 416, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
}  # fmt: skip
NORMS_A_LAYER = {"llama": 2, "qwen3": 4, "mistral": 2, "gemma": 2, "gemma2": 4}


def made(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(5)
    config = AutoConfig.for_model(kind, **SHAPE, **({"final_logit_softcapping": None} if kind == "gemma2" else {}))
    model = AutoModelForCausalLM.from_config(config)
    for name, one in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(one, mean=0.5, std=0.3)
    return model.to(dtype)


@pytest.mark.parametrize("kind", NORMS_A_LAYER)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_what_a_model_says_stays_the_same_bit_for_bit(kind: str, dtype: str) -> None:
    model = made(kind, DTYPES[dtype])
    ids = torch.arange(60)[None] * 5
    with torch.no_grad():
        before = model.eval()(input_ids=ids).logits
        names = [name for name, _ in model.named_parameters()]
        replaced = reduce_saved_activations(model)
        after = model(input_ids=ids).logits

    assert replaced == SHAPE["num_hidden_layers"] * (NORMS_A_LAYER[kind] + 1) + 1
    assert torch.equal(before, after)
    assert [name for name, _ in model.named_parameters()] == names


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma"])
@pytest.mark.parametrize("method", ["full", "lora", "dropout", "frozen", "again"])
def test_losses_are_the_same_bits_and_gradients_the_same_numbers(
    kind: str, method: str, documents: Documents, learned_from: LearnedFrom
) -> None:
    found = []
    rows = pack_rows(documents(DOCUMENTS), row_tokens=64)
    for lean in (False, True):
        model = made(kind)
        if method == "frozen":
            for name, one in model.named_parameters():
                one.requires_grad_("layers.0." not in name and "embed" not in name and "down" not in name)
        if method in ("lora", "dropout"):
            torch.manual_seed(6)
            dropout = 0.3 if method == "dropout" else 0.0
            model, _ = add_lora(model, rank=4, alpha=8, dropout=dropout, targets="all-linear")
            for name, one in model.named_parameters():
                if "lora_B" in name:
                    nn.init.normal_(one, std=0.1)
        if method == "again":
            recompute_activations(model)
        if lean:
            assert reduce_saved_activations(model, recomputed=method == "again")
        found.append(learned_from(model, rows))

    (losses, gradients), (lean_losses, lean_gradients) = found
    assert lean_losses == losses
    assert lean_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(lean_gradients[name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("offset", [False, True])
def test_gradients_of_a_norm_are_those_in_double_precision(dtype: str, offset: bool) -> None:
    model = made("gemma" if offset else "llama", DTYPES[dtype])
    norm: Any = model.model.norm
    lean = RecomputingNorm(norm, offset=offset)
    generator = torch.Generator().manual_seed(2)
    hidden, towards = (torch.randn(3, 7, 32, generator=generator).to(DTYPES[dtype]) for _ in range(2))
    leaf = hidden.clone().requires_grad_()

    lean(leaf).backward(towards)

    wide, weight = (one.detach().double().requires_grad_() for one in (hidden, norm.weight))
    scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + lean.epsilon)
    ((1.0 + weight if offset else weight) * scaled).backward(towards.double())
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == "fp32" else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(leaf.grad.double(), wide.grad, **tolerance)
    torch.testing.assert_close(norm.weight.grad.double(), weight.grad, **tolerance)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("learns", [True, False])
def test_a_norm_changes_neither_its_input_nor_the_gradient_it_is_given(dtype: str, learns: bool) -> None:
    norm: Any = made("llama", DTYPES[dtype]).model.norm
    norm.weight.requires_grad_(learns)
    leaf, towards = (torch.randn(3, 7, 32).to(DTYPES[dtype]) for _ in range(2))
    before = leaf.clone(), towards.clone()

    RecomputingNorm(norm)(leaf.requires_grad_()).backward(towards)

    assert torch.equal(leaf.detach(), before[0])
    assert torch.equal(towards, before[1])


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_product_is_not_kept(method: str) -> None:
    kept: dict[bool, int] = {}
    for lean in (False, True):
        model = made("llama")
        if method == "lora":
            model, _ = add_lora(model, rank=2, alpha=2, dropout=0.0, targets="all-linear")
        if lean:
            reduce_saved_activations(model)
        sizes: dict[int, int] = {}

        def keep(one: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[one.untyped_storage()._cdata] = one.untyped_storage().nbytes()
            return one

        mlp = model.get_decoder().layers[0].mlp
        hidden = torch.randn(1, 1000, 32, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
            alive = mlp(hidden)
        own = sum(parameter.untyped_storage().nbytes() for parameter in mlp.parameters())
        kept[lean] = sum(sizes.values()) - own
        assert alive.requires_grad
    width = 1000 * SHAPE["intermediate_size"] * 4
    assert kept[True] <= kept[False] - width  # what was acted on; the product has a hook of its own, seen below


def test_memory_of_a_row_is_that_of_gate_and_up(tiny_model_folder: Path) -> None:
    from tutelage.plan.model_shape import read_model_shape
    from tutelage.plan.trace import trace
    from tutelage.plan.workload import single_document

    model_shape = read_model_shape(str(tiny_model_folder))
    shape = AutoConfig.from_pretrained(tiny_model_folder)
    heads = (shape.num_attention_heads + 2 * shape.num_key_value_heads) * shape.head_dim
    numbers = 5 * shape.hidden_size + heads + 2 * shape.intermediate_size  # two norms in and out, attention's output
    found = trace(model_shape, single_document("full", "fp32", 512)).activation_bytes
    assert found == pytest.approx(4 * 512 * shape.num_hidden_layers * numbers, rel=0.15)


class Dropping(nn.Module):
    """A gated unit that also drops."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)
        self.act_fn = nn.SiLU()

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        product = self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden)
        return self.down_proj(nn.functional.dropout(product, 0.5, training=self.training))


class OtherRMSNorm(nn.Module):
    """A norm with another place for its epsilon."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(4)), 0.1

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.weight * hidden / (hidden.pow(2).mean(-1, keepdim=True).sqrt() + self.eps)


class TwoRMSNorm(OtherRMSNorm):
    """A norm that wants a gate beside its input."""

    def forward(self, hidden: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:  # type: ignore[override] # on purpose
        return super().forward(hidden) * gate


@pytest.mark.parametrize("kind", [Dropping, OtherRMSNorm, TwoRMSNorm])
def test_what_computes_something_else_is_left_alone(kind: type[nn.Module]) -> None:
    model = nn.Sequential(kind())
    assert reduce_saved_activations(model) == 0
    assert type(model[0]) is kind


def test_random_numbers_go_on_as_if_nothing_had_been_tried() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    model = made("llama")
    torch.manual_seed(1)
    reduce_saved_activations(model)
    assert torch.equal(torch.rand(3), expected)


def test_modes_are_taken_over() -> None:
    model = made("llama").eval()
    reduce_saved_activations(model)
    lean = [module for module in model.modules() if isinstance(module, RecomputingNorm | RecomputingGatedMLP)]
    assert len(lean) == 7
    assert not any(one.training for one in lean)

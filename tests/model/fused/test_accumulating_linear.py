"""Gradients that a product adds to what is there are those that autograd would have added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tutelage.model.activation_checkpointing import recompute_activations
from tutelage.model.fused.accumulating_linear import AccumulatingLinear, accumulate_gradients_in_place
from tutelage.model.fused.norm_and_mlp import reduce_saved_activations
from tutelage.pack import pack_rows
from tutelage.types import Example

Documents = Callable[..., list[Example]]
LearnedFrom = Callable[..., tuple[list[float], dict[str, torch.Tensor]]]


def made(**changes: Any) -> Any:
    torch.manual_seed(2)
    shape = {
        "vocab_size": 416, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**(shape | changes)))


@pytest.mark.parametrize("how", ["plain", "lean", "again", "frozen"])
def test_sums_over_rows_are_those_of_autograd(how: str, documents: Documents, learned_from: LearnedFrom) -> None:
    rows = pack_rows(documents((40, 31, 12, 2, 60)), row_tokens=64)
    assert len(rows) >= 3
    found = []
    for adding in (False, True):
        model = made()
        if how == "frozen":
            for name, one in model.named_parameters():
                one.requires_grad_("layers.0" not in name and "up_proj" not in name)
        if how == "again":
            recompute_activations(model)
        if how == "lean":
            reduce_saved_activations(model)
        names = [name for name, _ in model.named_parameters()]
        if adding:
            assert accumulate_gradients_in_place(model) == (6 if how == "frozen" else 14)
        assert [name for name, _ in model.named_parameters()] == names
        found.append(learned_from(model, rows))

    (losses, gradients), (adding_losses, adding_gradients) = found
    assert adding_losses == losses
    assert adding_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        difference = torch.linalg.vector_norm(adding_gradients[name] - gradient)
        assert difference <= 1e-6 * torch.linalg.vector_norm(gradient), name


def test_the_gradient_stays_in_its_place_and_is_added_to() -> None:
    layer = AccumulatingLinear.from_layer(torch.nn.Linear(3, 2))
    x = torch.randn(5, 3)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    first, memory = layer.weight.grad.clone(), layer.weight.grad.data_ptr()
    layer(2 * x).sum().backward()
    assert layer.weight.grad.data_ptr() == memory
    torch.testing.assert_close(layer.weight.grad, 3 * first)


def test_without_gradients_it_is_a_linear_layer() -> None:
    plain = torch.nn.Linear(3, 2)
    layer, x = AccumulatingLinear.from_layer(plain), torch.randn(5, 3, requires_grad=True)
    with torch.no_grad():
        assert torch.equal(layer(x), plain(x))
    layer.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None

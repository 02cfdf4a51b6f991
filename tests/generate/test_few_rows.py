"""Steps of few tokens: the same numbers but for rounding, and the parts are as they were afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.tiny_kinds import tiny_kind
from tutelage.generate import few_rows as few_rows_module
from tutelage.generate.few_rows import MOST_TOKENS, few_row_units, few_rows
from tutelage.generate.logits import logits_of
from tutelage.model.attention.isolation_check import equal_but_for_rounding
from tutelage.model.layers import decoder_of


def units_of(kind: str, dtype: torch.dtype) -> tuple[Any, list[torch.nn.Module]]:
    torch.manual_seed(0)
    model = tiny_kind(kind).to(dtype).eval()
    return model, few_row_units(decoder_of(model))


def gated(kind: str, dtype: torch.dtype) -> tuple[Any, list[torch.nn.Module]]:
    model, units = units_of(kind, dtype)
    return model, [unit for unit in units if type(unit) is not torch.nn.Linear]


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen3"])
@pytest.mark.parametrize("tokens", [1, 7, MOST_TOKENS, MOST_TOKENS + 1])
@torch.inference_mode()
def test_outputs_are_those_of_the_part_itself(kind: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, units = gated(kind, torch.bfloat16)
    assert len(units) == model.config.num_hidden_layers
    hidden = torch.randn(1, tokens, model.config.hidden_size).bfloat16()
    expected = units[0](hidden)
    products: list[str] = []
    of_matrices, of_vectors = torch.mm, torch.mv
    monkeypatch.setattr(few_rows_module.torch, "mm", lambda *both: products.append("mm") or of_matrices(*both))
    monkeypatch.setattr(few_rows_module.torch, "mv", lambda *both: products.append("mv") or of_vectors(*both))

    with few_rows(units):
        output = units[0](hidden)

    assert output.shape == expected.shape
    assert equal_but_for_rounding(output, expected, torch.bfloat16)
    assert products == ([] if tokens > MOST_TOKENS else ["mm" if tokens > 1 else "mv"] * 3)
    assert torch.equal(units[0](hidden), expected), "outside of the block it is as before"


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tokens", [1, 2])
@torch.inference_mode()
def test_a_plain_layer_multiplies_one_token_as_a_vector(
    bias: bool, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(40, 24, bias=bias).bfloat16()
    hidden = torch.randn(1, tokens, 40).bfloat16()
    expected = layer(hidden)
    vectors: list[int] = []
    of_vectors = torch.mv
    monkeypatch.setattr(few_rows_module.torch, "mv", lambda *both: vectors.append(1) or of_vectors(*both))

    units = few_row_units(torch.nn.Sequential(layer))
    with few_rows(units):
        output = layer(hidden)

    assert units == [layer]
    assert output.shape == expected.shape
    assert equal_but_for_rounding(output, expected, torch.bfloat16)
    assert len(vectors) == (tokens == 1)
    assert "forward" not in layer.__dict__


def test_the_layers_outside_of_gated_parts_are_met_once() -> None:
    model, units = units_of("llama", torch.bfloat16)
    layers = [module for module in decoder_of(model).modules() if type(module) is torch.nn.Linear]
    of_gated = {id(module) for unit in units for module in unit.modules() if module is not unit}
    assert len({id(unit) for unit in units}) == len(units)
    assert {id(layer) for layer in layers} - of_gated == {id(unit) for unit in units if type(unit) is torch.nn.Linear}
    assert len(of_gated) > 0


@torch.inference_mode()
def test_the_head_multiplies_one_state_as_a_vector() -> None:
    model, _ = units_of("llama", torch.bfloat16)
    hidden_SD = torch.randn(2, model.config.hidden_size).bfloat16()
    plain, laid_out = logits_of(model, "product", lay_out=False), logits_of(model, "product", lay_out=True)
    assert equal_but_for_rounding(laid_out(hidden_SD[:1]), plain(hidden_SD[:1]), torch.bfloat16)
    assert equal_but_for_rounding(laid_out(hidden_SD), plain(hidden_SD), torch.bfloat16)


def test_other_precisions_and_adapted_layers_are_left_alone() -> None:
    assert units_of("llama", torch.float32)[1] == []
    assert units_of("gpt2", torch.bfloat16)[1] == []


def test_a_part_that_computes_something_else_is_left_alone() -> None:
    model, units = gated("llama", torch.bfloat16)

    class Doubled(type(units[0])):  # type: ignore[misc] # the class is known only here
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = 2 * super().forward(hidden)
            return result

    for unit in units:
        unit.__class__ = Doubled

    assert not set(few_row_units(decoder_of(model))) & set(units)

"""Steps of few tokens: the same numbers but for rounding, and the parts are as they were afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.tiny_kinds import tiny_kind
from tutelage.generate import few_rows as few_rows_module
from tutelage.generate.few_rows import MOST_TOKENS, few_row_units, few_rows
from tutelage.model.attention.isolation_check import equal_but_for_rounding


def gated(kind: str, dtype: torch.dtype) -> tuple[Any, list[torch.nn.Module]]:
    torch.manual_seed(0)
    model = tiny_kind(kind).to(dtype).eval()
    return model, few_row_units(model)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen3"])
@pytest.mark.parametrize("tokens", [1, 7, MOST_TOKENS, MOST_TOKENS + 1])
@torch.inference_mode()
def test_outputs_are_those_of_the_part_itself(kind: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, units = gated(kind, torch.bfloat16)
    assert len(units) == model.config.num_hidden_layers
    hidden = torch.randn(1, tokens, model.config.hidden_size).bfloat16()
    expected = units[0](hidden)
    products: list[int] = []
    product = torch.mm
    monkeypatch.setattr(few_rows_module.torch, "mm", lambda *both: products.append(1) or product(*both))

    with few_rows(units):
        output = units[0](hidden)

    assert output.shape == expected.shape
    assert equal_but_for_rounding(output, expected, torch.bfloat16)
    assert len(products) == (3 if tokens <= MOST_TOKENS else 0)
    assert torch.equal(units[0](hidden), expected), "outside of the block it is as before"


def test_other_precisions_and_adapted_layers_are_left_alone() -> None:
    assert gated("llama", torch.float32)[1] == []
    assert gated("gpt2", torch.bfloat16)[1] == []


def test_a_part_that_computes_something_else_is_left_alone() -> None:
    model, units = gated("llama", torch.bfloat16)

    class Doubled(type(units[0])):  # type: ignore[misc] # the class is known only here
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = 2 * super().forward(hidden)
            return result

    for unit in units:
        unit.__class__ = Doubled

    assert few_row_units(model) == []

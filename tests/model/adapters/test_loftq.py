"""LoftQ: each pair starts as the best approximation, of its rank, of what 4 bits left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.errors import ConfigError
from tutelage.model.adapters.loftq import init_from_quantization_error, quantized_layers
from tutelage.model.adapters.lora import add_lora
from tutelage.model.load import load
from tutelage.model.quantization import four_bit

IDS = torch.arange(3, 40)[None]


@pytest.fixture
def started(tiny_model_folder: Path) -> Any:
    """Make the tiny model in 4 bits with its pairs filled; return it and the original."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra qlora)")

    def make(**more: Any) -> tuple[Any, Any]:
        chosen = {"rank": 8, "alpha": 12, "dropout": 0.0, "targets": "all-linear", "init": "loftq"} | more
        model, _ = load(tiny_model_folder, quantization=four_bit(cast_model=torch.float32, double_quantization=True))
        adapted, _ = add_lora(model, **chosen)
        original, _ = load(tiny_model_folder)
        assert init_from_quantization_error(adapted, original) == len(quantized_layers(adapted)) > 0
        return adapted.eval(), original.eval()

    return make


@pytest.mark.parametrize("rslora", [False, True])
@torch.no_grad()
def test_what_is_left_is_the_least_that_the_rank_allows(started: Any, rslora: bool) -> None:
    from bitsandbytes.functional import dequantize_4bit

    adapted, original = started(rslora=rslora)

    layers = quantized_layers(adapted)
    assert len(layers) == 14
    for name, layer in layers:
        weight = layer.get_base_layer().weight
        lost_OI = original.get_submodule(name).weight - dequantize_4bit(weight.data, weight.quant_state)
        made_OI = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        left = float((lost_OI - made_OI).norm())
        assert left == pytest.approx(float(torch.linalg.svdvals(lost_OI)[8:].norm()), rel=1e-3)
        assert left < 0.95 * float(lost_OI.norm())


@torch.no_grad()
def test_the_first_step_starts_nearer_to_the_original_than_four_bits_are(started: Any) -> None:
    adapted, original = started(rank=16)

    expected = original(input_ids=IDS).logits
    filled = (adapted(input_ids=IDS).logits - expected).norm()
    with adapted.disable_adapter():
        rounded = (adapted(input_ids=IDS).logits - expected).norm()

    assert filled < 0.9 * rounded


def test_a_rank_above_the_narrowest_layer_is_a_config_error(started: Any) -> None:
    with pytest.raises(ConfigError, match="loftq initialisation") as caught:
        started(rank=40)

    assert caught.value.where == "lora.rank"

"""Activations that are computed again give the same bits, and rows of 8,192 tokens fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests.support import ROOT
from tests.support.cli_process import launch
from tutelage.errors import ConfigError
from tutelage.model.activation_checkpointing import recompute_activations, recomputes
from tutelage.model.adapters.lora import add_lora
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.loss import row_loss
from tutelage.model.precision import cast_model
from tutelage.pack import pack_rows
from tutelage.types import Example

Documents = Callable[..., list[Example]]
SCRIPT = ROOT / "tests/support/long_row.py"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_loss_and_every_gradient_are_the_same_bits(
    tiny_model_folder: Path, documents: Documents, gradients_of: Callable[[Any], dict[str, torch.Tensor]], method: str
) -> None:
    rows = pack_rows(documents((40, 31, 12, 2, 60)), row_tokens=64)
    found = []
    for again in (False, True):
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, local_files_only=True)
        cast_model(model, "fp32")
        if method == "lora":
            model, _ = add_lora(model, rank=4, alpha=8, dropout=0.3, targets="all-linear")
        use_packed_attention(model)
        if again:
            recompute_activations(model)
        model.train()
        losses = [row_loss(model, row)[0] for row in rows]
        torch.stack(losses).sum().backward()
        found.append((torch.stack(losses).tolist(), gradients_of(model)))

    (losses, gradients), (losses_again, gradients_again) = found
    assert losses == losses_again
    assert all(torch.equal(one, gradients_again[name]) for name, one in gradients.items())


def test_a_layer_keeps_its_input_alone(tiny_model: Any, documents: Documents) -> None:
    (row,) = pack_rows(documents((200,)), row_tokens=200)
    use_packed_attention(tiny_model)
    kept_bytes = []
    for again in (False, True):
        if again:
            recompute_activations(tiny_model)
        tiny_model.train()
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            row_loss(tiny_model, row)
        kept_bytes.append(sum(sizes))
    assert kept_bytes[1] < kept_bytes[0] / 3


def test_a_row_of_8192_tokens_takes_a_bounded_part_of_the_memory() -> None:
    grown, losses = {}, set()
    for again in ("on", "off"):
        done = launch(str(SCRIPT), again, "8192")
        assert done.returncode == 0, done.stderr
        size, loss, count = done.stdout.split()
        grown[again] = int(size)
        losses.add(loss)
        assert int(count) == 8191
    assert len(losses) == 1
    assert grown["on"] < grown["off"] / 2


def test_auto_looks_at_the_room_of_a_row() -> None:
    assert not recomputes("auto", row_tokens=4096)
    assert recomputes("auto", row_tokens=4097)
    assert recomputes("on", row_tokens=64)
    assert not recomputes("off", row_tokens=1 << 20)


def test_a_model_that_cannot_is_a_config_error() -> None:
    class Old(LlamaForCausalLM):
        supports_gradient_checkpointing = False

    model = Old(
        LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ConfigError, match="activation_checkpointing"):
        recompute_activations(model)

"""Configurations that no model can be made of are named before one is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tutelage.errors import DataError
from tutelage.model.configuration import LAYERS_MOST, causal_configuration

SMALL = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("tensors", "layers", "most"),
    [(3, 10**300, "3"), (3, 4, "3"), (0, 10**6, f"{LAYERS_MOST:,}")],
)
def test_more_layers_than_tensors_are_refused_before_one_is_made(
    tmp_path: Path, tensors: int, layers: int, most: str
) -> None:
    if tensors:
        save_file({str(number): torch.zeros(1) for number in range(tensors)}, tmp_path / "model.safetensors")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SMALL | {"num_hidden_layers": layers}))
    with pytest.raises(DataError, match="more layers than there are weights") as caught:
        causal_configuration(file)
    assert caught.value.expected == f"at most {most}"
    assert len(str(caught.value.found)) <= 40


def test_as_many_layers_as_the_weights_could_fill_are_read(tmp_path: Path) -> None:
    save_file({str(number): torch.zeros(1) for number in range(3)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(SMALL | {"num_hidden_layers": 3}))
    assert causal_configuration(tmp_path / "config.json").num_hidden_layers == 3

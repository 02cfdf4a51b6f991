"""An adapter that is loaded again is the one that was saved; what is merged computes what the adapter did."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.tiny_kinds import tiny_kind
from tutelage.errors import ConfigError, DataError
from tutelage.model.adapters.adapter_set import WEIGHTS, active_adapter, add_adapter, attach_adapter
from tutelage.model.adapters.merge import merged_model

IDS = torch.arange(9)[None] + 5


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        computed: torch.Tensor = model.eval()(input_ids=IDS).logits
    return computed


def off(model: Any, expected: torch.Tensor) -> float:
    return float((logits(model) - expected).norm() / expected.norm())


def saved(base: Any, folder: Path, *, seed: int) -> torch.Tensor:
    """Save pairs on all linear layers of `base`, with values as training leaves them; returns the logits with them."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(copy.deepcopy(base), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    adapted.save_pretrained(folder)
    return logits(adapted)


@pytest.mark.parametrize("kind", ["laguna", "inkling2_text", "llama"])
def test_r26_pairs_that_peft_reads_past_are_loaded_and_merged(kind: str, tmp_path: Path) -> None:
    base = tiny_kind(kind)
    first = saved(base, tmp_path / "first", seed=1)
    second = saved(base, tmp_path / "second", seed=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        adapted = attach_adapter(copy.deepcopy(base), tmp_path / "first")
        add_adapter(adapted, tmp_path / "second", slot="other")
    assert off(adapted, first) < 1e-6
    with active_adapter(adapted, "other"):
        assert off(adapted, second) < 1e-6
    assert off(merged_model(base, tmp_path / "first"), first) < 1e-5


def test_r26_pairs_in_several_places_of_one_weight_are_not_merged(tmp_path: Path) -> None:
    base = tiny_kind("zamba")
    expected = saved(base, tmp_path, seed=1)
    assert off(attach_adapter(copy.deepcopy(base), tmp_path), expected) < 1e-6
    with pytest.raises(ConfigError, match="share a weight") as caught:
        merged_model(base, tmp_path)
    assert "shared_transf" in str(caught.value)
    assert 'model.adapter = "continue"' in str(caught.value.fix)


def test_r26_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    base = tiny_kind("laguna")
    saved(base, tmp_path, seed=1)
    tensors = load_file(tmp_path / WEIGHTS)
    name = next(name for name in tensors if "shared_experts" in name and "lora_B" in name)
    save_file(tensors | {name: torch.zeros(3, 2)}, tmp_path / WEIGHTS)
    with pytest.raises(DataError, match="shared_experts"):
        attach_adapter(base, tmp_path)

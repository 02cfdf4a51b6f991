"""LoRA adapters as GGUF: base and adapter in llama.cpp compute what PEFT computes; what cannot go is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.export.gguf.conftest import PROMPTS
from tutelage.errors import ConfigError
from tutelage.export.gguf.adapter import AdapterExport, export_gguf_adapter


def write_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """A random adapter on the model of a folder."""
    torch.manual_seed(1)
    chosen = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear"} | settings
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **chosen))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    model.save_pretrained(folder)
    return folder


def quietly(adapter: Path, base: Path, path: Path, **more: Any) -> AdapterExport:
    return export_gguf_adapter(adapter, base, path, **({"prompts": PROMPTS, "log": lambda _: None} | more))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {"use_rslora": True, "alpha_pattern": {"k_proj": 20}, "rank_pattern": {"v_proj": 2}}),
        *(pytest.param(name, {}, marks=pytest.mark.nightly)
          for name in ("mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")),
    ],
)  # fmt: skip
def test_llama_cpp_computes_base_and_adapter_as_peft_does(
    family_folder: Callable[[str], Path], tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp in a wheel is the witness: pip install xllamacpp")
    adapter = write_adapter(family_folder(name), tmp_path / "adapter", **settings)
    result = quietly(adapter, family_folder(name), tmp_path / "adapter.gguf")
    assert result.output is not None
    assert result.output.mean_kl < 1e-6
    assert result.output.flips == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "adapter.gguf"]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"modules_to_save": ["embed_tokens"]}, "whole modules beside the adapter"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "lora_only"}, "trained biases"),
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"),
    ],
)
def test_what_such_a_file_cannot_hold_is_said_with_the_way_out(
    family_folder: Callable[[str], Path], tmp_path: Path, settings: dict[str, Any], found: str
) -> None:
    (tmp_path / "adapter").mkdir()
    plain = {"peft_type": "LORA", "lora_alpha": 8, "r": 4}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(plain | settings))
    with pytest.raises(ConfigError) as caught:
        quietly(tmp_path / "adapter", family_folder("llama"), tmp_path / "adapter.gguf")
    assert found in str(caught.value.found)
    assert "tutelage export RUN --to gguf" in str(caught.value.fix)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_on_a_tied_head_is_refused(family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """llama.cpp has no tensor of that name in the base (llama.cpp#9065)."""
    base = tmp_path / "base"
    shutil.copytree(family_folder("llama"), base)
    adapter = write_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    with pytest.raises(ConfigError, match="no place for") as caught:
        quietly(adapter, base, tmp_path / "adapter.gguf")
    assert "lm_head" in str(caught.value.where)

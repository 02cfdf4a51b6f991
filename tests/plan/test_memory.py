from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from tutelage.optim.state_size import SMALLEST_QUANTISED
from tutelage.plan.devices import Device, Overhead, named_gpus, overheads, this_machine
from tutelage.plan.fit import Traces
from tutelage.plan.memory import NF4_BITS, lora_init_bytes
from tutelage.plan.model_shape import ModelShape
from tutelage.plan.rule_of_thumb import DIFFERENCES, rule_of_thumb
from tutelage.plan.workload import METHODS, Method, Precision, single_document

NOTHING = Overhead(process_bytes=0, heap_share=0.0, holds_file=False, source="made for a test")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
KEPT = ("weights", "masters", "gradients", "moments")


@pytest.mark.parametrize(("precision", "each"), [("bf16", 18), ("fp32", 16)])
def test_full_fine_tuning_keeps_18_bytes_a_parameter_in_bf16_and_16_in_fp32(
    small: ModelShape, precision: Precision, each: int
):
    found = Traces(small).memory(single_document("full", precision, 128), NOTHING)
    assert sum(found.of(name) for name in KEPT) == each * small.parameters


def test_lora_keeps_masters_and_moments_of_its_pairs_only(small: ModelShape):
    traces, workload = Traces(small), single_document("lora", "bf16", 128)
    trainable = traces.of(workload).trainable
    found = traces.memory(workload, NOTHING)
    assert [found.of(name) for name in KEPT] == [
        2 * (small.parameters + trainable),
        4 * trainable,
        4 * trainable,
        8 * trainable,
    ]


@pytest.mark.parametrize("method", METHODS)
def test_the_start_that_full_fine_tuning_is_pulled_to_is_counted_as_it_is_stored(small: ModelShape, method: Method):
    traces, workload = Traces(small), single_document(method, "bf16", 64)
    pulled = traces.memory(replace(workload, pulled_to_base=True), NOTHING)
    more = pulled.training_bytes - traces.memory(workload, NOTHING).training_bytes
    assert more == (small.stored_bytes_per_parameter * small.parameters if method == "full" else 0)


@pytest.mark.parametrize("method", METHODS)
def test_what_holds_a_model_to_its_base_is_counted(small: ModelShape, method: Method):
    """Logits of the base and its probabilities; in full fine-tuning also its head, a gradient, and hidden states."""
    traces, workload = Traces(small), single_document(method, "bf16", 64)
    held = traces.memory(replace(workload, held_to_base=True, kept_tokens=1000), NOTHING)
    more = held.training_bytes - traces.memory(workload, NOTHING).training_bytes
    logits, width = 63 * small.vocabulary * (4 + 4 + 2), small.hidden_width
    kept = 2 * (2 * small.vocabulary * width + 1000 * width)
    assert more == {"full": logits + kept, "lora": logits, "qlora": logits, "prompt": 0}[method]


def test_what_looks_at_data_takes_a_covariance_or_a_gradient_for_each_layer(small: ModelShape, seven_b: ModelShape):
    assert lora_init_bytes(seven_b, "corda") == 4 * 32 * (6 * 4096**2 + 11008**2)
    assert lora_init_bytes(seven_b, "lora_ga") == seven_b.linear_parameters * seven_b.stored_bytes_per_parameter
    assert lora_init_bytes(small, "eva") == lora_init_bytes(small, "default") == 0


def test_qlora_packs_linear_layers_and_widens_one_at_a_time(seven_b: ModelShape):
    traces = Traces(seven_b)
    lora, qlora = (traces.memory(single_document(one, "bf16", 512), NOTHING) for one in ("lora", "qlora"))
    saved = seven_b.linear_parameters * (2 - NF4_BITS[True] / 8)
    assert lora.of("weights") - qlora.of("weights") == pytest.approx(saved, abs=1)
    assert qlora.of("workspace") - lora.of("workspace") == 2 * seven_b.largest_linear
    assert 3.5e9 < qlora.of("weights") < 4.1e9


def test_a_prompt_trains_one_embedding_a_virtual_token(small: ModelShape):
    found = Traces(small).memory(single_document("prompt", "bf16", 128), NOTHING)
    assert found.of("moments") == 8 * 20 * small.hidden_width


@pytest.mark.parametrize("method", METHODS)
def test_figures_add_up_to_the_peak_and_each_says_its_formula_and_source(small: ModelShape, method: Method):
    found = Traces(small).memory(single_document(method, "bf16", 128), overheads()["cpu"])
    assert found.training_bytes == sum(figure.size_bytes for figure in found.figures)
    assert found.peak_bytes >= found.training_bytes
    assert all(figure.formula and figure.source for figure in found.figures)


def test_sharding_divides_what_stays_and_not_what_comes_and_goes(seven_b: ModelShape):
    traces, workload = Traces(seven_b), single_document("full", "bf16", 512)
    one, eight = traces.memory(workload, NOTHING), traces.memory(workload, NOTHING, shards=8)
    for name in KEPT:
        assert eight.of(name) == pytest.approx(one.of(name) / 8, abs=1)
    assert eight.of("activations") == one.of("activations")
    assert eight.of("workspace") > one.of("workspace")


def test_p2_an_8_bit_optimizer_saves_almost_six_bytes_of_what_it_quantises(small: ModelShape):
    traces, workload = Traces(small), single_document("full", "bf16", 128)
    wide, narrow = (
        traces.memory(replace(workload, optimizer=name), NOTHING).of("moments") for name in ("adamw", "adamw_8bit")
    )
    assert wide == 8 * small.parameters
    head = small.cut.get_output_embeddings()
    inside = [module for module in small.cut.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    assert small.cut.get_decoder().layers[0].self_attn.q_proj.weight.numel() >= SMALLEST_QUANTISED
    quantised = [one.weight.numel() for one in inside if one.weight.numel() >= SMALLEST_QUANTISED]
    each_layer = sum(quantised) / small.cut_layer_count
    assert (wide - narrow) / (each_layer * small.layers) == pytest.approx(6 - 2 * 4 / 256, rel=1e-3)


def test_loading_holds_the_stored_file_beside_what_it_becomes(small: ModelShape, device: Callable[[float], Device]):
    file = replace(NOTHING, holds_file=True)
    converted = Traces(small).memory(single_document("prompt", "bf16", 2), file)
    assert converted.loading_bytes == (4 * small.parameters) + converted.of("weights")
    as_stored = Traces(small).memory(single_document("prompt", "fp32", 2), file)
    assert as_stored.loading_bytes == 4 * small.parameters


def test_4_bit_weights_leave_their_file_mapped_where_embeddings_stay_as_stored(small: ModelShape):
    file = replace(NOTHING, holds_file=True)
    as_stored, converted = (
        Traces(small).memory(single_document("qlora", precision, 64), file) for precision in PRECISIONS
    )
    assert as_stored.of("process") == 4 * small.linear_parameters
    assert converted.of("process") == 0


def test_the_rule_of_thumb_for_7b_and_70b(seven_b: ModelShape, seventy_b: ModelShape):
    small, large = (rule_of_thumb(one.parameters).size_bytes for one in (seven_b, seventy_b))
    assert small["full"] / 1e9 == pytest.approx(56, rel=0.05)
    assert small["lora"] / 1e9 == pytest.approx(14, rel=0.05)
    assert small["prompt"] / 1e9 == pytest.approx(14, rel=0.05)
    assert small["qlora"] / 1e9 == pytest.approx(6, rel=0.05)
    assert large["full"] / 1e9 == pytest.approx(560, rel=0.05)
    assert any("18 bytes" in difference for difference in DIFFERENCES)


def test_the_engine_needs_more_for_full_7b_than_the_rule_says(seven_b: ModelShape):
    found = Traces(seven_b).memory(single_document("full", "bf16", 512), NOTHING)
    assert (
        sum(found.of(name) for name in KEPT)
        == 18 * seven_b.parameters
        > 2 * rule_of_thumb(seven_b.parameters).size_bytes["full"]
    )


def test_every_gpu_has_its_facts_and_a_source():
    gpus = named_gpus()
    assert [gpu.memory_bytes // 10**9 for gpu in gpus] == [8, 16, 24, 48, 80, 141]
    for gpu in gpus:
        assert gpu.peak_operations_per_second is not None
        assert 1e13 < gpu.peak_operations_per_second < 1e15
        assert gpu.bandwidth_bytes_per_second is not None
        assert 1e11 < gpu.bandwidth_bytes_per_second < 1e13
        assert "NVIDIA" in gpu.source


def test_this_machine_has_memory_and_not_more_free_than_all():
    found = this_machine()
    assert found.is_this_machine
    assert 0 < found.memory_bytes <= found.total_bytes
    assert found.source

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tutelage.errors import FitError
from tutelage.plan.devices import Device
from tutelage.plan.fit import USABLE_MEMORY_FRACTION, Traces, choose_checkpointing, fits, require_fit, suggestions
from tutelage.plan.model_shape import ModelShape
from tutelage.plan.workload import Workload, document_lengths, single_document


def test_checkpointing_is_off_where_all_fits_and_on_where_it_would_not(
    small: ModelShape, device: Callable[[float], Device]
):
    workload = single_document("full", "fp32", 800)
    roomy = choose_checkpointing(small, workload, device(1e12))
    assert not roomy.on
    assert roomy.with_bytes < roomy.without_bytes
    tight = choose_checkpointing(
        small, workload, device(roomy.without_bytes)
    )  # without the room that a prediction needs
    assert tight.on
    just = choose_checkpointing(small, workload, device(1.01 * roomy.without_bytes / USABLE_MEMORY_FRACTION))
    assert not just.on
    assert "GB" in roomy.reason
    assert "off" in roomy.reason
    assert "on" in tight.reason


@pytest.mark.nightly  # the test above decides the same between two sizes of memory
def test_8192_tokens_of_smollm2_run_with_checkpointing_in_5_gb(
    write_config: Callable[..., object], device: Callable[[float], Device]
):
    from tutelage.plan.model_shape import read_model_shape

    smollm2 = write_config(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192,
    )  # fmt: skip
    model_shape = read_model_shape(str(smollm2))
    assert model_shape.parameters == 134_515_008
    choice = choose_checkpointing(model_shape, single_document("full", "bf16", 8192), device(5e9))
    assert choice.on
    assert choice.without_bytes > 5e9 > choice.with_bytes / USABLE_MEMORY_FRACTION


def test_ways_that_keep_the_mathematics_come_first(seven_b: ModelShape, device: Callable[[float], Device]):
    workload = Workload("full", "bf16", document_lengths(2048, 256), 1024)
    target = device(24e9)
    found = suggestions(Traces(seven_b), workload, target.overhead, target.memory_bytes)
    assert [one.what for one in found][:5] == [
        "activation checkpointing",
        "smaller rows",
        "8-bit optimizer",
        "LoRA",
        "QLoRA",
    ]
    by_name = {one.what: one for one in found}
    assert not by_name["activation checkpointing"].fits
    assert by_name["QLoRA"].fits
    assert by_name["QLoRA"].peak_bytes < by_name["LoRA"].peak_bytes
    assert "same mathematics" in by_name["smaller rows"].cost
    sharded = found[-1]
    assert "sharded over" in sharded.what
    assert sharded.fits


@pytest.mark.parametrize("changed", [{"method": "qlora"}, {"optimizer": "adamw_8bit"}])
def test_what_cannot_be_sharded_is_not_told_to(
    changed: dict[str, str], seven_b: ModelShape, device: Callable[[float], Device]
):
    workload = replace(single_document("full", "bf16", 512), **changed)

    found = suggestions(Traces(seven_b), workload, device(0).overhead, int(8e9))

    assert found
    assert not [one for one in found if "sharded" in one.what]


def test_the_fewest_devices_that_do_are_named(seven_b: ModelShape, device: Callable[[float], Device]):
    workload = single_document("full", "bf16", 512)
    traces = Traces(seven_b)
    found = suggestions(traces, workload, device(0).overhead, int(80e9))[-1]
    assert "over 2 devices" in found.what
    assert fits(traces.memory(replace(workload, checkpointing=True), device(0).overhead, shards=2), int(80e9))
    assert not fits(traces.memory(replace(workload, checkpointing=True), device(0).overhead), int(80e9))


def test_lora_is_not_told_to_become_lora(seven_b: ModelShape, device: Callable[[float], Device]):
    found = suggestions(Traces(seven_b), single_document("lora", "bf16", 512), device(0).overhead, int(10e9))
    assert not [one for one in found if one.what.startswith("LoRA") or "optimizer" in one.what]
    assert any(one.what == "QLoRA" and one.fits for one in found)


def test_a_row_is_never_shorter_than_its_longest_document(seven_b: ModelShape, device: Callable[[float], Device]):
    one = suggestions(Traces(seven_b), single_document("lora", "bf16", 512), device(0).overhead, int(8e9))
    assert not [way for way in one if way.what == "smaller rows"]


def test_what_does_not_fit_stops_with_the_first_way_that_does(seven_b: ModelShape, device: Callable[[float], Device]):
    workload, here = single_document("full", "bf16", 512), device(24e9)
    traces = Traces(seven_b)
    alternatives = suggestions(traces, workload, here.overhead, here.memory_bytes)
    with pytest.raises(FitError, match="does not fit") as caught:
        require_fit(traces.memory(workload, here.overhead), here, alternatives)
    assert "model.method=lora" in str(caught.value)
    require_fit(traces.memory(replace(workload, method="qlora"), here.overhead), here, alternatives)


def test_rows_are_filled_with_equal_documents():
    assert document_lengths(1000, 300) == (300, 300, 300, 100)
    assert document_lengths(200, 300) == (200,)
    workload = Workload("full", "fp32", (300, 300, 300, 100), 500).with_row(500)
    assert workload.document_tokens == (300, 200)
    assert workload.trained_tokens == 250

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tutelage.plan.devices import Device
from tutelage.plan.model_shape import ModelShape
from tutelage.plan.seconds import OPTIMIZER_BYTES, UTILIZATION, Pace, estimated_pace, measured_pace
from tutelage.plan.trace import trace
from tutelage.plan.workload import single_document


def test_a_gpu_that_is_not_here_is_told_from_operations_and_bandwidth(
    small: ModelShape, device: Callable[[float], Device]
):
    traced = trace(small, single_document("full", "bf16", 256))
    pace = estimated_pace(traced, device(1e9))
    assert pace.row_seconds == pytest.approx(traced.operations / (UTILIZATION * 1e12))
    assert pace.optimizer_seconds == pytest.approx(OPTIMIZER_BYTES * small.parameters / 1e11)
    assert not pace.measured
    assert "estimated" in pace.how


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_probe_measures_here_and_says_on_what(small: ModelShape, device: Callable[[float], Device], method: str):
    workload = single_document("full" if method == "full" else "lora", "fp32", 200)
    pace = measured_pace(small, workload, trace(small, workload), device(1e12), seconds=0.5)
    assert isinstance(pace, Pace)
    assert pace.measured
    assert 0 < pace.row_seconds < 60
    assert 0 < pace.optimizer_seconds < 60
    assert "one and two layers" in pace.how


def test_a_model_whose_layers_do_not_fit_is_not_probed(seven_b: ModelShape, device: Callable[[float], Device]):
    workload = single_document("full", "fp32", 64)
    found = measured_pace(seven_b, workload, trace(seven_b, workload), device(1e9))
    assert isinstance(found, str)
    assert "GB" in found


def test_layers_that_differ_are_not_probed(small: ModelShape, device: Callable[[float], Device]):
    workload = single_document("full", "fp32", 64)
    found = measured_pace(replace(small, equal_layers=False), workload, trace(small, workload), device(1e12))
    assert isinstance(found, str)
    assert "not alike" in found

"""Seconds of a step: measured on a few layers on this machine, or estimated from counted operations for another GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.model.loss import row_loss
from tutelage.plan.devices import Device
from tutelage.plan.model_shape import ModelShape
from tutelage.plan.trace import Trace, materialize, prepared_model, row_of
from tutelage.plan.workload import COMPUTE_BYTES, Workload

PROBE_SECONDS = 10.0
PROBE_LAYERS = (1, 2)
FIRST_TOKENS = 64
PROBE_MEMORY_FRACTION = 0.5
"""Share of the free memory that a probe may take."""

UTILIZATION = 0.4
"""Share of a GPU's peak that training reaches. Source: Grattafiori et al. 2024 (Llama 3), table 4: 38 to 43 % on H100s;
small models and short rows reach less."""

OPTIMIZER_BYTES = 30
"""Bytes moved for each trained parameter by a step of AdamW: master, gradient and two moments read, all but the
gradient written (28), and the weight published (2)."""

TIMED_PARAMETERS = 4_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast rows go.

    Attributes:
        row_seconds: forward and backward of the fullest row.
        optimizer_seconds: one step of the optimizer.
        how: where it comes from, in a sentence.
        measured: on this machine, not estimated from operations.
    """

    row_seconds: float
    optimizer_seconds: float
    how: str
    measured: bool


def estimated_pace(traced: Trace, device: Device) -> Pace:
    """Operations over peak, and bytes of the optimizer over bandwidth: an estimate, not a measurement."""
    assert device.peak_operations_per_second is not None
    assert device.bandwidth_bytes_per_second is not None
    return Pace(
        traced.operations / (UTILIZATION * device.peak_operations_per_second),
        OPTIMIZER_BYTES * traced.trainable / device.bandwidth_bytes_per_second,
        f"estimated: operations / ({UTILIZATION:.0%} of {device.peak_operations_per_second / 1e12:g} TFLOP/s)",
        measured=False,
    )


def measured_pace(
    model_shape: ModelShape, workload: Workload, traced: Trace, device: Device, *, seconds: float = PROBE_SECONDS
) -> Pace | str:
    """Time one and two layers with random weights on this machine, for about `seconds`, and extrapolate to all.

    Returns:
        The pace, or why there is none.
    """
    compute_bytes = COMPUTE_BYTES[workload.precision]
    layer_parameters = model_shape.linear_parameters // max(1, model_shape.layers)
    needed_bytes = (
        2 * compute_bytes * (2 * layer_parameters + 2 * model_shape.head_parameters)
        + traced.activation_bytes // model_shape.layers * 2
    )
    if needed_bytes > PROBE_MEMORY_FRACTION * device.memory_bytes:
        return f"no probe: two layers and the head alone need {needed_bytes / 1e9:.1f} GB"
    if not model_shape.equal_layers or model_shape.layers < max(PROBE_LAYERS):
        return "no probe: the layers of this model are not alike"
    start_seconds = time.perf_counter()
    run_one_layer, run_two_layers = (_runner(model_shape, workload, layers, device) for layers in PROBE_LAYERS)
    small_workload = workload.with_row(min(FIRST_TOKENS, workload.row_tokens))
    run_two_layers(small_workload)  # compiles kernels
    first_seconds = run_two_layers(small_workload)
    affordable = int(seconds / 6 / first_seconds * small_workload.row_tokens)
    probe_workload = (
        workload if affordable >= workload.row_tokens else workload.with_row(max(small_workload.row_tokens, affordable))
    )
    shortest_seconds = [run_one_layer(probe_workload), run_two_layers(probe_workload)]
    while time.perf_counter() - start_seconds < seconds - sum(shortest_seconds):
        shortest_seconds = [
            min(shortest_seconds[0], run_one_layer(probe_workload)),
            min(shortest_seconds[1], run_two_layers(probe_workload)),
        ]
    layer_seconds = max(shortest_seconds[1] - shortest_seconds[0], 0.0)
    fixed_seconds = max(shortest_seconds[0] - layer_seconds, 0.0)
    row_seconds = (fixed_seconds + model_shape.layers * layer_seconds) * workload.row_tokens / probe_workload.row_tokens
    caution = "; widening 4-bit weights not counted" if workload.method == "qlora" else ""
    return Pace(
        row_seconds,
        _optimizer_seconds(device) * traced.trainable,
        f"measured in {time.perf_counter() - start_seconds:.0f} s: one and two layers, "
        f"rows of {probe_workload.row_tokens} tokens, {torch.get_num_threads()} threads{caution}",
        measured=True,
    )


def _runner(model_shape: ModelShape, workload: Workload, layers: int, device: Device) -> Callable[[Workload], float]:
    """A function that runs a row forward and backward through `layers` layers and says the seconds it took."""
    target = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = prepared_model(model_shape.with_layers(layers), workload)
    generator = torch.Generator().manual_seed(0)

    def random(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape).normal_(std=0.02, generator=generator).to(target, dtype)

    materialize(model, parameter=random, buffer=lambda shape, dtype: torch.zeros(shape, dtype=dtype, device=target))
    assert device.is_this_machine

    def run(row_workload: Workload) -> float:
        start_seconds = time.perf_counter()
        loss, count = row_loss(model, row_of(row_workload))
        (loss / count).backward()
        loss.item()
        return time.perf_counter() - start_seconds

    return run


def _optimizer_seconds(device: Device) -> float:
    """Seconds of fused AdamW for each trained parameter here."""
    assert device.is_this_machine
    target = "cuda" if torch.cuda.is_available() else "cpu"
    weights = torch.nn.Parameter(torch.zeros(TIMED_PARAMETERS, device=target))
    weights.grad = torch.ones_like(weights)
    optimizer = torch.optim.AdamW([weights], fused=True)
    optimizer.step()  # makes the moments
    start_seconds = time.perf_counter()
    optimizer.step()
    float(weights.detach()[0])  # waits for a GPU
    return (time.perf_counter() - start_seconds) / TIMED_PARAMETERS

"""Seconds of a step: measured on a few layers here, or told from counted operations for a GPU that is not here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.model.loss import row_loss
from tutelage.plan.devices import Device
from tutelage.plan.model_shape import ModelShape
from tutelage.plan.trace import Trace, give_tensors, prepared_model, row_of
from tutelage.plan.workload import COMPUTE_BYTES, Workload

PROBE_SECONDS = 10.0
PROBE_LAYERS = (1, 2)
FIRST_TOKENS = 64
PROBE_MEMORY_SHARE = 0.5
"""Share of the free memory that a probe may take."""

UTILISATION = 0.4
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
        measured: on this machine, not told from operations.
    """

    row_seconds: float
    optimizer_seconds: float
    how: str
    measured: bool


def supposed_pace(traced: Trace, device: Device) -> Pace:
    """Operations over peak, and bytes of the optimizer over bandwidth: an estimate, not a measurement."""
    assert device.peak_operations_per_second is not None
    assert device.bandwidth_bytes_per_second is not None
    return Pace(
        traced.operations / (UTILISATION * device.peak_operations_per_second),
        OPTIMIZER_BYTES * traced.trainable / device.bandwidth_bytes_per_second,
        f"estimated: operations / ({UTILISATION:.0%} of {device.peak_operations_per_second / 1e12:g} TFLOP/s)",
        measured=False,
    )


def probed_pace(
    model_shape: ModelShape, workload: Workload, traced: Trace, device: Device, *, seconds: float = PROBE_SECONDS
) -> Pace | str:
    """Time one and two layers with random weights on this machine, for about `seconds`, and extrapolate to all.

    Returns:
        The pace, or why there is none.
    """
    width = COMPUTE_BYTES[workload.precision]
    layer = model_shape.linear_parameters // max(1, model_shape.layers)
    needed = (
        2 * width * (2 * layer + 2 * model_shape.head_parameters) + traced.activation_bytes // model_shape.layers * 2
    )
    if needed > PROBE_MEMORY_SHARE * device.memory_bytes:
        return f"no probe: two layers and the head alone need {needed / 1e9:.1f} GB"
    if not model_shape.equal_layers or model_shape.layers < max(PROBE_LAYERS):
        return "no probe: the layers of this model are not alike"
    began = time.perf_counter()
    one, two = (_runner(model_shape, workload, layers, device) for layers in PROBE_LAYERS)
    small = workload.with_row(min(FIRST_TOKENS, workload.row_tokens))
    two(small)  # compiles kernels
    first_seconds = two(small)
    affordable = int(seconds / 6 / first_seconds * small.row_tokens)
    tried = workload if affordable >= workload.row_tokens else workload.with_row(max(small.row_tokens, affordable))
    shortest = [one(tried), two(tried)]
    while time.perf_counter() - began < seconds - sum(shortest):
        shortest = [min(shortest[0], one(tried)), min(shortest[1], two(tried))]
    layer_seconds = max(shortest[1] - shortest[0], 0.0)
    rest_seconds = max(shortest[0] - layer_seconds, 0.0)
    row_seconds = (rest_seconds + model_shape.layers * layer_seconds) * workload.row_tokens / tried.row_tokens
    slower = "; widening 4-bit weights not counted" if workload.method == "qlora" else ""
    return Pace(
        row_seconds,
        _optimizer_seconds(device) * traced.trainable,
        f"measured in {time.perf_counter() - began:.0f} s: one and two layers, rows of {tried.row_tokens} tokens, "
        f"{torch.get_num_threads()} threads{slower}",
        measured=True,
    )


def _runner(model_shape: ModelShape, workload: Workload, layers: int, device: Device) -> Callable[[Workload], float]:
    """A function that runs a row forward and backward through `layers` layers and says the seconds it took."""
    target = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = prepared_model(model_shape.with_layers(layers), workload)
    generator = torch.Generator().manual_seed(0)

    def random(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape).normal_(std=0.02, generator=generator).to(target, dtype)

    give_tensors(model, parameter=random, buffer=lambda shape, dtype: torch.zeros(shape, dtype=dtype, device=target))
    assert device.is_here

    def run(one: Workload) -> float:
        began = time.perf_counter()
        loss, count = row_loss(model, row_of(one))
        (loss / count).backward()
        loss.item()
        return time.perf_counter() - began

    return run


def _optimizer_seconds(device: Device) -> float:
    """Seconds of fused AdamW for each trained parameter here."""
    assert device.is_here
    target = "cuda" if torch.cuda.is_available() else "cpu"
    weights = torch.nn.Parameter(torch.zeros(TIMED_PARAMETERS, device=target))
    weights.grad = torch.ones_like(weights)
    optimizer = torch.optim.AdamW([weights], fused=True)
    optimizer.step()  # makes the moments
    began = time.perf_counter()
    optimizer.step()
    float(weights.detach()[0])  # waits for a GPU
    return (time.perf_counter() - began) / TIMED_PARAMETERS

"""The whole plan of a run: bytes and seconds for the chosen method and the others, here and on named GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tutelage.plan.devices import Device, named_gpus
from tutelage.plan.fit import Choice, Suggestion, Traces, choose_checkpointing, fits, suggestions
from tutelage.plan.memory import Memory
from tutelage.plan.model_shape import ModelShape
from tutelage.plan.rule_of_thumb import DIFFERENCES, rule_of_thumb
from tutelage.plan.seconds import Pace, estimated_pace, measured_pace
from tutelage.plan.trace import Trace
from tutelage.plan.workload import METHODS, Method, Workload

LONG_ROWS = (8192,)
"""Lengths of one document for which the choice of checkpointing is shown."""

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DataVolume:
    """How much a run goes through.

    Attributes:
        examples: sequences of one epoch.
        tokens: of one epoch.
        trained_tokens: of one epoch, those whose loss counts; None where nobody counted them.
        steps: optimizer steps in all.
        step_tokens: tokens of a step, on average.
        basis: counted on prepared data; or by what is published of data that is not here, with the mean of a row, or
            with rows as long as they can be.
    """

    examples: int
    tokens: int
    trained_tokens: int | None
    steps: int
    step_tokens: float
    basis: Literal["counted", "published", "published, at most"] = "counted"


@dataclass(frozen=True, slots=True)
class Option:
    """One method, here and on named GPUs: the peak as it is, and with each layer's activations recomputed."""

    method: Method
    traced: Trace
    plain: Memory
    recomputed: Memory
    on_gpu: Memory
    on_gpu_recomputed: Memory

    def verdict(self, memory_bytes: int, *, gpu: bool) -> str:
        """Whether it "fits", fits "with checkpointing", or "no"."""
        plain, recomputed = (self.on_gpu, self.on_gpu_recomputed) if gpu else (self.plain, self.recomputed)
        if fits(plain, memory_bytes):
            return "fits"
        return "with checkpointing" if fits(recomputed, memory_bytes) else "no"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a plan says; `as_dict` is what `--json` prints.

    `alternatives` is empty where the workload fits as it is.
    """

    model_shape: ModelShape
    workload: Workload
    device: Device
    chosen: Option
    options: tuple[Option, ...]
    choice: Choice
    alternatives: tuple[Suggestion, ...]
    long_rows: dict[int, Choice]
    data_volume: DataVolume | None
    pace: Pace | str
    gpu_paces: dict[str, Pace]

    def run_seconds(self, pace: Pace) -> float | None:
        """The steps of the run at that pace, evaluations left out."""
        if self.data_volume is None:
            return None
        rows = self.data_volume.steps * self.data_volume.step_tokens / self.workload.row_tokens
        return rows * pace.row_seconds + self.data_volume.steps * pace.optimizer_seconds

    def as_dict(self) -> dict[str, Any]:
        """Plain values, bytes and seconds."""
        rule = rule_of_thumb(self.model_shape.parameters)
        return {
            "model": {
                "name": self.model_shape.name,
                "class": self.model_shape.kind,
                "parameters": self.model_shape.parameters,
                "layers": self.model_shape.layers,
                "hidden_width": self.model_shape.hidden_width,
                "vocabulary": self.model_shape.vocabulary,
            },
            "work": asdict(self.workload) | {"row_tokens": self.workload.row_tokens},
            "device": {
                "name": self.device.name,
                "memory_bytes": self.device.memory_bytes,
                "total_bytes": self.device.total_bytes,
                "source": self.device.source,
            },
            "methods": {option.method: _option(option, self.device) for option in self.options},
            "chosen": _memory(self.chosen.plain) | {"method": self.chosen.method},
            "activation_checkpointing": asdict(self.choice) | {"reason": self.choice.reason},
            "long_documents": {str(tokens): asdict(choice) for tokens, choice in self.long_rows.items()},
            "ways_to_need_less": [asdict(alternative) for alternative in self.alternatives],
            "gpus": {
                gpu.name: {
                    "memory_bytes": gpu.memory_bytes,
                    "source": gpu.source,
                    "verdict": {option.method: option.verdict(gpu.memory_bytes, gpu=True) for option in self.options},
                    "row_seconds_estimated": self.gpu_paces[gpu.name].row_seconds,
                    "run_seconds_estimated": self.run_seconds(self.gpu_paces[gpu.name]),
                }
                for gpu in named_gpus()
            },
            "amount": None if self.data_volume is None else asdict(self.data_volume),
            "pace": self.pace if isinstance(self.pace, str) else asdict(self.pace),
            "run_seconds": None if isinstance(self.pace, str) else self.run_seconds(self.pace),
            "rule_of_thumb": {
                "bytes": dict(rule.size_bytes),
                "formulas": {method: rule.text(method) for method in METHODS},
                "differences": list(DIFFERENCES),
            },
        }


def make_plan(
    model_shape: ModelShape,
    workload: Workload,
    device: Device,
    *,
    data_volume: DataVolume | None = None,
    probe: bool = True,
    log: Log = lambda _text: None,
) -> Plan:
    """Plan `workload` on `device`, beside the other methods and named GPUs.

    Args:
        model_shape: the model.
        workload: what the run would do.
        device: where.
        data_volume: what it goes through, where its data is known.
        probe: time a few layers for about ten seconds.
        log: told what goes on.

    Raises:
        ConfigError: the engine refuses this model or these documents.
    """
    traces = Traces(model_shape)
    log("counting bytes on tensors without memory")
    options = tuple(_option_for(traces, _with_method(workload, method), device) for method in METHODS)
    chosen = next(option for option in options if option.method == workload.method)
    alternatives: tuple[Suggestion, ...] = ()
    if not fits(chosen.plain, device.memory_bytes):
        log("looking for ways to need less")
        alternatives = suggestions(traces, workload, device.overhead, device.memory_bytes)
    long_rows = {
        tokens: choose_checkpointing(
            model_shape, replace(workload, document_tokens=(tokens,), parents=(), trained_tokens=tokens - 1), device
        )
        for tokens in LONG_ROWS
    }
    pace: Pace | str = "no probe asked for"
    if probe and device.is_this_machine:
        log("timing layers for about ten seconds")
        pace = measured_pace(model_shape, workload, chosen.traced, device)
    on_gpu = replace(workload, precision="bf16")
    return Plan(
        model_shape=model_shape,
        workload=workload,
        device=device,
        chosen=chosen,
        options=options,
        choice=choose_checkpointing(model_shape, replace(workload, checkpointing=False), device),
        alternatives=alternatives,
        long_rows=long_rows,
        data_volume=data_volume,
        pace=pace,
        gpu_paces={gpu.name: estimated_pace(traces.of(on_gpu), gpu) for gpu in named_gpus()},
    )


def _with_method(workload: Workload, method: Method) -> Workload:
    """The same with another method; patterns of frozen parameters belong to full fine-tuning alone."""
    return workload if workload.method == method else replace(workload, method=method, frozen=())


def _option_for(traces: Traces, workload: Workload, device: Device) -> Option:
    gpu = named_gpus()[0].overhead
    on_gpu = replace(workload, precision="bf16")
    recomputed = replace(workload, checkpointing=True)
    return Option(
        method=workload.method,
        traced=traces.of(workload),
        plain=traces.memory(workload, device.overhead),
        recomputed=traces.memory(recomputed, device.overhead),
        on_gpu=traces.memory(on_gpu, gpu),
        on_gpu_recomputed=traces.memory(replace(on_gpu, checkpointing=True), gpu),
    )


def _memory(needed: Memory) -> dict[str, Any]:
    return {
        "peak_bytes": needed.peak_bytes,
        "training_bytes": needed.training_bytes,
        "loading_bytes": needed.loading_bytes,
        "figures": [asdict(figure) for figure in needed.figures],
    }


def _option(option: Option, device: Device) -> dict[str, Any]:
    return {
        "trainable": option.traced.trainable,
        "operations_per_row": option.traced.operations,
        "verdict": option.verdict(device.memory_bytes, gpu=False),
        "plain": _memory(option.plain),
        "with_checkpointing": _memory(option.recomputed),
        "on_gpu_bytes": option.on_gpu.peak_bytes,
        "on_gpu_with_checkpointing_bytes": option.on_gpu_recomputed.peak_bytes,
    }

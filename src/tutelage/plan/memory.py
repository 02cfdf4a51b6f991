"""Bytes of a training step, figure by figure, each with its formula and the formula's source."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tutelage.model.layers import decoder_of
from tutelage.model.loss import CHUNK_POSITIONS
from tutelage.optim.state_size import moment_bytes
from tutelage.plan.devices import Overhead
from tutelage.plan.model_shape import ModelShape
from tutelage.plan.trace import Trace
from tutelage.plan.workload import COMPUTE_BYTES, Workload

NF4_BITS = {True: 4 + 0.127, False: 4 + 0.5}
"""Bits of a weight in NF4, with and without double quantisation. Source: Dettmers et al. 2023 (QLoRA), section 3."""

AVERAGE_BYTES = 4

MASTER_BYTES = 4
GRADIENT_BYTES = 4
ENGINE = "src/tutelage/optim/master_weights.py"
TRACE = "counted on the engine's own forward and backward (src/tutelage/plan/trace.py)"


@dataclass(frozen=True, slots=True)
class Figure:
    """A name, its bytes, the formula with its numbers, and where the formula comes from."""

    name: str
    size_bytes: int
    formula: str
    source: str


@dataclass(frozen=True, slots=True)
class Memory:
    """The bytes of one device while it trains.

    Attributes:
        figures: they add up to `training_bytes`.
        loading_bytes: the fullest moment before the first step, while the checkpoint's file is copied.
    """

    figures: tuple[Figure, ...]
    loading_bytes: int

    @property
    def training_bytes(self) -> int:
        """The fullest moment of a step."""
        return sum(figure.size_bytes for figure in self.figures)

    @property
    def peak_bytes(self) -> int:
        """The fullest moment of the run, evaluations left out."""
        return max(self.training_bytes, self.loading_bytes)

    def of(self, name: str) -> int:
        """Bytes of the figure `name`."""
        return next(figure.size_bytes for figure in self.figures if figure.name == name)


def looking_bytes(model_shape: ModelShape, init: str) -> int:
    """What an initialisation of LoRA on all linear layers takes beside the weights while it looks at data.

    CorDA keeps the covariance of each layer's inputs in fp32, LoRA-GA the gradient of each weight as it is stored.
    Source: PEFT 0.21, `preprocess_corda` and `preprocess_loraga`.
    """
    if init == "lora_ga":
        return model_shape.linear_parameters * model_shape.stored_bytes_per_parameter
    if init != "corda":
        return 0
    layers = decoder_of(model_shape.cut).modules()
    inputs = sum(layer.in_features**2 for layer in layers if isinstance(layer, torch.nn.Linear))
    return 4 * inputs * model_shape.layers // model_shape.layers_here


def memory(
    model_shape: ModelShape, workload: Workload, traced: Trace, overhead: Overhead, *, shards: int = 1
) -> Memory:
    """What each device of `shards` needs.

    Sharding divides parameters, masters, gradients and moments (fully sharded data parallel); every device still runs
    rows of its own, and holds one layer's weights whole, twice: the one at work and the one being fetched.

    Source: Rajbhandari et al. 2020 (ZeRO), section 5, stage 3; Zhao et al. 2023 (PyTorch FSDP), section 3.2.
    """
    kept = _kept(model_shape, workload, traced, shards)
    passing = _passing(model_shape, workload, traced, shards, CHUNK_POSITIONS[overhead.device])
    needed = sum(one.size_bytes for one in passing)
    waste = Figure(
        "allocator",
        round(needed * overhead.heap_share),
        f"{overhead.heap_share:g} x (activations + logits + workspace): free memory in pieces too small to use again",
        overhead.source,
    )
    mapped = _mapped_bytes(model_shape, workload, overhead)
    said = "Python with torch and transformers"
    if mapped:
        said += f" + {mapped:,} bytes of the checkpoint's file, which embeddings keep mapped; the system may drop them"
    process = Figure("process", overhead.process_bytes + mapped, said, overhead.source)
    return Memory((*kept, *passing, process, waste), _loading_bytes(model_shape, workload, kept[0], overhead, shards))


def _mapped_bytes(model_shape: ModelShape, workload: Workload, overhead: Overhead) -> int:
    """Pages of a file whose weights were packed into 4 bits: parameters that stay as stored hold it mapped."""
    as_stored = model_shape.stored_bytes_per_parameter == COMPUTE_BYTES[workload.precision]
    if workload.method != "qlora" or not overhead.holds_file or not as_stored:
        return 0
    return model_shape.linear_parameters * model_shape.stored_bytes_per_parameter


def _loading_bytes(
    model_shape: ModelShape, workload: Workload, weights: Figure, overhead: Overhead, shards: int
) -> int:
    """Before the first step: the checkpoint as it is stored, then beside it what the computation wants instead."""
    stored = model_shape.parameters * model_shape.stored_bytes_per_parameter // shards
    is_converted = (
        workload.method == "qlora" or model_shape.stored_bytes_per_parameter != COMPUTE_BYTES[workload.precision]
    )
    if not overhead.holds_file:  # each parameter is converted alone, on its way or after it
        return overhead.process_bytes + (
            weights.size_bytes if workload.method == "qlora" else max(stored, weights.size_bytes)
        )
    return overhead.process_bytes + stored + (weights.size_bytes if is_converted else 0)


def _kept(model_shape: ModelShape, workload: Workload, traced: Trace, shards: int) -> tuple[Figure, ...]:
    """What stays from step to step."""
    width, trained, all_of = COMPUTE_BYTES[workload.precision], traced.trainable, traced.parameters
    by = f" / {shards} devices" if shards > 1 else ""
    if workload.method == "qlora":
        bits = NF4_BITS[workload.double_quantization]
        wide = all_of - model_shape.linear_parameters
        weight_bytes = model_shape.linear_parameters * bits / 8 + wide * width
        text = f"{model_shape.linear_parameters:,} in 4 bits x {bits} / 8 + {wide:,} others x {width}{by}"
        source = "NF4 and its scales, Dettmers et al. 2023 (QLoRA), section 3"
    else:
        weight_bytes = all_of * width
        text = f"{all_of:,} parameters x {width} ({workload.precision}){by}"
        source = "src/tutelage/model/load.py: every parameter is cast to the precision of the computation"
    masters = 0 if workload.precision == "fp32" else MASTER_BYTES * trained
    said = (
        "0: fp32 parameters are their own masters"
        if masters == 0
        else f"{trained:,} trained x {MASTER_BYTES} (fp32){by}"
    )
    moments = (AVERAGE_BYTES * trained if workload.averaged else 0) + sum(
        count * moment_bytes(workload.optimizer, shape, is_embedding=is_embedding)
        for shape, is_embedding, count in traced.trained
    )
    return (
        Figure("weights", round(weight_bytes / shards), text, source),
        Figure("masters", masters // shards, said, f"Micikevicius et al. 2018, section 3.1; {ENGINE}"),
        Figure(
            "gradients",
            GRADIENT_BYTES * trained // shards,
            f"{trained:,} trained x {GRADIENT_BYTES} (fp32){by}",
            ENGINE,
        ),
        Figure(
            "moments",
            round(moments / shards),
            f"{trained:,} trained x {moments / max(1, trained):.6g} "
            f"({workload.optimizer}{', and the average' if workload.averaged else ''}){by}",
            "Loshchilov and Hutter 2019 (AdamW), algorithm 2: two fp32 numbers for each parameter"
            if workload.optimizer == "adamw"
            else "src/tutelage/optim/state_size.py, parameter by parameter",
        ),
    )


def _passing(
    model_shape: ModelShape, workload: Workload, traced: Trace, shards: int, positions: int
) -> tuple[Figure, ...]:
    """What comes and goes with each row."""
    width = COMPUTE_BYTES[workload.precision]
    activations = (
        f"{workload.row_tokens:,} tokens x {traced.activation_bytes / workload.row_tokens:,.0f} bytes, "
        f"{traced.activation_bytes / workload.row_tokens / model_shape.layers / model_shape.hidden_width / width:.1f} "
        "x "
        f"{model_shape.layers} layers x {model_shape.hidden_width} wide x {width}"
    )
    workspace, parts = traced.backward_bytes, ["what the backward pass holds beside the saved activations"]
    if workload.method == "qlora":
        workspace += model_shape.largest_linear * width
        parts.append(f"the largest layer widened, {model_shape.largest_linear:,} x {width}")
    if shards > 1:
        layer = (model_shape.linear_parameters // model_shape.layers) * width
        workspace += 2 * layer
        parts.append(f"two layers gathered, 2 x {layer:,} bytes")
    checkpointed = "; with checkpointing, each layer's input" if workload.checkpointing else ""
    return (
        Figure(
            "activations",
            traced.activation_bytes,
            activations + checkpointed,
            f"{TRACE}; compare Korthikanti et al. 2022, section 4",
        ),
        Figure(
            "logits",
            traced.loss_bytes,
            f"at most {positions} positions x {model_shape.vocabulary:,} tokens at once, in fp32 "
            f"and {workload.precision}, "
            "with the head's gradient where it learns",
            f"{TRACE}; src/tutelage/model/loss.py",
        ),
        Figure("workspace", workspace, " + ".join(parts), TRACE),
    )

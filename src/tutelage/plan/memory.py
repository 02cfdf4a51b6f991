"""Bytes of a training step, figure by figure, each with its formula and the formula's source."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tutelage.model.layers import decoder_of
from tutelage.model.loss import CHUNK_POSITIONS
from tutelage.optim.state_size import moment_bytes
from tutelage.plan.devices import Overhead
from tutelage.plan.model_shape import Blueprint
from tutelage.plan.trace import Trace
from tutelage.plan.workload import COMPUTE_BYTES, Work

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
        return sum(one.size_bytes for one in self.figures)

    @property
    def peak_bytes(self) -> int:
        """The fullest moment of the run, evaluations left out."""
        return max(self.training_bytes, self.loading_bytes)

    def of(self, name: str) -> int:
        """Bytes of the figure `name`."""
        return next(one.size_bytes for one in self.figures if one.name == name)


def looking_bytes(blueprint: Blueprint, init: str) -> int:
    """What an initialisation of LoRA on all linear layers takes beside the weights while it looks at data.

    CorDA keeps the covariance of each layer's inputs in fp32, LoRA-GA the gradient of each weight as it is stored.
    Source: PEFT 0.21, `preprocess_corda` and `preprocess_loraga`.
    """
    if init == "lora_ga":
        return blueprint.linear_parameters * blueprint.stored_bytes_per_parameter
    if init != "corda":
        return 0
    layers = decoder_of(blueprint.cut).modules()
    inputs = sum(one.in_features**2 for one in layers if isinstance(one, torch.nn.Linear))
    return 4 * inputs * blueprint.layers // blueprint.layers_here


def memory(blueprint: Blueprint, work: Work, traced: Trace, overhead: Overhead, *, shards: int = 1) -> Memory:
    """What each device of `shards` needs.

    Sharding divides parameters, masters, gradients and moments (fully sharded data parallel); every device still runs
    rows of its own, and holds one layer's weights whole, twice: the one at work and the one being fetched.

    Source: Rajbhandari et al. 2020 (ZeRO), section 5, stage 3; Zhao et al. 2023 (PyTorch FSDP), section 3.2.
    """
    kept = _kept(blueprint, work, traced, shards)
    passing = _passing(blueprint, work, traced, shards, CHUNK_POSITIONS[overhead.device])
    needed = sum(one.size_bytes for one in passing)
    waste = Figure(
        "allocator",
        round(needed * overhead.heap_share),
        f"{overhead.heap_share:g} x (activations + logits + workspace): free memory in pieces too small to use again",
        overhead.source,
    )
    mapped = _mapped_bytes(blueprint, work, overhead)
    said = "Python with torch and transformers"
    if mapped:
        said += f" + {mapped:,} bytes of the checkpoint's file, which embeddings keep mapped; the system may drop them"
    process = Figure("process", overhead.process_bytes + mapped, said, overhead.source)
    return Memory((*kept, *passing, process, waste), _loading_bytes(blueprint, work, kept[0], overhead, shards))


def _mapped_bytes(blueprint: Blueprint, work: Work, overhead: Overhead) -> int:
    """Pages of a file whose weights were packed into 4 bits: parameters that stay as stored hold it mapped."""
    as_stored = blueprint.stored_bytes_per_parameter == COMPUTE_BYTES[work.precision]
    if work.method != "qlora" or not overhead.holds_file or not as_stored:
        return 0
    return blueprint.linear_parameters * blueprint.stored_bytes_per_parameter


def _loading_bytes(blueprint: Blueprint, work: Work, weights: Figure, overhead: Overhead, shards: int) -> int:
    """Before the first step: the checkpoint as it is stored, then beside it what the computation wants instead."""
    stored = blueprint.parameters * blueprint.stored_bytes_per_parameter // shards
    is_converted = work.method == "qlora" or blueprint.stored_bytes_per_parameter != COMPUTE_BYTES[work.precision]
    if not overhead.holds_file:  # each parameter is converted alone, on its way or after it
        return overhead.process_bytes + (
            weights.size_bytes if work.method == "qlora" else max(stored, weights.size_bytes)
        )
    return overhead.process_bytes + stored + (weights.size_bytes if is_converted else 0)


def _kept(blueprint: Blueprint, work: Work, traced: Trace, shards: int) -> tuple[Figure, ...]:
    """What stays from step to step."""
    width, trained, all_of = COMPUTE_BYTES[work.precision], traced.trainable, traced.parameters
    by = f" / {shards} devices" if shards > 1 else ""
    if work.method == "qlora":
        bits = NF4_BITS[work.double_quantisation]
        wide = all_of - blueprint.linear_parameters
        weight_bytes = blueprint.linear_parameters * bits / 8 + wide * width
        text = f"{blueprint.linear_parameters:,} in 4 bits x {bits} / 8 + {wide:,} others x {width}{by}"
        source = "NF4 and its scales, Dettmers et al. 2023 (QLoRA), section 3"
    else:
        weight_bytes = all_of * width
        text = f"{all_of:,} parameters x {width} ({work.precision}){by}"
        source = "src/tutelage/model/load.py: every parameter is cast to the precision of the computation"
    masters = 0 if work.precision == "fp32" else MASTER_BYTES * trained
    said = (
        "0: fp32 parameters are their own masters"
        if masters == 0
        else f"{trained:,} trained x {MASTER_BYTES} (fp32){by}"
    )
    moments = (AVERAGE_BYTES * trained if work.averaged else 0) + sum(
        count * moment_bytes(work.optimizer, shape, is_embedding=is_embedding)
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
            f"({work.optimizer}{', and the average' if work.averaged else ''}){by}",
            "Loshchilov and Hutter 2019 (AdamW), algorithm 2: two fp32 numbers for each parameter"
            if work.optimizer == "adamw"
            else "src/tutelage/optim/state_size.py, parameter by parameter",
        ),
    )


def _passing(blueprint: Blueprint, work: Work, traced: Trace, shards: int, positions: int) -> tuple[Figure, ...]:
    """What comes and goes with each row."""
    width = COMPUTE_BYTES[work.precision]
    activations = (
        f"{work.row_tokens:,} tokens x {traced.activation_bytes / work.row_tokens:,.0f} bytes, "
        f"{traced.activation_bytes / work.row_tokens / blueprint.layers / blueprint.hidden_width / width:.1f} x "
        f"{blueprint.layers} layers x {blueprint.hidden_width} wide x {width}"
    )
    workspace, parts = traced.backward_bytes, ["what the backward pass holds beside the saved activations"]
    if work.method == "qlora":
        workspace += blueprint.largest_linear * width
        parts.append(f"the largest layer widened, {blueprint.largest_linear:,} x {width}")
    if shards > 1:
        layer = (blueprint.linear_parameters // blueprint.layers) * width
        workspace += 2 * layer
        parts.append(f"two layers gathered, 2 x {layer:,} bytes")
    checkpointed = "; with checkpointing, each layer's input" if work.checkpointing else ""
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
            f"at most {positions} positions x {blueprint.vocabulary:,} words at once, in fp32 and {work.precision}, "
            "with the head's gradient where it learns",
            f"{TRACE}; src/tutelage/model/loss.py",
        ),
        Figure("workspace", workspace, " + ".join(parts), TRACE),
    )

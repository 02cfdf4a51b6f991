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
"""Bits of a weight in NF4, with and without double quantization. Source: Dettmers et al. 2023 (QLoRA), section 3."""

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


def lora_init_bytes(model_shape: ModelShape, init: str) -> int:
    """What an initialization of LoRA on all linear layers takes beside the weights during its calibration pass.

    CorDA keeps the covariance of each layer's inputs in fp32, LoRA-GA the gradient of each weight as it is stored.
    Source: PEFT 0.21, `preprocess_corda` and `preprocess_loraga`.
    """
    if init == "lora_ga":
        return model_shape.linear_parameters * model_shape.stored_bytes_per_parameter
    if init != "corda":
        return 0
    layers = decoder_of(model_shape.cut).modules()
    input_covariance_numbers = sum(layer.in_features**2 for layer in layers if isinstance(layer, torch.nn.Linear))
    return 4 * input_covariance_numbers * model_shape.layers // model_shape.cut_layer_count


def memory(
    model_shape: ModelShape, workload: Workload, traced: Trace, overhead: Overhead, *, shards: int = 1
) -> Memory:
    """What each device of `shards` needs.

    Sharding divides parameters, master weights, gradients and moments (fully sharded data parallel); every device still
    runs rows of its own, and holds the full weights of two layers: the one being computed and the one being gathered.

    Source: Rajbhandari et al. 2020 (ZeRO), section 5, stage 3; Zhao et al. 2023 (PyTorch FSDP), section 3.2.
    """
    persistent = _persistent_figures(model_shape, workload, traced, shards)
    transient = _transient_figures(model_shape, workload, traced, shards, CHUNK_POSITIONS[overhead.device])
    transient_bytes = sum(figure.size_bytes for figure in transient)
    allocator = Figure(
        "allocator",
        round(transient_bytes * overhead.heap_share),
        f"{overhead.heap_share:g} x (activations + logits + workspace): free memory in pieces too small to use again",
        overhead.source,
    )
    mapped_bytes = _mapped_bytes(model_shape, workload, overhead)
    process_formula = "Python with torch and transformers"
    if mapped_bytes:
        process_formula += (
            f" + {mapped_bytes:,} bytes of the checkpoint's file, which embeddings keep mapped; "
            "the system may drop them"
        )
    process = Figure("process", overhead.process_bytes + mapped_bytes, process_formula, overhead.source)
    return Memory(
        (*persistent, *transient, process, allocator),
        _loading_bytes(model_shape, workload, persistent[0], overhead, shards),
    )


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


def _persistent_figures(model_shape: ModelShape, workload: Workload, traced: Trace, shards: int) -> tuple[Figure, ...]:
    """Figures of what stays from step to step."""
    compute_bytes, trainable, parameters = COMPUTE_BYTES[workload.precision], traced.trainable, traced.parameters
    per_device = f" / {shards} devices" if shards > 1 else ""
    if workload.method == "qlora":
        nf4_bits = NF4_BITS[workload.double_quantization]
        unquantized = parameters - model_shape.linear_parameters
        weight_bytes = model_shape.linear_parameters * nf4_bits / 8 + unquantized * compute_bytes
        weight_formula = (
            f"{model_shape.linear_parameters:,} in 4 bits x {nf4_bits} / 8 + {unquantized:,} others x {compute_bytes}"
            f"{per_device}"
        )
        weight_source = "NF4 and its scales, Dettmers et al. 2023 (QLoRA), section 3"
    else:
        weight_bytes = parameters * compute_bytes
        weight_formula = f"{parameters:,} parameters x {compute_bytes} ({workload.precision}){per_device}"
        weight_source = "src/tutelage/model/load.py: every parameter is cast to the precision of the computation"
    master_bytes = 0 if workload.precision == "fp32" else MASTER_BYTES * trainable
    master_formula = (
        "0: fp32 parameters are their own masters"
        if master_bytes == 0
        else f"{trainable:,} trained x {MASTER_BYTES} (fp32){per_device}"
    )
    moments_bytes = (AVERAGE_BYTES * trainable if workload.averaged else 0) + sum(
        count * moment_bytes(workload.optimizer, shape, is_embedding=is_embedding)
        for shape, is_embedding, count in traced.trained
    )
    return (
        Figure("weights", round(weight_bytes / shards), weight_formula, weight_source),
        Figure("masters", master_bytes // shards, master_formula, f"Micikevicius et al. 2018, section 3.1; {ENGINE}"),
        Figure(
            "gradients",
            GRADIENT_BYTES * trainable // shards,
            f"{trainable:,} trained x {GRADIENT_BYTES} (fp32){per_device}",
            ENGINE,
        ),
        Figure(
            "moments",
            round(moments_bytes / shards),
            f"{trainable:,} trained x {moments_bytes / max(1, trainable):.6g} "
            f"({workload.optimizer}{', and the average' if workload.averaged else ''}){per_device}",
            "Loshchilov and Hutter 2019 (AdamW), algorithm 2: two fp32 numbers for each parameter"
            if workload.optimizer == "adamw"
            else "src/tutelage/optim/state_size.py, parameter by parameter",
        ),
        *_base_figures(model_shape, workload, trainable, shards),
    )


def _base_figures(model_shape: ModelShape, workload: Workload, trainable: int, shards: int) -> list[Figure]:
    """Figures of what is kept of the base where every weight is trained; beside an adapter the base is there."""
    if workload.method != "full":
        return []
    figures = []
    if workload.pulled_to_base:
        stored_bytes = model_shape.stored_bytes_per_parameter
        per_device = f" / {shards} devices" if shards > 1 else ""
        start = f"{trainable:,} trained x {stored_bytes} (as stored){per_device}"
        source = "Li et al. 2018 (L2-SP), section 3; src/tutelage/optim/pull_to_base.py"
        figures.append(Figure("start", stored_bytes * trainable // shards, start, source))
    if workload.held_to_base:
        compute_bytes, width = COMPUTE_BYTES[workload.precision], model_shape.hidden_width
        head_numbers = model_shape.vocabulary * width
        formula = (
            f"(2 x {head_numbers:,} of the output head, the base's and a gradient, + {workload.kept_tokens:,} replayed "
            f"tokens x {width}) x {compute_bytes}"
        )
        base_bytes = (2 * head_numbers + workload.kept_tokens * width) * compute_bytes
        figures.append(Figure("base outputs", base_bytes, formula, "src/tutelage/model/base_outputs.py"))
    return figures


def _transient_figures(
    model_shape: ModelShape, workload: Workload, traced: Trace, shards: int, positions: int
) -> tuple[Figure, ...]:
    """Figures of what is allocated and freed with each row."""
    compute_bytes = COMPUTE_BYTES[workload.precision]
    token_bytes = traced.activation_bytes / workload.row_tokens
    activation_formula = (
        f"{workload.row_tokens:,} tokens x {token_bytes:,.0f} bytes, "
        f"{token_bytes / model_shape.layers / model_shape.hidden_width / compute_bytes:.1f} "
        f"x {model_shape.layers} layers x {model_shape.hidden_width} wide x {compute_bytes}"
    )
    workspace_bytes, workspace_terms = (
        traced.backward_bytes,
        ["what the backward pass holds beside the saved activations"],
    )
    if workload.method == "qlora":
        workspace_bytes += model_shape.largest_linear * compute_bytes
        workspace_terms.append(f"the largest layer widened, {model_shape.largest_linear:,} x {compute_bytes}")
    if shards > 1:
        layer_bytes = (model_shape.linear_parameters // model_shape.layers) * compute_bytes
        workspace_bytes += 2 * layer_bytes
        workspace_terms.append(f"two layers gathered, 2 x {layer_bytes:,} bytes")
    base_positions, wide_bytes = (
        min(positions, workload.trained_tokens),
        2 * 4 + (compute_bytes if compute_bytes < 4 else 0),
    )
    base = Figure(
        "base logits",
        base_positions * model_shape.vocabulary * wide_bytes,
        f"at most {positions} positions x {model_shape.vocabulary:,} tokens x {wide_bytes}: logits of the base and its "
        "probabilities",
        "src/tutelage/model/kl_to_base.py",
    )
    is_held = workload.held_to_base and workload.method != "prompt"
    checkpointed = "; with checkpointing, each layer's input" if workload.checkpointing else ""
    return (
        Figure(
            "activations",
            traced.activation_bytes,
            activation_formula + checkpointed,
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
        Figure("workspace", workspace_bytes, " + ".join(workspace_terms), TRACE),
        *([base] if is_held else []),
    )

"""Settings -> the model of a run with what trains it: loaded, adapted, placed, its masters taken, its attention set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from tutelage.builders.method import adapted_model, loaded_base
from tutelage.builders.resolved_run import ResolvedRun
from tutelage.config import Settings
from tutelage.distributed.process_group import ProcessGroup
from tutelage.distributed.strategy import Strategy, place_model, saved_dtype
from tutelage.errors import ConfigError
from tutelage.model.activation_checkpointing import recompute_activations
from tutelage.model.adapters.lora_init import CalibrationData
from tutelage.model.adapters.pairs import adapter_pairs
from tutelage.model.adapters.trainable import Trainable
from tutelage.model.architecture import Architecture, architecture_of
from tutelage.model.attention.isolation_check import SHORT, MaxLengths
from tutelage.model.compile import compile_layers
from tutelage.model.fused.accumulating_linear import accumulate_gradients_in_place
from tutelage.model.fused.norm_and_mlp import reduce_saved_activations
from tutelage.model.load import Loaded
from tutelage.model.neftune import add_embedding_noise
from tutelage.model.precision import Precision, cast_model
from tutelage.model.residual_dropout import add_residual_dropout
from tutelage.model.trial import require_trainable
from tutelage.optim.master_weights import MasterWeights, require_finite
from tutelage.optim.optimizers import optimizer_named
from tutelage.optim.pull_to_base import PullToBase
from tutelage.optim.state_size import embedding_parameters, state_bytes

Look = Callable[[Architecture], AbstractContextManager[CalibrationData]]
"""Opens the data that `lora.init` looks at, told what was tried on the model; see `builders.calibration_data`."""


@dataclass(frozen=True, slots=True)
class TrainState:
    """The model with what trains it.

    `strategy.architecture` is what was tried on the model; `state_bytes` is what its optimizer keeps after a step, and
    the start that `train.l2_to_base` pulls to.
    """

    model: Any
    loaded: Loaded
    adapted: Trainable
    stored_as: torch.dtype
    precision: Precision
    optimizer: MasterWeights
    strategy: Strategy
    state_bytes: int


def train_state_for(
    resolved: ResolvedRun,
    base: Path,
    process_group: ProcessGroup,
    *,
    open_calibration: Look | None = None,
    longest: MaxLengths = SHORT,
) -> TrainState:
    """Load the model in `base` and make it ready to train.

    Args:
        resolved: the run's; where `recompute` is not decided, activations are kept.
        base: the folder of the model it starts from.
        process_group: the processes that share it.
        open_calibration: where `lora.init` looks at data.
        longest: how long its rows become.

    Raises:
        TutelageError: of the kind that fits; see `builders.method` and the room `model`.
    """
    settings, precision = resolved.settings, resolved.precision
    if settings.model.threads is not None:
        torch.set_num_threads(settings.model.threads)
    torch.manual_seed(settings.seed)
    # To the CPU first: sharding then moves only this process's shard to its device.
    model, loaded = loaded_base(resolved, base, onto="cpu" if resolved.sharded else None)
    require_finite(model, base)  # before it is tried: what is tried of it compares numbers
    loaded = replace(loaded, device=resolved.device)
    stored_as = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    if open_calibration is None:
        model, trainable = adapted_model(settings, model, base)
    else:
        model, trainable = _adapted_to_data(resolved, model, base, open_calibration, longest)
    _prepare_layers(model, compiled=settings.model.compile, recompute=resolved.recompute is True)
    strategy = place_model(model, process_group, device=resolved.device, precision=precision, sharded=resolved.sharded)
    embeddings = embedding_parameters(model)
    # Masters are taken before a cast to bf16, which would round away what the checkpoint knows.
    optimizer = _masters(settings, model, strategy, embeddings=embeddings, precision=precision)
    if strategy.fsdp_root is None:
        cast_model(model, precision)
    with nullcontext() if strategy.fsdp_root is None else strategy.fsdp_root.unsharded():
        strategy = replace(strategy, architecture=architecture_of(model, longest))
    _require_product_head(settings, strategy.architecture)
    process_group.require_equal("answers of the model, as it was tried", repr(strategy.architecture))
    if strategy.fsdp_root is None:
        require_trainable(model, strategy.architecture)
        if precision == "fp32" and not settings.model.compile:
            accumulate_gradients_in_place(model)
    if strategy.replicated:
        synchronize_start(model, optimizer, process_group)
    optimizer.pull = _pull_to_base(settings, model, optimizer, stored_as)
    _add_noise(settings, model)
    averaged = settings.train.ema_decay is not None
    state = state_bytes(settings.train.optimizer, optimizer.masters, embeddings=embeddings, averaged=averaged)
    state += 0 if optimizer.pull is None else optimizer.pull.nbytes
    torch.manual_seed(settings.seed + process_group.rank)  # other rows want other dropout
    return TrainState(
        model, loaded, trainable, saved_dtype(stored_as, precision), precision, optimizer, strategy, state
    )


def _adapted_to_data(
    resolved: ResolvedRun, model: Any, base: Path, open_calibration: Look, longest: MaxLengths
) -> tuple[Any, Trainable]:
    """`adapted_model`, by what the model sees in the data; it computes as it will in training."""
    if resolved.precision == "fp32":  # else this pass would be in the checkpoint's bf16, slow where fp32 was chosen
        cast_model(model, resolved.precision)
    with open_calibration(architecture_of(model, longest)) as calibration:
        return adapted_model(resolved.settings, model, base, calibration=calibration)


def _masters(
    settings: Settings, model: Any, strategy: Strategy, *, embeddings: frozenset[str], precision: Precision
) -> MasterWeights:
    train = settings.train
    return MasterWeights(
        model,
        build=optimizer_named(
            train.optimizer,
            weight_decay=train.weight_decay,
            betas=(train.beta1, train.beta2),
            epsilon=train.epsilon,
            embeddings=embeddings,
        ),
        shared=strategy.fsdp_root is not None or precision == "fp32",
        all_reduce=strategy.process_group.all_reduce if strategy.replicated else None,
        average_decay=train.ema_decay,
    )


def _require_product_head(settings: Settings, architecture: Architecture) -> None:
    """The divergence from the base is computed from hidden states and the weights of the output head."""
    if settings.train.kl_to_base is not None and architecture.head != "product":
        raise ConfigError(
            "This model makes its logits by code of its own, beside which those of its base are not computed",
            where="train.kl_to_base",
            found=f"{settings.train.kl_to_base:g}",
            expected="a model whose logits are a product with its output head",
            fix="leave it out; data.replay alone works with every model",
        )


def _pull_to_base(
    settings: Settings, model: Any, optimizer: MasterWeights, stored_as: torch.dtype
) -> PullToBase | None:
    strength = settings.train.l2_to_base
    if strength is None:
        return None
    pairs = adapter_pairs(model) if settings.model.method != "full" else ()
    return PullToBase(optimizer.masters, strength=strength, stored_as=stored_as, pairs=pairs)


def _add_noise(settings: Settings, model: Any) -> None:
    """What is drawn anew for each row, where the settings ask for it."""
    if settings.train.residual_dropout > 0:
        is_constant = settings.train.residual_dropout_shape == "constant"
        add_residual_dropout(model, last=settings.train.residual_dropout, rises=not is_constant)
    if settings.train.neftune_alpha is not None:
        add_embedding_noise(model, alpha=settings.train.neftune_alpha)


def _prepare_layers(model: Any, *, compiled: bool, recompute: bool) -> None:
    """Kept for backward: an input a layer, the compiler's choice, or what `reduce_saved_activations` leaves."""
    if recompute:
        recompute_activations(model)
    if compiled:
        compile_layers(model)
    else:
        reduce_saved_activations(model, recomputed=recompute)


def synchronize_start(model: Any, optimizer: MasterWeights, process_group: ProcessGroup) -> None:
    """Give whole models on several processes the same start: what learns is that of the main one.

    Raises:
        EngineError: the frozen weights differ between processes.
    """
    frozen = (parameter for parameter in model.parameters() if not parameter.requires_grad)
    # Bytes are summed, not numbers: that sum is exact, and so the same on any processor.
    sums = (int(weight.detach().reshape(-1).view(torch.uint8).sum(dtype=torch.int64)) for weight in frozen)
    process_group.require_equal("weights of the base model", sha256(repr(list(sums)).encode()).hexdigest()[:16])
    averages = () if optimizer.average is None else optimizer.average.weights.values()
    process_group.broadcast_from_main([master.detach() for master in (*optimizer.masters.values(), *averages)])
    optimizer.copy_to_model()

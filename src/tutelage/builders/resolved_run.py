"""Settings, the machine and its processes -> one frozen record of all that they decide, before anything is built.

"auto" is decided here and nowhere else: what builds a run reads the record. Nothing that is learned depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tutelage.config import Settings
from tutelage.distributed.strategy import is_sharded
from tutelage.model.activation_checkpointing import recomputes
from tutelage.model.precision import Precision, device_here, resolve_precision

Device = Literal["cpu", "cuda"]

ROW_TOKENS = {("cpu", "fp32"): 1024, ("cpu", "bf16"): 2048, ("cuda", "fp32"): 4096, ("cuda", "bf16"): 4096}
"""On a CPU twice as many tokens were a twentieth faster in fp32, for 0.8 GB more (docs/log.md, "Another allocator"); in
bf16 a tenth, for 0.4 GB. A GPU wants longer ones to be kept busy; 4,096 is not measured."""


@dataclass(frozen=True, slots=True)
class ResolvedRun:
    """Settings with what this machine and these processes make of them.

    Attributes:
        settings: of the run.
        device: computes.
        precision: of the model's products.
        processes: share each step.
        row_tokens: most tokens of a packed row, the micro-batch.
        sharded: each process keeps a part of the model.
        share_prefixes: beginnings that documents share are computed once where nothing is drawn, as in evaluation.
        trains_on_shared_prefixes: the same in training.
        recompute: activations are computed again; None asks the planner once the data is there, see
            `builders.memory_plan`.
    """

    settings: Settings
    device: Device
    precision: Precision
    processes: int
    row_tokens: int
    sharded: bool
    share_prefixes: bool
    trains_on_shared_prefixes: bool
    recompute: bool | None


def resolve(settings: Settings, *, processes: int = 1) -> ResolvedRun:
    """Decide what the settings leave to the machine.

    A GPU computes a row of plain documents in one call of flash attention for each layer, and a row with shared
    beginnings document by document: far slower than what is saved where beginnings are short. So they are shared on a
    CPU. In training, what documents share gets one draw of noise: with noise, then, none is shared.

    Args:
        settings: of the run, with what an adapter has settled (`base_model.with_adapters_own`).
        processes: how many share its steps. Several must decide alike whatever is free where each of them runs, so
            they recompute by the room in a row; one alone asks the planner.

    Raises:
        ConfigError: a model is to be sharded that cannot be.
    """
    device, precision = device_here(), resolve_precision(settings.model.precision)
    pack, checkpointing = settings.pack, settings.train.activation_checkpointing
    row_tokens = pack.row_tokens or max(pack.max_seq_length, ROW_TOKENS[device, precision])
    recompute = None if checkpointing == "auto" and processes == 1 else recomputes(checkpointing, row_tokens=row_tokens)
    share_prefixes = device == "cpu" if pack.share_prefixes is None else pack.share_prefixes
    shardable = is_sharded(
        settings.model.parallel,
        optimizer=settings.train.optimizer,
        method=settings.model.method,
        init=settings.lora.init,
        modules_to_save=settings.lora.modules_to_save,
        l2_to_base=settings.train.l2_to_base,
        kl_to_base=settings.train.kl_to_base,
    )
    return ResolvedRun(
        settings=settings,
        device=device,
        precision=precision,
        processes=processes,
        row_tokens=row_tokens,
        sharded=shardable and processes > 1,
        share_prefixes=share_prefixes,
        trains_on_shared_prefixes=share_prefixes and not draws_noise(settings),
        recompute=recompute,
    )


def draws_noise(settings: Settings) -> bool:
    """Whether a training step draws random numbers."""
    train = settings.train
    return settings.lora.dropout > 0 or train.residual_dropout > 0 or train.neftune_alpha is not None

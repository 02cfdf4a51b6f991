"""The optimizers a run can choose, each a function that says how master weights are stepped.

All use the schedule's learning rate on AdamW's scale: the size of a step for each weight. Matrices decay, vectors
(norms, biases) do not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import torch

from tutelage.errors import ConfigError, DependencyError
from tutelage.optim.master_weights import OptimizerBuilder

Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "muon"]
Groups: TypeAlias = list[dict[str, Any]]
PAGED: Collection[Optimizer] = ("paged_adamw", "paged_adamw_8bit")
FROM_BITSANDBYTES: Collection[Optimizer] = ("adamw_8bit", *PAGED)


def require_optimizer(name: Optimizer, *, device: str) -> None:
    """Fail early, before a model is loaded, where an optimizer cannot work here.

    Args:
        name: what the run asks for.
        device: where the model will be, such as "cpu" or "cuda".

    Raises:
        DependencyError: it comes from bitsandbytes, which is not installed.
        ConfigError: it pages its state between GPU and main memory, and there is no GPU.
    """
    if name in PAGED and device != "cuda":
        unpaged = name.removeprefix("paged_")
        raise ConfigError(
            f"The optimizer {name} needs an NVIDIA GPU",
            where="train.optimizer",
            found=f"a model on the {device}, whose memory holds the whole state anyway",
            expected="a GPU, to whose memory pages come as they are needed",
            fix=f'set train.optimizer = "{unpaged}": the same steps, not paged',
        )
    if name in FROM_BITSANDBYTES and find_spec("bitsandbytes") is None:
        raise DependencyError(
            f"The optimizer {name} needs the package bitsandbytes",
            where="train.optimizer",
            fix="pip install bitsandbytes",
        )


def slow_here(name: Optimizer, *, native_bf16: bool) -> str | None:
    """A sentence for the person where an optimizer works, but at a price that nobody expects; else None.

    Args:
        name: what the run asks for.
        native_bf16: the hardware multiplies bf16 (`model.precision.resolve_precision("auto") == "bf16"`).
    """
    if name == "muon" and not native_bf16:
        return (
            'train.optimizer = "muon" multiplies matrices in bf16, which this processor has no instructions for: '
            "about 30 times slower than fp32, seconds for every matrix of a small model"
        )
    return None


def optimizer_named(
    name: Optimizer,
    *,
    weight_decay: float,
    betas: tuple[float, float],
    epsilon: float,
    embeddings: Collection[str],
) -> OptimizerBuilder:
    """The optimizer of that name, ready to be built over masters.

    Args:
        name: one of `Optimizer`.
        weight_decay: decoupled decay.
        betas: decay rates of AdamW's two moments; Adafactor reads none.
        epsilon: added to the root of AdamW's second moment; Adafactor reads none.
        embeddings: names of the parameters of embeddings and output head (see `optim.state_size.embedding_parameters`).
    """
    adamw_settings: Any = {"weight_decay": weight_decay, "betas": betas, "epsilon": epsilon}
    match name:
        case "adamw":
            return adamw(**adamw_settings)
        case "adamw_8bit":
            return adamw_8bit(**adamw_settings, embeddings=embeddings)
        case "paged_adamw" | "paged_adamw_8bit":
            return paged_adamw(**adamw_settings, embeddings=embeddings, bits=8 if name.endswith("_8bit") else 32)
        case "adafactor":
            return adafactor(weight_decay=weight_decay)
        case "muon":
            return muon(**adamw_settings, embeddings=embeddings)


def adamw(*, weight_decay: float, betas: tuple[float, float], epsilon: float) -> OptimizerBuilder:
    """AdamW, fused: one pass over memory for each group.

    Source: Loshchilov and Hutter 2019, algorithm 2.
    """

    def build(masters: Mapping[str, torch.Tensor]) -> Sequence[torch.optim.Optimizer]:
        return (_fused(masters, weight_decay, betas, epsilon),)

    return build


def adamw_8bit(
    *, weight_decay: float, betas: tuple[float, float], epsilon: float, embeddings: Collection[str]
) -> OptimizerBuilder:
    """AdamW whose moments take one byte each, in blocks of 256 with a scale of their own; runs on CPU and GPU.

    Embeddings keep fp32 moments, and so does a parameter of fewer than 4,096 numbers.

    Source: Dettmers et al. 2022 (8-bit Optimizers via Block-wise Quantization), sections 2.1 and 2.3.
    """

    def build(masters: Mapping[str, torch.Tensor]) -> Sequence[torch.optim.Optimizer]:
        from bitsandbytes.optim import AdamW8bit

        wide, narrow = _split_embeddings(masters, embeddings)
        groups = decay_groups(narrow, weight_decay)
        quantized: list[torch.optim.Optimizer] = [AdamW8bit(groups, lr=0.0, betas=betas, eps=epsilon)] if groups else []
        return (*quantized, *([_fused(wide, weight_decay, betas, epsilon)] if wide else []))

    return build


def paged_adamw(
    *,
    weight_decay: float,
    betas: tuple[float, float],
    epsilon: float,
    embeddings: Collection[str],
    bits: Literal[8, 32],
) -> OptimizerBuilder:
    """AdamW whose moments lie in memory that CUDA moves to the GPU and away from it as it is needed.

    With 8 bits, as in `adamw_8bit`; embeddings keep 32.

    Source: Dettmers et al. 2023 (QLoRA), section 3, "Paged Optimizers".
    """

    def build(masters: Mapping[str, torch.Tensor]) -> Sequence[torch.optim.Optimizer]:
        from bitsandbytes.optim import PagedAdamW, PagedAdamW8bit

        wide, narrow = _split_embeddings(masters, embeddings) if bits == 8 else (dict(masters), {})
        optimizers = [
            kind(groups, lr=0.0, betas=betas, eps=epsilon)
            for kind, parameters in ((PagedAdamW8bit, narrow), (PagedAdamW, wide))
            if (groups := decay_groups(parameters, weight_decay))
        ]
        # Made now, so that a resume copies into paged memory; what it would put in its place could not be paged.
        for optimizer in optimizers:
            for group_index, group in enumerate(optimizer.param_groups):
                for parameter_index, master in enumerate(group["params"]):
                    optimizer.init_state(group, master, group_index, parameter_index)
        return tuple(optimizers)

    return build


def adafactor(*, weight_decay: float) -> OptimizerBuilder:
    """Adafactor without momentum: a matrix's second moment is kept as one row and one column.

    Source: Shazeer and Stern 2018, algorithm 4, with its defaults: decay 1 - t^-0.8, updates clipped to a root mean
    square of 1. Transformers' rather than torch's: that one multiplies every step by the root mean square of the
    weights (section 8), so that a learning rate chosen for AdamW would mean a step about a hundred times smaller.
    """

    def build(masters: Mapping[str, torch.Tensor]) -> Sequence[torch.optim.Optimizer]:
        from transformers.optimization import Adafactor

        groups = decay_groups(masters, weight_decay)
        return (Adafactor(groups, lr=0.0, scale_parameter=False, relative_step=False),)

    return build


def muon(
    *, weight_decay: float, betas: tuple[float, float], epsilon: float, embeddings: Collection[str]
) -> OptimizerBuilder:
    """Muon for the matrices inside the model; AdamW for embeddings, output head, and what is no matrix.

    Source: Jordan et al. 2024 (Muon), with their momentum of 0.95 and five Newton-Schulz steps, torch's defaults; steps
    are scaled by 0.2 sqrt(max(rows, columns)), so that both take one learning rate and one weight decay: Liu et al.
    2025 (Muon is Scalable for LLM Training), section 2.2.
    """

    def build(masters: Mapping[str, torch.Tensor]) -> Sequence[torch.optim.Optimizer]:
        matrices = [master for name, master in masters.items() if master.ndim == 2 and name not in embeddings]
        others = {name: master for name, master in masters.items() if master.ndim != 2 or name in embeddings}
        optimizers: list[torch.optim.Optimizer] = []
        if matrices:
            optimizers.append(
                torch.optim.Muon(matrices, lr=0.0, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        if others:
            optimizers.append(_fused(others, weight_decay, betas, epsilon))
        return tuple(optimizers)

    return build


def decay_groups(masters: Mapping[str, torch.Tensor], weight_decay: float) -> Groups:
    """Two parameter groups: matrices, which decay, and vectors (norms, biases), which do not."""
    decayed = [master for master in masters.values() if master.ndim >= 2]
    exempt = [master for master in masters.values() if master.ndim < 2]
    return [
        {"params": group, "weight_decay": decay} for group, decay in ((decayed, weight_decay), (exempt, 0.0)) if group
    ]


def _fused(
    masters: Mapping[str, torch.Tensor], weight_decay: float, betas: tuple[float, float], epsilon: float
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(decay_groups(masters, weight_decay), lr=0.0, betas=betas, eps=epsilon, fused=True)


def _split_embeddings(
    masters: Mapping[str, torch.Tensor], embeddings: Collection[str]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    wide = {name: master for name, master in masters.items() if name in embeddings}
    return wide, {name: master for name, master in masters.items() if name not in wide}

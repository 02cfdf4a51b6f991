"""Which kind of work an operation of a profile is, by its name, what it ran inside of, and the module it belongs to.

Pure functions over names; `profile.py` collects them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["matrix products", "attention", "norms", "loss", "optimizer", "copies and casts", "other"]
KINDS: tuple[Kind, ...] = (
    "matrix products",
    "attention",
    "norms",
    "loss",
    "optimizer",
    "copies and casts",
    "other",
)
MODULE = "module:"
"""Marks the span of a module's forward pass; the name of its class follows."""

PRODUCTS = {"mm", "addmm", "addmm_", "linear", "matmul", "mkldnn_linear", "_linear_pointwise", "_addmm_activation"}
BATCHED_PRODUCTS = {"bmm", "baddbmm", "baddbmm_"}
COPIES = {"copy_", "_to_copy", "to", "clone", "contiguous", "cat", "zero_", "fill_", "zeros", "empty", "empty_like",
          "empty_strided", "resize_", "new_empty", "new_zeros", "zeros_like", "_foreach_copy_", "_foreach_zero_",
          "slice_backward", "select_backward", "index_put_", "_index_put_impl_"}  # fmt: skip
GRADIENT_LENGTH = {"linalg_vector_norm", "_foreach_norm", "_foreach_mul_"}
LOSS_NAMES = ("crossentropy", "cross_entropy", "nll_loss", "log_softmax", "logsumexp")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a profile.

    Args:
        name: as the profiler says it.
        inside: what it ran inside of, innermost first; for an operation of the backward pass followed by what the
            forward operation ran inside of that it is the gradient of.
        self_seconds: without the operations inside it.
    """

    name: str
    inside: tuple[str, ...]
    self_seconds: float


def short(name: str) -> str:
    """Without the library in front: `aten::mm` is `mm`."""
    return name.rsplit("::", 1)[-1]


def kind_of(operation: Operation) -> Kind:
    """The kind of work; matrix products are what they are wherever they run, the rest is what it is done for."""
    name, inside = short(operation.name), operation.inside
    around = (operation.name, *inside)
    module = next((one.removeprefix(MODULE) for one in inside if one.startswith(MODULE)), "")
    is_optimizer = name in GRADIENT_LENGTH or "_fused_adam" in name or any(_is_update(one) for one in around)
    is_attention = "Attention" in module or "attention" in operation.name.lower()
    tests: dict[Kind, bool] = {
        "optimizer": is_optimizer,
        "attention": is_attention and name not in PRODUCTS,
        "matrix products": name in PRODUCTS | BATCHED_PRODUCTS,
        "norms": "Norm" in module or "norm" in name.lower(),
        "loss": any(word in one.lower() for one in around for word in LOSS_NAMES),
        "copies and casts": name in COPIES,
    }
    return next((kind for kind, holds in tests.items() if holds), "other")


def is_wrapper(operation: Operation) -> bool:
    """Whether it is a mark, or the autograd engine's call of something: its own time is Python's."""
    return operation.name.startswith((MODULE, "autograd::engine::"))


def is_copy(operation: Operation) -> bool:
    """Whether it moves, casts or clears memory and computes nothing, whatever it does so for."""
    return short(operation.name) in COPIES


def seconds_by_kind(operations: Iterable[Operation]) -> Mapping[Kind, float]:
    """Self seconds of each kind, all kinds in the order of `KINDS`; the time of wrappers is left out."""
    totals: dict[Kind, float] = defaultdict(float)
    for operation in operations:
        if not is_wrapper(operation):
            totals[kind_of(operation)] += operation.self_seconds
    return {kind: totals[kind] for kind in KINDS}


def _is_update(name: str) -> bool:
    return name.startswith("Optimizer.") or "AccumulateGrad" in name

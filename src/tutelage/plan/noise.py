"""Whether a model's own training step draws random numbers, tried on tensors without memory before it is loaded."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.model.loss import row_loss
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.model.refusals import REFUSALS
from tutelage.plan.model_shape import ModelShape
from tutelage.plan.trace import (
    Meter,
    fake_tensor_log_disabled,
    materialize,
    prepared_model,
    row_of,
    without_memory,
)
from tutelage.plan.workload import single_document

TRIED_TOKENS = 4
_SHARES = ("p", "dropout_p")
"""What torch's operators call the share that they drop."""


def draws_noise(model_shape: ModelShape) -> bool:
    """Whether an operator of the model's forward in training mode draws random numbers: dropout of the checkpoint's.

    A model that cannot be run so is said to draw none; whoever plans it hears why (`plan.trace`).
    """
    workload = single_document("full", "fp32", TRIED_TOKENS)
    model = prepared_model(model_shape.with_layers(model_shape.cut_layer_count), workload)
    fake_tensors, draws = FakeTensorMode(allow_non_fake_inputs=True), _Draws()
    with fake_tensors:
        materialize(model, parameter=without_memory, buffer=without_memory)
    try:
        with fake_tensor_log_disabled(), torch.no_grad(), fake_tensors, Meter(memory=False, ignore=()), draws:
            row_loss(model, row_of(workload))
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
    return draws.any


class _Draws(TorchDispatchMode):
    """Notes operators that depend on the state of a random generator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        self.any = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags and not _zero_share(func, args, kwargs or {}):
            self.any = True
        return func(*args, **(kwargs or {}))


def _zero_share(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operator is told to drop nothing: torch calls those of dropout with a share of 0, too."""
    names = [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    defaults = {argument.name: argument.default_value for argument in func._schema.arguments}
    shares = [given.get(name, defaults[name]) for name in names if name in _SHARES]
    return bool(shares) and all(share == 0 for share in shares)

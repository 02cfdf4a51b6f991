"""fp32 master weights with their gradients: what the optimizer sees, whatever the model computes in.

Source: master weights, Micikevicius et al. 2018, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from tutelage.distributed.process_group import full_tensor
from tutelage.errors import CheckpointError, TrainingError
from tutelage.optim.ema import WeightAverage
from tutelage.optim.pull_to_base import PullToBase

OptimizerBuilder = Callable[[Mapping[str, torch.Tensor]], Sequence[torch.optim.Optimizer]]
"""Master weights by name -> the optimizers that step them; each master has exactly one. See `optim.optimizers`."""

MAX_NAMES = 4
"""Weights that an error names."""

INTEGER = "#int"
"""Ends the key of a plain whole number in `MasterWeights.state`."""

AVERAGE = "average:"
"""Begins the key of what `WeightAverage.state` gives in `MasterWeights.state`."""


class MasterWeights:
    """Keeps an fp32 master weight and an fp32 gradient of each trainable parameter, and the optimizers that step them.

    Two ways, with the same mathematics:
    - `shared=False`: the model computes in another precision. Build this while the parameters still have the precision
      they were stored in; after `model.precision.cast_model` has cast them, gradients are added into the fp32 ones as
      soon as backward makes them, and dropped.
    - `shared=True`: the parameters are fp32 already (plain, or sharded and cast by FSDP2) and are their own masters:
      no copy is kept.

    Args:
        model: its trainable parameters have `requires_grad`; they must not be replaced later; cast through `.data`.
        build: makes the optimizers.
        shared: the parameters are their own masters.
        all_reduce: sums gradients over processes that each hold a replica of the model; None for a single process.
        average_decay: keep a moving average of the masters with this decay (`WeightAverage`); None keeps none.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        build: OptimizerBuilder,
        shared: bool = False,
        all_reduce: Callable[[Sequence[torch.Tensor]], None] | None = None,
        average_decay: float | None = None,
    ) -> None:
        self.parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.shared = shared
        self.all_reduce = all_reduce
        self.masters: dict[str, torch.Tensor]
        # One for each master that is not a parameter itself.
        self._gradient_buffers: dict[str, torch.Tensor] = {}
        if shared:
            assert all(parameter.dtype == torch.float32 for parameter in self.parameters.values()), "masters are fp32"
            self.masters = dict(self.parameters)
        else:
            self.masters = {
                name: parameter.detach().to(torch.float32, copy=True) for name, parameter in self.parameters.items()
            }
            for name, parameter in self.parameters.items():
                self._gradient_buffers[name] = torch.empty_like(self.masters[name])
                parameter.register_post_accumulate_grad_hook(
                    _accumulation_hook(self.masters[name], self._gradient_buffers[name])
                )
        self.optimizers = tuple(build(self.masters))
        self.average = None if average_decay is None else WeightAverage(self.masters, decay=average_decay)
        self.pull: PullToBase | None = None
        """Applied before each step, where one is set, which is once the masters are what all processes start from."""

    @property
    def output_weights(self) -> Mapping[str, torch.Tensor]:
        """The weights by name that are evaluated and saved: the moving average if any, else the master weights."""
        return self.masters if self.average is None else self.average.weights

    @torch.no_grad()
    def step(self, learning_rate: float, *, max_grad_norm: float) -> float:
        """Clip, update masters, copy them into the model, clear gradients; return the norm before clipping.

        A norm that is not finite changes nothing: neither weights nor moments.
        """
        gradients = self._gradients()
        norm = float(full_tensor(torch.nn.utils.get_total_norm(gradients)))
        if not math.isfinite(norm):
            return norm
        if norm > max_grad_norm:
            for gradient in gradients:
                gradient.mul_(max_grad_norm / norm)
        if self.pull is not None:
            self.pull.apply(self.masters, learning_rate)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        self.zero_gradients()
        self.copy_to_model()
        if self.average is not None:
            self.average.follow(self.masters)
        return norm

    def _gradients(self) -> list[torch.Tensor]:
        """Of all masters that have one, over all processes."""
        for name, buffer in self._gradient_buffers.items():
            if self.masters[name].grad is None:
                self.masters[name].grad = buffer.zero_()
        if self.all_reduce is not None:
            for master in self.masters.values():  # another process may have a gradient where this one has none
                master.grad = torch.zeros_like(master) if master.grad is None else master.grad
        gradients = [master.grad for master in self.masters.values() if master.grad is not None]
        if self.all_reduce is not None:
            self.all_reduce(gradients)
        return gradients

    def zero_gradients(self) -> None:
        """Make every gradient zero, or none, which the next one replaces: as at the start of a step."""
        if self.shared:
            for master in self.masters.values():
                if master.grad is not None:
                    master.grad.zero_()
            return
        for tensor in (*self.masters.values(), *self.parameters.values()):
            tensor.grad = None  # a parameter has one where a backward pass broke off

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Copy the master weights into the model's parameters, rounding to its compute dtype."""
        if self.shared:
            return
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name])

    @contextmanager
    def using_average(self) -> Iterator[None]:
        """Inside the block the model computes with `output_weights`, afterwards with the master weights again."""
        if self.average is None:
            yield
            return
        self._swap_masters(self.average.weights)
        try:
            yield
        finally:
            self._swap_masters(self.average.weights)

    @torch.no_grad()
    def _swap_masters(self, weights: dict[str, torch.Tensor]) -> None:
        """Swap the master weights with `weights`: an exchange of memory, without a copy of more than one tensor."""
        for name, master in self.masters.items():
            if isinstance(master, DTensor):  # FSDP2 gathers from the memory that it was given
                master_values = master.detach().clone()
                master.copy_(weights[name])
                weights[name].copy_(master_values)
            else:
                master.data, weights[name] = weights[name], master.data
        self.copy_to_model()

    def adopt_average(self) -> None:
        """At the end of training: `output_weights` become the master weights, for good."""
        if self.average is not None:
            self.restore_masters(self.average.weights)

    def state(self) -> dict[str, torch.Tensor]:
        """The optimizer states and the moving average, by parameter name, flat, ready for safetensors.

        A plain number becomes a tensor of one, its key marked with `INTEGER`.
        """
        average = {} if self.average is None else self.average.state()
        flat = {f"{AVERAGE}{name}": value for name, value in average.items()}
        stored_ids: set[int] = set()
        for name, master in self.masters.items():
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(master, {}).items():
                    if not isinstance(value, torch.Tensor):
                        assert isinstance(value, int), f"{key} of {name} is a {type(value).__name__}"
                        flat[f"{key}{INTEGER}:{name}"] = torch.tensor(value)
                        continue
                    # The maps of 8-bit states are one tensor for all parameters; safetensors takes each tensor once.
                    flat[f"{key}:{name}"] = value.clone() if id(value) in stored_ids else value
                    stored_ids.add(id(value))
        return flat

    @torch.no_grad()
    def restore(self, masters: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
        """Load master weights and optimizer states saved by another run of the same shape.

        Raises:
            CheckpointError: the names or shapes are those of another model or method.
        """
        self.restore_masters(masters)
        if self.average is not None:
            average_state = {
                key.removeprefix(AVERAGE): value for key, value in state.items() if key.startswith(AVERAGE)
            }
            self.average.restore(average_state)
        owner = {
            id(master): optimizer
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for master in group["params"]
        }
        for flat_name, value in state.items():
            if flat_name.startswith(AVERAGE):
                continue
            key, name = flat_name.split(":", 1)
            master = self.masters[name]
            master_state = owner[id(master)].state[master]
            if key.endswith(INTEGER):
                master_state[key.removesuffix(INTEGER)] = int(value)
            elif isinstance(state_tensor := master_state.get(key), torch.Tensor):
                state_tensor.copy_(value)  # paged memory stays where it is
            else:
                master_state[key] = value.to(master.device, copy=True)

    @torch.no_grad()
    def restore_masters(self, masters: Mapping[str, torch.Tensor]) -> None:
        """Load master weights only, and copy them into the model.

        Raises:
            CheckpointError: the names or shapes are those of another model or method.
        """
        if set(masters) != set(self.masters):
            odd = sorted(set(masters) ^ set(self.masters))
            raise CheckpointError(
                "The checkpoint holds other parameters than this model trains",
                found=f"{len(masters)} parameters, for example {odd[0]}",
                expected=f"{len(self.masters)} parameters",
                fix="resume with the settings of the run that wrote it",
            )
        for name, master in self.masters.items():
            if masters[name].shape != master.shape:
                raise CheckpointError(
                    "The checkpoint holds a parameter of another shape",
                    where=name,
                    found=str(tuple(masters[name].shape)),
                    expected=str(tuple(master.shape)),
                    fix="resume with the settings of the run that wrote it",
                )
            master.copy_(masters[name])
        self.copy_to_model()


def non_finite_names(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors with NaN or an infinity in the shard of this process."""
    names = []
    for name, tensor in tensors.items():
        values = tensor.detach()
        values = values.to_local() if isinstance(values, DTensor) else values
        # Both ends, rather than a mask as large as the tensor; a NaN anywhere is at both.
        if values.is_floating_point() and values.numel() and not all(map(math.isfinite, map(float, values.aminmax()))):
            names.append(name)
    return names


def _accumulation_hook(master: torch.Tensor, buffer: torch.Tensor) -> Callable[[torch.Tensor], None]:
    def add(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        if master.grad is None:  # the first of a step is copied: a third of what clearing and adding move
            master.grad = buffer.copy_(parameter.grad)
        else:
            master.grad.add_(parameter.grad)
        parameter.grad = None

    return add


def require_finite(model: torch.nn.Module, base: Path) -> None:
    """Refuse a model that holds NaN or an infinity before its first step: nothing can be learned from it.

    Args:
        model: as it was loaded; 4-bit blocks are not looked into.
        base: the folder it was loaded from.

    Raises:
        TrainingError: a weight is not finite.
    """
    if names := non_finite_names(dict(model.named_parameters())):
        remaining = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        raise TrainingError(
            "The model to start from holds weights that are not finite",
            where=str(base),
            found="NaN or infinity in " + ", ".join(names[:MAX_NAMES]) + remaining,
            expected="finite numbers",
            fix="get a whole copy of the model, or another one",
        )

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

from tutelage.distributed.process_group import whole_tensor
from tutelage.errors import CheckpointError, TrainingError
from tutelage.optim.ema import Average

Build = Callable[[Mapping[str, torch.Tensor]], Sequence[torch.optim.Optimizer]]
"""Master weights by name -> the optimizers that step them; each master has exactly one. See `optim.optimizers`."""

MOST_NAMES = 4
"""Weights that an error names."""

INTEGER = "#int"
"""Ends the key of a plain whole number in `MasterWeights.state`."""

AVERAGE = "average:"
"""Begins the key of what `Average.state` gives in `MasterWeights.state`."""


class MasterWeights:
    """Keeps an fp32 master and an fp32 gradient for each trainable parameter, and the optimizers that step them.

    Two ways, with the same mathematics:
    - `shared=False`: the model computes in another precision. Build this while the parameters still have the precision
      they were stored in; after `model.load.cast_model` has cast them, gradients are added into the fp32 ones as soon
      as backward makes them, and dropped.
    - `shared=True`: the parameters are fp32 already (plain, or sharded and cast by FSDP2) and are their own masters:
      no copy is kept.

    Args:
        model: its parameters with `requires_grad` learn; they must not be replaced later, only recast through `.data`.
        build: makes the optimizers.
        shared: the parameters are their own masters.
        add_up: makes gradients their sums over processes that each hold the whole model; None where no other does.
        average_decay: keep a moving average of the masters with this decay (`Average`); None keeps none.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        build: Build,
        shared: bool = False,
        add_up: Callable[[Sequence[torch.Tensor]], None] | None = None,
        average_decay: float | None = None,
    ) -> None:
        self.parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self.shared = shared
        self.add_up = add_up
        self.masters: dict[str, torch.Tensor]
        self._room: dict[str, torch.Tensor] = {}  # for the gradient of each master that is not a parameter itself
        if shared:
            assert all(parameter.dtype == torch.float32 for parameter in self.parameters.values()), "masters are fp32"
            self.masters = dict(self.parameters)
        else:
            self.masters = {name: one.detach().to(torch.float32, copy=True) for name, one in self.parameters.items()}
            for name, parameter in self.parameters.items():
                self._room[name] = torch.empty_like(self.masters[name])
                parameter.register_post_accumulate_grad_hook(_into(self.masters[name], self._room[name]))
        self.optimizers = tuple(build(self.masters))
        self.average = None if average_decay is None else Average(self.masters, decay=average_decay)

    @property
    def kept(self) -> Mapping[str, torch.Tensor]:
        """The weights by name that are measured and saved: the moving average where there is one, else the masters."""
        return self.masters if self.average is None else self.average.weights

    @torch.no_grad()
    def step(self, learning_rate: float, *, max_grad_norm: float) -> float:
        """Clip, update masters, copy them into the model, clear gradients; return the norm before clipping.

        A norm that is not finite changes nothing: neither weights nor moments.
        """
        gradients = self._gradients()
        norm = float(whole_tensor(torch.nn.utils.get_total_norm(gradients)))
        if not math.isfinite(norm):
            return norm
        if norm > max_grad_norm:
            for gradient in gradients:
                gradient.mul_(max_grad_norm / norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()
        self.forget_gradients()
        self.publish()
        if self.average is not None:
            self.average.follow(self.masters)
        return norm

    def _gradients(self) -> list[torch.Tensor]:
        """Of all masters that have one, over all processes."""
        for name, room in self._room.items():
            if self.masters[name].grad is None:
                self.masters[name].grad = room.zero_()
        if self.add_up is not None:
            for master in self.masters.values():  # another process may have a gradient where this one has none
                master.grad = torch.zeros_like(master) if master.grad is None else master.grad
        gradients = [master.grad for master in self.masters.values() if master.grad is not None]
        if self.add_up is not None:
            self.add_up(gradients)
        return gradients

    def forget_gradients(self) -> None:
        """Make every gradient zero, or none, which the next one replaces: as at the start of a step."""
        if self.shared:
            for master in self.masters.values():
                if master.grad is not None:
                    master.grad.zero_()
            return
        for one in (*self.masters.values(), *self.parameters.values()):
            one.grad = None  # a parameter has one where a backward pass broke off

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the model's parameters, rounding to what it computes in."""
        if self.shared:
            return
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name])

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Inside the block the model computes with what is `kept`, afterwards with the masters again."""
        if self.average is None:
            yield
            return
        self._exchange(self.average.weights)
        try:
            yield
        finally:
            self._exchange(self.average.weights)

    @torch.no_grad()
    def _exchange(self, weights: dict[str, torch.Tensor]) -> None:
        """Masters and `weights` change places: a swap of memory, without a copy of more than one of them."""
        for name, master in self.masters.items():
            if isinstance(master, DTensor):  # FSDP2 gathers from the memory that it was given
                aside = master.detach().clone()
                master.copy_(weights[name])
                weights[name].copy_(aside)
            else:
                master.data, weights[name] = weights[name], master.data
        self.publish()

    def settle(self) -> None:
        """Training is over: the weights that are `kept` become the masters, for good."""
        if self.average is not None:
            self.restore_masters(self.average.weights)

    def state(self) -> dict[str, torch.Tensor]:
        """All that the optimizers remember, and the moving average, by parameter name, flat, ready for safetensors.

        A plain number becomes a tensor of one, its key marked with `INTEGER`.
        """
        average = {} if self.average is None else self.average.state()
        flat = {f"{AVERAGE}{name}": value for name, value in average.items()}
        seen: set[int] = set()
        for name, master in self.masters.items():
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(master, {}).items():
                    if not isinstance(value, torch.Tensor):
                        assert isinstance(value, int), f"{key} of {name} is a {type(value).__name__}"
                        flat[f"{key}{INTEGER}:{name}"] = torch.tensor(value)
                        continue
                    # The maps of 8-bit states are one tensor for all parameters; safetensors takes each tensor once.
                    flat[f"{key}:{name}"] = value.clone() if id(value) in seen else value
                    seen.add(id(value))
        return flat

    @torch.no_grad()
    def restore(self, masters: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
        """Take over masters and moments saved by another run of the same shape.

        Raises:
            CheckpointError: the names or shapes are those of another model or method.
        """
        self.restore_masters(masters)
        if self.average is not None:
            ours = {key.removeprefix(AVERAGE): one for key, one in state.items() if key.startswith(AVERAGE)}
            self.average.restore(ours)
        owner = {id(one): opt for opt in self.optimizers for group in opt.param_groups for one in group["params"]}
        for flat_name, value in state.items():
            if flat_name.startswith(AVERAGE):
                continue
            key, name = flat_name.split(":", 1)
            master = self.masters[name]
            kept = owner[id(master)].state[master]
            if key.endswith(INTEGER):
                kept[key.removesuffix(INTEGER)] = int(value)
            elif isinstance(there := kept.get(key), torch.Tensor):
                there.copy_(value)  # paged memory stays where it is
            else:
                kept[key] = value.to(master.device, copy=True)

    @torch.no_grad()
    def restore_masters(self, masters: Mapping[str, torch.Tensor]) -> None:
        """Take over weights only, and publish them.

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
        self.publish()


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of those that hold NaN or an infinity in the part that this process keeps."""
    found = []
    for name, tensor in tensors.items():
        ours = tensor.detach()
        ours = ours.to_local() if isinstance(ours, DTensor) else ours
        # Both ends, rather than a mask as large as the tensor; a NaN anywhere is at both.
        if ours.is_floating_point() and ours.numel() and not all(map(math.isfinite, map(float, ours.aminmax()))):
            found.append(name)
    return found


def _into(master: torch.Tensor, room: torch.Tensor) -> Callable[[torch.Tensor], None]:
    def add(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        if master.grad is None:  # the first of a step is copied: a third of what clearing and adding move
            master.grad = room.copy_(parameter.grad)
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
    if found := not_finite(dict(model.named_parameters())):
        more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
        raise TrainingError(
            "The model to start from holds weights that are not finite",
            where=str(base),
            found="NaN or infinity in " + ", ".join(found[:MOST_NAMES]) + more,
            expected="finite numbers",
            fix="get a whole copy of the model, or another one",
        )

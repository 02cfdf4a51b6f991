"""AdamW over fp32 master weights, whatever the model computes in.

Source: AdamW, Loshchilov and Hutter 2019, algorithm 2; master weights, Micikevicius et al. 2018, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch

from tutelage.errors import CheckpointError


class MasterAdamW:
    """Keeps an fp32 master, fp32 gradient and fp32 moments for each trainable parameter.

    Build it while the parameters still have the precision they were stored in; after `model.load.compute_in` has cast
    them, gradients in bf16 are added into the fp32 ones as soon as backward makes them, and dropped.

    Args:
        model: its parameters with `requires_grad` learn; they must not be replaced later, only recast through `.data`.
        weight_decay: decoupled decay; vectors (norms, biases) are exempt.
        betas: decay rates of the two moments.
        epsilon: added to the root of the second moment.
    """

    def __init__(
        self, model: torch.nn.Module, *, weight_decay: float, betas: tuple[float, float], epsilon: float
    ) -> None:
        self.parameters = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self.masters = {name: one.detach().to(torch.float32, copy=True) for name, one in self.parameters.items()}
        for name, parameter in self.parameters.items():
            master = self.masters[name]
            master.grad = torch.zeros_like(master)
            parameter.register_post_accumulate_grad_hook(_into(master))
        decayed = [one for one in self.masters.values() if one.ndim >= 2]
        exempt = [one for one in self.masters.values() if one.ndim < 2]
        self._adamw = torch.optim.AdamW(
            [
                {"params": group, "weight_decay": decay}
                for group, decay in ((decayed, weight_decay), (exempt, 0.0))
                if group
            ],
            lr=0.0,
            betas=betas,
            eps=epsilon,
            fused=True,
        )

    def step(self, learning_rate: float, *, max_gradient_norm: float) -> float:
        """Clip, update masters, copy them into the model, clear gradients; return the norm before clipping.

        A norm that is not finite changes nothing: neither weights nor moments.
        """
        gradients = [one.grad for one in self.masters.values() if one.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            return norm
        if norm > max_gradient_norm:
            for gradient in gradients:
                gradient.mul_(max_gradient_norm / norm)
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._adamw.step()
        for gradient in gradients:
            gradient.zero_()
        self.publish()
        return norm

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the model's parameters, rounding to what it computes in."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name])

    def state(self) -> dict[str, torch.Tensor]:
        """Moments and step counts by parameter name, flat, ready for safetensors."""
        flat = {}
        for name, master in self.masters.items():
            for key, value in self._adamw.state.get(master, {}).items():
                flat[f"{key}:{name}"] = value
        return flat

    def restore(self, masters: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> None:
        """Take over masters and moments saved by another run of the same shape.

        Raises:
            CheckpointError: the names or shapes are those of another model or method.
        """
        self.restore_masters(masters)
        for flat_name, value in state.items():
            key, name = flat_name.split(":", 1)
            self._adamw.state[self.masters[name]][key] = value.clone()

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


def _into(master: torch.Tensor) -> Callable[[torch.Tensor], None]:
    def add(parameter: torch.Tensor) -> None:
        assert master.grad is not None
        assert parameter.grad is not None
        master.grad.add_(parameter.grad)
        parameter.grad = None

    return add

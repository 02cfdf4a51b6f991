"""LoRA that starts from what the model sees in the data before its first step: EVA, CorDA and LoRA-GA.

EVA starts from the directions in which a layer's inputs vary most (Paischer et al. 2024, section 3), each layer with
the same rank. CorDA splits each weight by what its inputs' covariance makes of it (Yang et al. 2024, section 3.2, the
mode that previews instructions). LoRA-GA splits it along the gradient of full fine-tuning (Wang et al. 2024, section
3). The last two are PEFT's; EVA is PEFT's principal components, fed otherwise: PEFT's own loop over the data has no
end unless every direction settles, and leaves out each document with fewer trained tokens than the rank.

Shape legend: T = tokens of a row that are looked at, I = inputs of a layer, K = rank.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from tutelage.errors import ConfigError
from tutelage.model.adapters.lora_targets import expert_adapters, linear_layers
from tutelage.model.architecture import PLAIN, Architecture, use_training_attention
from tutelage.model.loss import hidden_states, row_loss
from tutelage.types import PackedSequence

PREPROCESSED_INITS = ("corda", "lora_ga")
"""What PEFT wants to know about the data before it adds the adapter, by its names."""

TOKENS_AT_ONCE = 1024
"""Inputs of a layer that wait until their principal components are brought up to date."""

DIRECTIONS_TRIED = 4
"""Times the rank: so many directions are searched for principal components. Source: Halko et al. 2011 (Finding
Structure with Randomness), section 1.3: a few more than are wanted; PEFT takes twice the rank."""


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """Packed rows of training data, and whom to tell how many of their tokens were looked at since the last time.

    `architecture` is what was tried on the model, whose rows these are.
    """

    rows: Sequence[PackedSequence]
    done: Callable[[int], None]
    architecture: Architecture = PLAIN

    def __iter__(self) -> Iterator[PackedSequence]:
        for row in self.rows:
            yield row
            self.done(len(row.ids))


def preprocess_with_data(model: Any, config: Any, calibration_data: CalibrationData) -> None:
    """Leave with each target what PEFT's CorDA or LoRA-GA reads when it adds the adapter.

    Args:
        model: without an adapter; it attends as it trains afterwards.
        config: PEFT's `LoraConfig`.
        calibration_data: what to look at.
    """
    from peft.tuners.lora.corda import preprocess_corda
    from peft.tuners.lora.loraga import preprocess_loraga

    if config.target_modules == "all-linear":
        config = replace(config, target_modules=linear_layers(model))  # PEFT knows that word only when it adds
    use_training_attention(model, calibration_data.architecture.attention)
    if config.init_lora_weights == "corda":
        preprocess_corda(model, config, run_model=partial(_pass, model, calibration_data))
        return
    with warnings.catch_warnings():
        # PEFT counts backward passes at hooks, in a model of which the embedding does not learn.
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        preprocess_loraga(model, config, train_step=partial(_learn, model, calibration_data))


@torch.no_grad()
def _pass(model: Any, calibration_data: CalibrationData) -> None:
    for row in calibration_data:
        hidden_states(model, row, architecture=calibration_data.architecture)


def _learn(model: Any, calibration_data: CalibrationData) -> None:
    """Add up the gradients of each row's mean loss; PEFT divides by their number."""
    for row in calibration_data:
        if row.trained_tokens:
            loss, count = row_loss(model, row, architecture=calibration_data.architecture)
            (loss / count).backward()


@torch.no_grad()
def init_from_inputs(adapted: Any, calibration_data: CalibrationData, *, rank: int) -> None:
    """Set the first matrix of each pair to the principal components of its layer's inputs at trained tokens.

    The second matrix stays zero, so the first step starts at the base exactly.

    Args:
        adapted: PEFT's model with one adapter, made with its "eva".
        calibration_data: what to look at.
        rank: K of every pair.

    Raises:
        ConfigError: fewer tokens are trained in these rows than the rank.
    """
    from peft.tuners.lora import LoraLayer

    use_training_attention(adapted, calibration_data.architecture.attention)
    experts = set(expert_adapters(adapted))  # what goes into such a module is not what meets its weights
    layers = [
        module for name, module in adapted.named_modules() if isinstance(module, LoraLayer) and name not in experts
    ]
    watched = _Inputs(layers, rank)
    with watched, adapted.disable_adapter():
        for row in calibration_data:
            watched.places = torch.from_numpy(np.flatnonzero(row.weights))
            hidden_states(adapted, row, architecture=calibration_data.architecture)
    for layer, components_KI in zip(layers, watched.components(), strict=True):
        (first,) = layer.lora_A.values()
        first.weight.copy_(components_KI)


class _Inputs:
    """Follows the inputs of layers through forward passes. Layers that are given one tensor share what is found."""

    def __init__(self, layers: Sequence[Any], rank: int) -> None:
        self._layers, self._rank = layers, rank
        self.places = torch.empty(0, dtype=torch.long)
        self._leader: dict[Any, Any] = {}
        self._components: dict[Any, Any] = {}
        self._waiting: dict[Any, list[torch.Tensor]] = {}
        self._last: tuple[torch.Tensor | None, Any] = (None, None)
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        self._hooks = [layer.register_forward_pre_hook(self._collect) for layer in self._layers]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._last = (None, None)

    def _collect(self, layer: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        # The tensor itself is held on to: its memory alone could be another's by now.
        if inputs[0] is self._last[0]:
            self._leader[layer] = self._last[1]
            return
        self._last = (inputs[0], layer)
        self._leader[layer] = layer
        chosen_TI = inputs[0].flatten(0, -2)[self.places.to(inputs[0].device)].float()
        waiting = self._waiting.setdefault(layer, [])
        waiting.append(chosen_TI)
        if sum(map(len, waiting)) >= max(TOKENS_AT_ONCE, self._rank):
            self._fit(layer)

    def _fit(self, layer: Any) -> None:
        from peft.utils.incremental_pca import IncrementalPCA

        inputs_TI = torch.cat(self._waiting.pop(layer))
        if layer not in self._components:
            # Found by random projection onto more directions than are kept: all of them would take ten times as long.
            width = min(DIRECTIONS_TRIED * self._rank, *inputs_TI.shape)
            self._components[layer] = IncrementalPCA(self._rank, lowrank=True, lowrank_q=width, lowrank_seed=0)
        self._components[layer].partial_fit(inputs_TI)

    def components(self) -> Iterator[torch.Tensor]:
        """[K, I] for each layer: unit vectors, the one along which its inputs vary most first."""
        for layer, waiting in list(self._waiting.items()):
            needed = self._rank * (DIRECTIONS_TRIED if layer in self._components else 1)
            if sum(map(len, waiting)) >= needed:  # fewer cannot be taken in, and are the last of many
                self._fit(layer)
        for layer in self._layers:
            leader = self._leader.get(layer, layer)
            if leader not in self._components:
                raise ConfigError(
                    "lora.init needs at least lora.rank trained tokens to start from",
                    where="lora.init",
                    found=f"fewer than {self._rank} trained tokens",
                    expected="at least as many as lora.rank",
                    fix='raise lora.init_tokens, lower lora.rank, or set lora.init = "default"',
                )
            yield self._components[leader].components_

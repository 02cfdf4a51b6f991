"""Random documents and a plain, unpacked loss to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.loss import row_loss
from tutelage.types import Address, Example, PackedSequence

torch.set_num_threads(1)


@pytest.fixture
def tiny_model(tiny_model_folder: Path) -> Any:
    """A fresh fp32 copy of the tiny model."""
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, local_files_only=True)


@pytest.fixture(scope="session")
def documents() -> Callable[..., list[Example]]:
    """A maker of random documents: about half the tokens of each are trained."""

    def make(lengths: Sequence[int], *, vocabulary: int = 400, seed: int = 0, scaled: bool = False) -> list[Example]:
        random = np.random.default_rng(seed)
        made = []
        for number, length in enumerate(lengths):
            weights = (random.random(length) < 0.5).astype(np.float32)
            if scaled:
                weights *= random.choice([0.25, 1.0, 2.0], length).astype(np.float32)
            weights[0], weights[-1] = 0.0, 1.0
            ids = random.integers(0, vocabulary, length).astype(np.int32)
            made.append(Example(Address("made", number), 0, ids, weights, ()))
        return made

    return make


@pytest.fixture(scope="session")
def plain_loss() -> Callable[[Any, Sequence[Example]], torch.Tensor]:
    """Summed loss of documents, each alone through transformers' own forward and torch's cross-entropy."""

    def total(model: Any, examples: Sequence[Example]) -> torch.Tensor:
        model.set_attn_implementation("eager")
        sums = []
        for example in examples:
            ids = torch.from_numpy(example.ids).long()
            weights = torch.from_numpy(example.weights)
            logits = model(input_ids=ids[None], use_cache=False).logits[0].float()
            if set(np.unique(example.weights)) <= {0.0, 1.0}:
                labels = torch.where(weights > 0, ids, -100)
                sums.append(cross_entropy(logits[:-1], labels[1:], reduction="sum", ignore_index=-100))
            else:
                sums.append((cross_entropy(logits[:-1], ids[1:], reduction="none") * weights[1:]).sum())
        return torch.stack(sums).sum()

    return total


@pytest.fixture(scope="session")
def gradients_of() -> Callable[[Any], dict[str, torch.Tensor]]:
    """Takes the gradients off a model: every trainable parameter must have one."""

    def take(model: Any) -> dict[str, torch.Tensor]:
        taken = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{name} received no gradient"
                taken[name] = parameter.grad.clone()
                parameter.grad = None
        return taken

    return take


@pytest.fixture(scope="session")
def learned_from() -> Callable[[Any, Sequence[PackedSequence]], tuple[list[float], dict[str, torch.Tensor]]]:
    """Takes each row forward and back through a model: the losses, and the gradients that are there, by name."""

    def learn(model: Any, rows: Sequence[PackedSequence]) -> tuple[list[float], dict[str, torch.Tensor]]:
        torch.manual_seed(11)
        use_packed_attention(model)
        model.train()
        losses = []
        for row in rows:
            loss, _ = row_loss(model, row)
            loss.backward()
            losses.append(loss.item())
        return losses, {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}

    return learn

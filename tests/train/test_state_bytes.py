"""What is said of optimizer state before the first step is what there is after it."""

from __future__ import annotations

import importlib.util
from typing import Any, get_args

import pytest
import torch

from tutelage.train.masters import Masters
from tutelage.train.optimiser import PAGED, Optimizer, optimizer_named
from tutelage.train.state_bytes import state_bytes

TABLES = ("qmap1", "qmap2", "step")
EMBEDDINGS = ("0.weight",)


class Net(torch.nn.Sequential):
    """An embedding, matrices with and without 8-bit moments, and vectors."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Embedding(70, 64), torch.nn.Linear(64, 100), torch.nn.Linear(100, 20))


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("name", [one for one in get_args(Optimizer) if one not in PAGED])
def test_the_bytes_said_are_the_bytes_held(name: Any, averaged: bool) -> None:
    if name.endswith("_8bit") and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed (extra qlora)")
    model = Net()
    build = optimizer_named(name, weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8, embeddings=EMBEDDINGS)
    masters = Masters(model, build=build, shared=True, average_decay=0.9 if averaged else None)
    said = state_bytes(name, masters.masters, embeddings=EMBEDDINGS, averaged=averaged)
    model(torch.arange(70)).square().sum().backward()
    masters.step(1e-3, max_gradient_norm=1.0)

    held = sum(
        one.nbytes
        for key, one in masters.state().items()
        if key.partition(":")[0].partition("#")[0] not in TABLES and one.numel() > 1
    )

    assert said == held

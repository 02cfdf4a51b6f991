"""Compiled layers compute what plain ones do, and rows of other lengths and documents compile nothing again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from tutelage.model.activation_checkpointing import recompute_activations
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.compile import compile_layers
from tutelage.model.loss import row_loss
from tutelage.pack import pack_rows
from tutelage.types import Example


@pytest.mark.parametrize("again", [False, True])
def test_loss_and_gradients_stay_and_nothing_is_compiled_twice(
    tiny_model: Any,
    documents: Callable[..., list[Example]],
    gradients_of: Callable[[Any], dict[str, torch.Tensor]],
    again: bool,
) -> None:
    rows = [
        pack_rows(documents(lengths), row_tokens=96)[0] for lengths in ((40, 31), (12,), (5, 6, 7), (60, 20), (90,))
    ]
    use_packed_attention(tiny_model)
    tiny_model.train()
    if again:
        recompute_activations(tiny_model)

    def course() -> list[tuple[float, dict[str, torch.Tensor]]]:
        found = []
        for row in rows:
            loss, _ = row_loss(tiny_model, row)
            loss.backward()
            found.append((loss.item(), gradients_of(tiny_model)))
        return found

    plain = course()
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    assert compile_layers(tiny_model, backend=counter) == 6, "two norms and a feed-forward, in two layers"
    compiled = course()

    for (loss, gradients), (loss_compiled, gradients_compiled) in zip(plain, compiled, strict=True):
        assert loss_compiled == pytest.approx(loss, rel=1e-6)
        for name, one in gradients.items():
            torch.testing.assert_close(gradients_compiled[name], one, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 2, "one graph for norms, one for feed-forwards"
    torch._dynamo.reset()

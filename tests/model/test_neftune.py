"""NEFTune's noise: how large, on what, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tutelage.model.adapters.lora import add_lora
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.loss import row_loss
from tutelage.model.neftune import add_embedding_noise
from tutelage.model.precision import cast_model
from tutelage.pack import pack_rows

Maker = Callable[..., Any]


def embedded(model: Any, row: Any) -> torch.Tensor:
    """What enters the first layer for a row: [R, D]."""
    seen: list[torch.Tensor] = []
    handle = model.get_decoder().layers[0].register_forward_pre_hook(lambda _layer, given: seen.append(given[0][0]))
    row_loss(model, row)
    handle.remove()
    return seen[0].detach()


@pytest.fixture
def row(documents: Maker) -> Any:
    (packed,) = pack_rows(documents([100, 25, 4]), row_tokens=256)
    assert packed.document_tokens == (100, 25, 4)
    return packed


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_noise_is_uniform_within_a_bound_of_each_document(tiny_model: Any, row: Any, precision: Any) -> None:
    cast_model(tiny_model, precision)
    use_packed_attention(tiny_model)
    plain_RD = embedded(tiny_model.train(), row).float()

    add_embedding_noise(tiny_model, alpha=5.0)
    torch.manual_seed(0)
    noise_RD = embedded(tiny_model, row).float() - plain_RD

    for part, length in zip(noise_RD.split(row.document_tokens), row.document_tokens, strict=True):
        bound = 5.0 / (length * plain_RD.shape[1]) ** 0.5
        slack = 1.01 if precision == "bf16" else 1.0001
        assert 0.9 * bound < float(part.abs().max()) <= slack * bound
        assert float(part.std()) == pytest.approx(bound / 3**0.5, rel=0.1)
        assert abs(float(part.mean())) < 0.15 * bound


def test_noise_is_drawn_anew_and_from_torchs_generator(tiny_model: Any, row: Any) -> None:
    use_packed_attention(tiny_model)
    add_embedding_noise(tiny_model.train(), alpha=5.0)
    torch.manual_seed(3)
    first, second = embedded(tiny_model, row), embedded(tiny_model, row)
    torch.manual_seed(3)
    assert torch.equal(embedded(tiny_model, row), first)
    assert not torch.equal(first, second)


def test_nothing_is_added_in_evaluation(tiny_model: Any, row: Any) -> None:
    use_packed_attention(tiny_model)
    plain, _ = row_loss(tiny_model.eval(), row)
    add_embedding_noise(tiny_model, alpha=5.0)
    assert torch.equal(row_loss(tiny_model, row)[0], plain)
    assert not torch.equal(row_loss(tiny_model.train(), row)[0], plain)


def test_noise_of_no_strength_changes_nothing(tiny_model: Any, row: Any, gradients_of: Maker) -> None:
    use_packed_attention(tiny_model)
    plain, _ = row_loss(tiny_model.train(), row)
    plain.backward()
    expected = gradients_of(tiny_model)
    add_embedding_noise(tiny_model, alpha=0.0)
    loss, _ = row_loss(tiny_model, row)
    loss.backward()
    assert torch.equal(loss, plain)
    assert all(torch.equal(one, expected[name]) for name, one in gradients_of(tiny_model).items())


def test_it_works_beside_adapters(tiny_model: Any, row: Any) -> None:
    model, _ = add_lora(tiny_model, rank=2, alpha=4, dropout=0.0, targets="all-linear")
    use_packed_attention(model)
    plain, _ = row_loss(model.train(), row)
    add_embedding_noise(model, alpha=5.0)
    assert not torch.equal(row_loss(model, row)[0], plain)

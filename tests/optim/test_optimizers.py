"""AdamW over masters: torch's own in fp32, and what bf16 models need beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tutelage.errors import CheckpointError
from tutelage.model.precision import cast_model
from tutelage.optim.master_weights import MasterWeights

Maker = Callable[..., Any]


def backward(model: torch.nn.Module, step: int) -> None:
    random = torch.Generator().manual_seed(100 + step)
    inputs = torch.randn(5, 6, generator=random)
    wanted = torch.randn(5, 3, generator=random)
    dtype = next(model.parameters()).dtype
    ((model(inputs.to(dtype)) - wanted.to(dtype)) ** 2).sum().backward()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("max_grad_norm", [1.0, 1e9])
def test_equals_torch_adamw_in_fp32(
    small_network: Maker, master_adamw: Maker, max_grad_norm: float, shared: bool
) -> None:
    ours, theirs = small_network(), small_network()
    optimizer = master_adamw(ours, weight_decay=0.1, shared=shared)
    matrices = [parameter for parameter in theirs.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in theirs.parameters() if parameter.ndim < 2]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.999),
        eps=1e-8,
    )
    for step in range(5):
        backward(ours, step)
        norm = optimizer.step(0.01 * (step + 1), max_grad_norm=max_grad_norm)

        backward(theirs, step)
        expected_norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        for group in reference.param_groups:
            group["lr"] = 0.01 * (step + 1)
        reference.step()
        reference.zero_grad()

        assert norm == pytest.approx(float(expected_norm), rel=1e-6)
        assert norm > 1.0, "the clipped case must clip"
        for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_vectors_do_not_decay(small_network: Maker, master_adamw: Maker) -> None:
    model = small_network()
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    optimizer = master_adamw(model, weight_decay=0.5)

    norm = optimizer.step(0.1, max_grad_norm=1.0)  # gradients are zero: only decay moves anything

    assert norm == 0.0
    for name, parameter in model.named_parameters():
        expected = before[name] * (1 - 0.1 * 0.5) if parameter.ndim >= 2 else before[name]
        torch.testing.assert_close(parameter.detach(), expected)


def test_gradients_add_up_over_backward_passes(small_network: Maker, master_adamw: Maker) -> None:
    model, summed = small_network(), small_network()
    optimizer = master_adamw(model)
    for step in (0, 1):
        backward(model, step)
        backward(summed, step)

    for name, parameter in summed.named_parameters():
        assert model.get_parameter(name).grad is None
        torch.testing.assert_close(optimizer.masters[name].grad, parameter.grad)
    optimizer.step(0.01, max_grad_norm=1e9)
    assert all(master.grad is None for master in optimizer.masters.values())


def test_a_weight_without_a_gradient_is_stepped_as_one_with_a_gradient_of_zero(
    small_network: Maker, master_adamw: Maker
) -> None:
    moved, still = (master_adamw(small_network(), weight_decay=0.5) for _ in range(2))
    for one in moved.masters.values():
        one.grad = torch.zeros_like(one)

    for optimizer in (moved, still):
        assert optimizer.step(0.1, max_grad_norm=1.0) == 0.0

    for name, master in moved.masters.items():
        assert torch.equal(still.masters[name], master), name


def test_fp32_parameters_can_be_their_own_masters(small_network: Maker, master_adamw: Maker) -> None:
    model = small_network()
    optimizer = master_adamw(model, shared=True)

    assert all(optimizer.masters[name] is one for name, one in model.named_parameters())


def test_bf16_masters_move_where_bf16_weights_cannot(small_network: Maker, master_adamw: Maker) -> None:
    model = small_network()
    optimizer = master_adamw(model)
    cast_model(model, "bf16")
    weights = {name: one.detach().clone() for name, one in model.named_parameters()}
    masters = {name: one.clone() for name, one in optimizer.masters.items()}

    backward(model, 0)
    optimizer.step(1e-6, max_grad_norm=1.0)

    still = [name for name, one in model.named_parameters() if torch.equal(one, weights[name])]
    assert "1.weight" in still, "a norm weight of 1.0 cannot move by 1e-6 in bf16"
    assert all(not torch.equal(one, masters[name]) for name, one in optimizer.masters.items())
    for name, one in model.named_parameters():
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, optimizer.masters[name].to(torch.bfloat16))


def test_masters_keep_what_bf16_rounds_away(small_network: Maker, master_adamw: Maker) -> None:
    model = small_network()
    exact = {name: one.detach().clone() for name, one in model.named_parameters()}
    optimizer = master_adamw(model)
    cast_model(model, "bf16")

    for name, master in optimizer.masters.items():
        assert torch.equal(master, exact[name])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(small_network: Maker, master_adamw: Maker, bad: float) -> None:
    model = small_network()
    optimizer = master_adamw(model)
    backward(model, 0)
    optimizer.step(0.01, max_grad_norm=1.0)
    masters = {name: one.clone() for name, one in optimizer.masters.items()}
    weights = {name: one.detach().clone() for name, one in model.named_parameters()}
    moments = {name: one.clone() for name, one in optimizer.state().items()}

    backward(model, 1)
    optimizer.masters["0.bias"].grad[2] = bad
    norm = optimizer.step(0.01, max_grad_norm=1.0)

    assert not math.isfinite(norm)
    assert all(torch.equal(one, masters[name]) for name, one in optimizer.masters.items())
    assert all(torch.equal(one, weights[name]) for name, one in model.named_parameters())
    assert all(torch.equal(one, moments[name]) for name, one in optimizer.state().items())


@pytest.mark.parametrize("shared", [False, True])
def test_state_goes_out_and_in_again(small_network: Maker, master_adamw: Maker, shared: bool) -> None:
    first, second = small_network(), small_network(seed=1)
    one, other = (master_adamw(model, weight_decay=0.1, shared=shared) for model in (first, second))
    for step in range(3):
        backward(first, step)
        one.step(0.01, max_grad_norm=1.0)
    saved = {name: value.clone() for name, value in one.state().items()}
    assert len(saved) == 3 * len(one.masters), "two moments and a step count for each parameter"

    other.restore({name: value.clone() for name, value in one.masters.items()}, saved)
    for step in range(3, 6):
        for model, optimizer in ((first, one), (second, other)):
            backward(model, step)
            optimizer.step(0.01, max_grad_norm=1.0)

    for found, expected in zip(second.parameters(), first.parameters(), strict=True):
        assert torch.equal(found, expected)
    assert all(torch.equal(saved_now, other.state()[name]) for name, saved_now in one.state().items())


def test_masters_of_another_model_are_refused(small_network: Maker, master_adamw: Maker) -> None:
    optimizer = master_adamw(small_network())
    masters = dict(optimizer.masters)
    masters["extra.weight"] = masters.pop("0.weight")

    with pytest.raises(CheckpointError, match="other parameters"):
        optimizer.restore_masters(masters)


def test_masters_of_another_shape_are_refused(small_network: Maker, master_adamw: Maker) -> None:
    """The contract: a CheckpointError when names or shapes are those of another model, as with another lora.rank."""
    optimizer = master_adamw(small_network())
    masters = dict(optimizer.masters)
    masters["0.weight"] = torch.zeros(9, 6)

    with pytest.raises(CheckpointError):
        optimizer.restore_masters(masters)


def test_a_bf16_stored_model_has_exact_masters(small_network: Maker, master_adamw: Maker) -> None:
    model = small_network()
    cast_model(model, "bf16")
    optimizer: MasterWeights = master_adamw(model)

    for name, one in model.named_parameters():
        assert optimizer.masters[name].dtype == torch.float32
        assert torch.equal(optimizer.masters[name], one.detach().float())

"""L2-SP by hand, beside AdamW's own weight decay, and of pairs against autograd through PEFT's product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.model.adapters.test_lora_targets import EXPERTS, LORA, tiny
from tutelage.model.adapters.lora import add_lora
from tutelage.model.adapters.pairs import adapter_pairs
from tutelage.model.precision import cast_model
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import adamw
from tutelage.optim.pull_to_base import PullToBase

Maker = Callable[..., Any]
RATE, STRENGTH = 0.02, 5.0


def stepped(model: torch.nn.Module, masters: MasterWeights, steps: int) -> None:
    for step in range(steps):
        inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
        model(inputs.to(next(model.parameters()).dtype)).square().sum().backward()
        masters.step(RATE, max_grad_norm=1e9)


def test_each_step_takes_a_share_of_the_way_back_and_then_the_gradients(small_network: Maker) -> None:
    model = small_network()
    build = lambda masters: (torch.optim.SGD(list(masters.values()), lr=0.0),)  # noqa: E731 # as `adamw` makes one
    masters = MasterWeights(model, build=build, shared=True)
    starts = {name: one.detach().clone() for name, one in masters.masters.items()}
    masters.pull = PullToBase(masters.masters, strength=STRENGTH, stored_as=torch.float32)
    stepped(model, masters, 2)
    before = {name: one.detach().clone() for name, one in masters.masters.items()}
    inputs = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    model(inputs).square().sum().backward()
    gradients = {name: one.grad.clone() for name, one in masters.masters.items()}

    masters.step(RATE, max_grad_norm=1e9)

    for name, master in masters.masters.items():
        expected = before[name] - RATE * STRENGTH * (before[name] - starts[name]) - RATE * gradients[name]
        torch.testing.assert_close(master.detach(), expected, rtol=1e-6, atol=1e-7)
        assert not torch.equal(before[name], starts[name])


def test_towards_zero_it_is_the_weight_decay_of_adamw(small_network: Maker) -> None:
    """torch's AdamW is the witness: L2-SP with a start of zeros is its decoupled decay, vectors included."""
    decayed, pulled = small_network(), small_network()
    given = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": STRENGTH}
    witness = MasterWeights(
        decayed, build=lambda masters: (torch.optim.AdamW(list(masters.values()), lr=0.0, **given),), shared=True
    )
    masters = MasterWeights(pulled, build=adamw(weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8), shared=True)
    masters.pull = PullToBase(masters.masters, strength=STRENGTH, stored_as=torch.float32)
    for start in masters.pull.starts.values():
        start.zero_()

    stepped(decayed, witness, 5)
    stepped(pulled, masters, 5)

    for name, master in masters.masters.items():
        torch.testing.assert_close(master.detach(), witness.masters[name].detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_a_strong_pull_keeps_the_weights_near(small_network: Maker, shared: bool) -> None:
    def distance(strength: float | None) -> float:
        model = small_network()
        build = adamw(weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8)
        masters = MasterWeights(model, build=build, shared=shared)
        starts = {name: one.detach().clone() for name, one in masters.masters.items()}
        if strength is not None:
            masters.pull = PullToBase(masters.masters, strength=strength, stored_as=torch.float32)
        if not shared:
            cast_model(model, "bf16")
        stepped(model, masters, 30)
        return max(float((one.detach() - starts[name]).abs().max()) for name, one in masters.masters.items())

    assert distance(50.0) <= 1.5 / 50.0 < 0.2 * distance(None)


def test_starts_are_kept_as_narrow_as_they_are_stored() -> None:
    exact = torch.linspace(-1, 1, 64).bfloat16().float()
    masters = {"stored": exact.clone(), "computed": exact + 1e-6, "one": torch.tensor(2.0)}

    pull = PullToBase(masters, strength=1.0, stored_as=torch.bfloat16)

    assert {name: start.dtype for name, start in pull.starts.items()} == {
        "stored": torch.bfloat16, "computed": torch.float32, "one": torch.bfloat16,
    }  # fmt: skip
    assert pull.nbytes == 64 * 2 + 64 * 4 + 2
    masters["one"] += 1
    pull.apply(masters, 0.25)
    assert masters["one"] == 2.75
    assert all(torch.equal(masters[name], pull.starts[name].float()) for name in ("stored", "computed"))


def test_a_large_matrix_is_pulled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.optim.pull_to_base.PART_NUMBERS", 10)
    master = torch.randn(7, 4).T  # stored by columns
    start = master.clone()
    pull = PullToBase({"w": master}, strength=1.0, stored_as=torch.float32)
    master += 1

    pull.apply({"w": master}, 0.5)

    torch.testing.assert_close(master, start + 0.5)


@pytest.mark.parametrize(
    ("kind", "given"), [("llama", {}), ("llama", {"rslora": True, "init": "orthogonal"}), ("mixtral", {})]
)
def test_pairs_are_pulled_by_the_gradient_of_what_they_add(kind: str, given: dict[str, Any]) -> None:
    """PEFT's own product is the witness, experts' and scaled by the root of the rank among them."""
    adapted, _ = add_lora(tiny(kind, **EXPERTS.get(kind, {})), **LORA, **given)
    random = torch.Generator().manual_seed(1)
    trained = {name: one for name, one in adapted.named_parameters() if one.requires_grad}
    for parameter in trained.values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=random)
    layers = [one for one in adapted.modules() if hasattr(one, "get_delta_weight")]
    (sum(one.get_delta_weight("default").square().sum() for one in layers) * STRENGTH / 2).backward()
    expected = {name: (one - RATE * one.grad).detach() for name, one in trained.items()}
    masters = {name: one.detach().clone() for name, one in trained.items()}

    pairs = adapter_pairs(adapted)
    pull = PullToBase(masters, strength=STRENGTH, stored_as=torch.float32, pairs=pairs)
    pull.apply(masters, RATE)

    assert {pair.experts for pair in pairs} == ({1, 4} if kind == "mixtral" else {1})
    assert pull.nbytes == 0
    for name, master in masters.items():
        torch.testing.assert_close(master, expected[name], rtol=1e-5, atol=1e-6)


def test_modules_trained_whole_beside_pairs_have_a_start() -> None:
    adapted, _ = add_lora(tiny("llama"), **LORA, modules_to_save=["lm_head"])
    masters = {name: one.detach().clone() for name, one in adapted.named_parameters() if one.requires_grad}

    pull = PullToBase(masters, strength=1.0, stored_as=torch.float32, pairs=adapter_pairs(adapted))

    (name,) = pull.starts
    assert "lm_head" in name
    assert 2 * len(pull.pairs) + 1 == len(masters)

"""Each optimizer a run can choose: its steps, what decays, and what a resume must bring back."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from tutelage.errors import ConfigError, DependencyError
from tutelage.model.adapters.lora import add_lora
from tutelage.model.precision import cast_model
from tutelage.optim import optimizers as optimizers_module
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import (
    FROM_BITSANDBYTES,
    PAGED,
    Optimizer,
    optimizer_named,
    require_optimizer,
    slow_here,
)
from tutelage.optim.state_size import embedding_parameters
from tutelage.train.checkpoint import Checkpoints, Progress

NAMES: tuple[Optimizer, ...] = get_args(Optimizer)
EMBEDDINGS = frozenset({"0.weight"})
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="the package bitsandbytes is not installed"
)
EACH = [pytest.param(name, marks=needs_bitsandbytes if name in FROM_BITSANDBYTES else ()) for name in NAMES]
pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU:UserWarning")


def network(seed: int = 0) -> torch.nn.Module:
    """An embedding, and matrices large enough (4,096 numbers) for 8-bit moments."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Embedding(70, 64),
        torch.nn.Linear(64, 80),
        torch.nn.LayerNorm(80),
        torch.nn.Tanh(),
        torch.nn.Linear(80, 64),
    )


def masters_with(name: Optimizer, model: torch.nn.Module, *, decay: float = 0.0, shared: bool = False) -> MasterWeights:
    build = optimizer_named(name, weight_decay=decay, betas=(0.9, 0.99), epsilon=1e-8, embeddings=EMBEDDINGS)
    return MasterWeights(model, build=build, shared=shared)


def backward(model: torch.nn.Module, step: int) -> None:
    random = torch.Generator().manual_seed(50 + step)
    ids = torch.randint(0, 70, (12,), generator=random)
    wanted = torch.randn(12, 64, generator=random)
    ((model(ids).float() - wanted) ** 2).mean().backward()


def stepped(name: Optimizer, model: torch.nn.Module, steps: int) -> MasterWeights:
    masters = masters_with(name, model, shared=True)
    for step in range(steps):
        backward(model, step)
        masters.step(1e-3, max_grad_norm=1.0)
    return masters


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("shared", [True, False])
def test_a_resume_goes_on_bit_for_bit(name: Optimizer, shared: bool, tmp_path: Path) -> None:
    """Through the files of a checkpoint, with weights in bf16 beside fp32 masters as well."""

    def go(model: torch.nn.Module, masters: MasterWeights, steps: range) -> None:
        for step in steps:
            backward(model, step)
            masters.step(1e-3 * (step + 1), max_grad_norm=1.0)

    first, second = network(), network(seed=1)
    one, other = (masters_with(name, model, decay=0.1, shared=shared) for model in (first, second))
    if not shared:
        for model in (first, second):
            cast_model(model, "bf16")
    go(first, one, range(3))
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(one, Progress(3))
    checkpoints.restore_newest(other)
    for model, masters in ((first, one), (second, other)):
        go(model, masters, range(3, 6))

    assert all(torch.equal(master, other.masters[key]) for key, master in one.masters.items())
    expected, found = one.state(), other.state()
    assert set(found) == set(expected)
    assert all(torch.equal(value, found[key]) for key, value in expected.items())
    assert all(value.dtype == found[key].dtype for key, value in expected.items())
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("name", EACH)
def test_only_matrices_decay(name: Optimizer) -> None:
    model = network()
    before = {key: one.detach().clone() for key, one in model.named_parameters()}
    masters = masters_with(name, model, decay=0.5)

    masters.step(0.1, max_grad_norm=1.0)  # gradients are zero: only decay moves anything

    for key, parameter in model.named_parameters():
        expected = before[key] * (1 - 0.1 * 0.5) if parameter.ndim >= 2 else before[key]
        torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.parametrize("name", EACH)
def test_every_parameter_has_one_optimizer_and_moves(name: Optimizer) -> None:
    model = network()
    before = {key: one.detach().clone() for key, one in model.named_parameters()}

    masters = stepped(name, model, 1)

    held = [id(one) for opt in masters.optimizers for group in opt.param_groups for one in group["params"]]
    assert sorted(held) == sorted(id(master) for master in masters.masters.values())
    assert all(not torch.equal(one, before[key]) for key, one in model.named_parameters())


@pytest.mark.parametrize("name", EACH)
def test_the_loss_falls(name: Optimizer) -> None:
    def loss() -> float:
        return float(((model(torch.arange(70)) - 0.5) ** 2).mean().detach())

    model = network()
    masters = masters_with(name, model, shared=True)
    before = loss()
    for _ in range(30):
        ((model(torch.arange(70)) - 0.5) ** 2).mean().backward()
        masters.step(3e-3, max_grad_norm=1.0)
    assert loss() < 0.5 * before


@needs_bitsandbytes
@pytest.mark.parametrize(("name", "exact"), [("adamw_8bit", "adamw"), ("paged_adamw_8bit", "adamw")])
def test_8_bit_moments_take_a_byte_and_stay_near_the_exact_ones(name: Optimizer, exact: Optimizer) -> None:
    model, reference, start = network(), network(), network()
    masters = stepped(name, model, 8)
    stepped(exact, reference, 8)

    state = masters.state()
    kinds = {key: state[f"state1:{key}"].dtype for key in masters.masters if f"state1:{key}" in state}
    assert kinds["1.weight"] == kinds["4.weight"] == torch.uint8
    assert kinds["2.weight"] == torch.float32, "few numbers"
    assert state.get("state1:0.weight", state.get("exp_avg:0.weight")).dtype == torch.float32, "an embedding"
    for key in ("1.weight", "4.weight"):
        moved = reference.get_parameter(key) - start.get_parameter(key)
        off = model.get_parameter(key) - reference.get_parameter(key)
        assert 0 < float((off.norm() / moved.norm()).detach()) < 0.2


@needs_bitsandbytes
def test_paged_adamw_of_32_bits_is_adamw() -> None:
    model, reference = network(), network()
    masters = stepped("paged_adamw", model, 5)
    stepped("adamw", reference, 5)

    for found, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert {value.dtype for key, value in masters.state().items() if key.startswith("state")} == {torch.float32}


@needs_bitsandbytes
@pytest.mark.parametrize("name", PAGED)
def test_a_resume_keeps_the_memory_that_can_be_paged(name: Optimizer) -> None:
    saved = stepped(name, network(), 2)
    other = masters_with(name, network(seed=1), shared=True)
    places = {key: one.data_ptr() for key, one in other.state().items() if key.startswith("state")}
    assert len(places) == 2 * len(other.masters)

    other.restore(dict(saved.masters), saved.state())

    assert {key: one.data_ptr() for key, one in other.state().items() if key.startswith("state")} == places


def test_muon_steps_inner_matrices_and_adamw_the_rest() -> None:
    model, reference = network(), network()
    masters = stepped("muon", model, 3)
    inner, rest = masters.optimizers
    assert isinstance(inner, torch.optim.Muon)
    assert isinstance(rest, torch.optim.AdamW)
    assert [id(param_group) for param_group in inner.param_groups[0]["params"]] == [
        id(model[1].weight),
        id(model[4].weight),
    ]

    expected = [
        torch.optim.Muon([reference[1].weight, reference[4].weight], weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([one for key, one in reference.named_parameters() if key not in ("1.weight", "4.weight")],
                          betas=(0.9, 0.99), weight_decay=0.0),
    ]  # fmt: skip
    for step in range(3):
        backward(reference, step)
        torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        for one in expected:
            for group in one.param_groups:
                group["lr"] = 1e-3
            one.step()
            one.zero_grad()
    for found, wanted in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "least"), [("adamw", 0.9), ("adafactor", 0.5), ("muon", 0.2 * math.sqrt(10 / 64))])
def test_one_learning_rate_means_a_like_step_for_all(name: Optimizer, least: float) -> None:
    """A first step of AdamW moves every weight by the learning rate, whatever the weights are; others about as far.

    Muon's, on gradients of at least 10 of 64 possible directions, is 0.2 of it in each direction there is.
    """
    model, start = network(), network()
    stepped(name, model, 1)

    moved = (model[1].weight - start[1].weight).detach()
    assert least * 1e-3 < float(moved.square().mean().sqrt()) <= 1.01e-3


def test_adafactor_keeps_rows_and_columns() -> None:
    state = stepped("adafactor", network(), 2).state()

    assert state["exp_avg_sq_row:1.weight"].shape == (80,)
    assert state["exp_avg_sq_col:1.weight"].shape == (64,)
    assert int(state["step#int:1.weight"]) == 2
    assert "exp_avg:1.weight" not in state


def test_embeddings_are_found_with_adapters_beside_them(tiny_model_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, local_files_only=True)
    assert embedding_parameters(model) == {"model.embed_tokens.weight", "lm_head.weight"}

    adapted, _ = add_lora(model, rank=2, alpha=4, dropout=0.0, targets=["embed_tokens", "q_proj"])
    learns = {name for name, one in adapted.named_parameters() if one.requires_grad}
    found = learns & embedding_parameters(adapted)
    assert len(found) == 2
    assert all("embed_tokens.lora_embedding_" in name for name in found)
    assert len(learns) == 2 + 2 * 2


@pytest.mark.parametrize("name", PAGED)
def test_paged_state_needs_a_gpu(name: Optimizer) -> None:
    with pytest.raises(ConfigError, match="needs an NVIDIA GPU") as caught:
        require_optimizer(name, device="cpu")
    assert f'"{name.removeprefix("paged_")}"' in str(caught.value.fix)


def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers_module, "find_spec", lambda _name: None)
    with pytest.raises(DependencyError, match="bitsandbytes") as caught:
        require_optimizer("adamw_8bit", device="cpu")
    assert caught.value.fix == "pip install bitsandbytes"
    for name in ("adamw", "adafactor", "muon"):
        require_optimizer(name, device="cpu")


def test_a_price_that_nobody_expects_is_named() -> None:
    told = {name: slow_here(name, native_bf16=False) for name in NAMES}
    assert [name for name, text in told.items() if text] == ["muon"]
    assert slow_here("muon", native_bf16=True) is None


def test_a_run_that_cannot_have_its_optimizer_ends_before_anything(
    train_tiny: Callable[..., Any], tmp_path: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("paged optimizers work here")
    with pytest.raises(ConfigError, match="paged_adamw"):
        train_tiny("train.optimizer=paged_adamw")
    assert not (tmp_path / "home" / "runs").exists()


@pytest.mark.parametrize(("name", "method"), [("muon", "lora"), ("adafactor", "full")])
def test_whole_runs(train_tiny: Callable[..., Any], record_of: Any, name: str, method: str) -> None:
    rate = "1e-3" if method == "full" else "1e-2"
    finished = train_tiny(
        f"train.optimizer={name}",
        f"model.method={method}",
        f"train.learning_rate={rate}",
        "evaluate.task=",
        "evaluate.general=",
        "train.epochs=3",
    )
    steps, heldout = record_of(finished.folder)
    assert steps[max(steps)]["loss"] < 0.8 * steps[1]["loss"]
    assert all(math.isfinite(value) for value in heldout.values())

"""Runs with `train.kl_to_base`: rows apart, resumed, in several processes, in 4 bits, and what they are held to."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.test_sampler import write
from tests.support.cli_process import QUIET, tutelage
from tests.support.compared_runs import Record, assert_same_course, assert_same_weights
from tutelage import config
from tutelage.builders.dataset import prepare
from tutelage.builders.trained_model import open_trained_model
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.kl_to_base import kl_to_base_of
from tutelage.model.locate import model_folder
from tutelage.model.loss import hidden_states
from tutelage.model.output_head import head_of
from tutelage.pack import pack_rows
from tutelage.report.console.progress import Screen
from tutelage.train.run import run

SHORT = (*QUIET, "train.epochs=2.0", "train.learning_rate=0.003")


@pytest.fixture
def given(tmp_path: Path) -> tuple[str, ...]:
    write(tmp_path / "replayed.jsonl", 100, 130)
    return (*SHORT, f'data.replay=["{tmp_path}/replayed.jsonl"]', "data.replay_ratio=0.2")


def divergence(folder: Path) -> float:
    """Of what a run trained, from its base, on all rows that it could replay."""
    whole = (folder / "model").is_dir()
    trained = open_trained_model(str(folder), tuned=True, base=whole, log=lambda _text: None)
    found = prepare(trained.settings, model_folder(trained.settings.model.name, log=print))
    rows = pack_rows(found.train[24:], row_tokens=512)
    for model in filter(None, (trained.tuned, trained.base)):
        use_packed_attention(model.requires_grad_(False))
    total = 0.0
    with torch.no_grad():
        for row in rows:
            with trained.as_tuned() as model:
                tuned_RD = hidden_states(model, row)[0][0]
            with trained.as_base() as model:
                base_RD = hidden_states(model, row)[0][0]
                base_head = head_of(model)
            weights_R = torch.from_numpy(row.weights).roll(-1)
            given = {"positions": 64, "base_head": base_head}
            total += kl_to_base_of(tuned_RD, base_RD, head_of(trained.tuned), weights_R, **given).item()
    return total


@pytest.mark.parametrize(("method", "precision"), [("lora", "fp32"), ("full", "fp32"), ("full", "bf16")])
def test_a_run_that_is_held_goes_less_far_on_what_it_replays(
    train_tiny: Callable[..., Any],
    record_of: Callable[[Path], Record],
    given: tuple[str, ...],
    method: str,
    precision: str,
) -> None:
    given = (*given, f"model.method={method}", f"model.precision={precision}")
    free = train_tiny(*given, where="free").folder
    held = train_tiny(*given, "train.kl_to_base=10", where="held").folder

    assert 0 < divergence(held) < 0.7 * divergence(free)
    recorded = [line["divergence"] for line in record_of(held)[0].values() if "divergence" in line]
    assert recorded[-1] > recorded[0] >= 0, "the model leaves its base, whom it was at the first step"
    assert not any("divergence" in line for line in record_of(free)[0].values())
    drawn = [
        "Divergence from the base on replayed rows" in (folder / "report.html").read_text() for folder in (free, held)
    ]
    assert drawn == [False, True]


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.nightly)])
def test_a_resumed_run_and_two_processes_are_held_alike(
    train_tiny: Callable[..., Any],
    tiny_recipe: Callable[[Path], Path],
    record_of: Callable[[Path], Record],
    stop_after: Callable[[int | None], None],
    quiet_screen: Screen,
    given: tuple[str, ...],
    tmp_path: Path,
    method: str,
) -> None:
    given = (*given, "train.kl_to_base=2", f"model.method={method}", "train.learning_rate=0.0003")
    dropout = ("lora.dropout=0.1",) if method == "lora" else ("train.residual_dropout=0.1",)
    whole = train_tiny(*given, *dropout, where="whole").folder
    stop_after(5)
    stopped = train_tiny(*given, *dropout, where="stopped").folder
    stop_after(None)
    run(config.load(stopped / "settings.toml"), quiet_screen, resume=True)

    expected, found = record_of(whole)[0], record_of(stopped)[0]
    for name in ("gradient_norm", "divergence"):
        assert [found[step].get(name) for step in range(1, 9)] == [expected[step].get(name) for step in range(1, 9)]
    assert any("divergence" in found[step] for step in range(1, 6))
    assert_same_weights(whole, stopped, within=1e-30)

    alone = train_tiny(*given, where="alone").folder
    recipe = tiny_recipe(tmp_path / "two")
    done = tutelage("train", str(recipe), *given, torchrun=2)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert_same_course(record_of(alone), record_of(recipe.parent / "runs" / "tiny"))
    assert_same_weights(alone, recipe.parent / "runs" / "tiny")


@pytest.mark.parametrize("more", [("train.kl_to_base=5",), ("train.l2_to_base=100",), ("train.loss=eaft",)])
def test_qlora_takes_every_remedy(
    train_tiny: Callable[..., Any], record_of: Callable[[Path], Record], given: tuple[str, ...], more: tuple[str, ...]
) -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed (extra qlora)")
    qlora = ("model.method=qlora", "model.precision=bf16")
    plain, _ = record_of(train_tiny(*given, *qlora, where="plain").folder)

    found, heldout = record_of(train_tiny(*given, *qlora, *more, where="held").folder)

    assert found[1]["loss"] == pytest.approx(plain[1]["loss"], rel=1e-3)
    assert found[8]["loss"] != plain[8]["loss"]
    assert heldout[8] < found[1]["loss"]

"""Activation checkpointing is chosen for a run by what a step needs and what is free, and a run says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.tiny_kinds import tiny_config
from tutelage import config
from tutelage.builders import memory_plan as planned
from tutelage.builders.dataset import Prepared, prepare
from tutelage.builders.memory_plan import checkpointing_choice, decide_recompute, fullest_row
from tutelage.builders.model import train_state_for
from tutelage.builders.resolved_run import resolve
from tutelage.config import Settings
from tutelage.distributed.process_group import SINGLE
from tutelage.errors import ConfigError, DataError
from tutelage.plan.devices import this_machine
from tutelage.plan.model_shape import read_model_shape


@pytest.fixture
def settings(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> Settings:
    return config.load(tiny_recipe(tmp_path))


@pytest.fixture
def prepared(settings: Settings) -> Prepared:
    return prepare(settings, Path(settings.model.name))


def free(monkeypatch: pytest.MonkeyPatch, memory_bytes: int) -> None:
    device = dataclasses.replace(this_machine(), memory_bytes=memory_bytes)
    monkeypatch.setattr(planned, "this_machine", lambda: device)


def asked(settings: Settings, value: str) -> Settings:
    return settings.model_copy(update={"train": settings.train.model_copy(update={"activation_checkpointing": value})})


def test_with_room_nothing_is_computed_again(
    settings: Settings, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 10**12)
    said: list[str] = []

    assert not decide_recompute(resolve(settings), prepared, log=said.append).recompute
    assert said == []


def test_without_room_the_planner_decides_and_says_so(
    settings: Settings, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 10**12)
    choice = checkpointing_choice(resolve(settings), prepared, log=lambda _text: None)
    assert choice.with_bytes < choice.without_bytes
    said: list[str] = []
    free(monkeypatch, choice.without_bytes)  # the plan wants some room beside its prediction

    assert decide_recompute(resolve(settings), prepared, log=said.append).recompute
    assert "activation checkpointing on" in said[-1]

    free(monkeypatch, 2 * choice.without_bytes)
    assert not decide_recompute(resolve(settings), prepared, log=said.append).recompute


@pytest.mark.parametrize(("value", "expected"), [("on", True), ("off", False)])
def test_what_is_asked_for_is_done(
    settings: Settings, prepared: Prepared, monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    free(monkeypatch, 1)

    resolved = decide_recompute(resolve(asked(settings, value)), prepared, log=lambda _text: None)
    assert resolved.recompute is expected


def test_several_processes_decide_alike(
    settings: Settings, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    for memory_bytes in (1, 10**12):
        free(monkeypatch, memory_bytes)
        assert not decide_recompute(resolve(settings, processes=2), prepared, log=lambda _text: None).recompute


def test_the_fullest_row_is_a_row_of_the_run(settings: Settings, prepared: Prepared) -> None:
    resolved = resolve(settings)
    row = fullest_row(resolved, prepared, read_model_shape(settings.model.name))

    assert max(len(one.ids) for one in prepared.train) <= len(row.ids) <= resolved.row_tokens


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_r3_a_model_with_dropout_of_its_own_is_planned_on_the_rows_it_trains_on(
    settings: Settings, prepared: Prepared, tmp_path: Path, share: float
) -> None:
    dropout = {"attn_pdrop": share, "resid_pdrop": share, "embd_pdrop": share}
    tiny_config("gpt2", **dropout).save_pretrained(tmp_path / "gpt2")
    sharing = settings.model_copy(update={"pack": settings.pack.model_copy(update={"share_prefixes": True})})

    row = fullest_row(resolve(sharing), prepared, read_model_shape(str(tmp_path / "gpt2")))

    assert bool(row.parents) is (share == 0.0), "documents that share a beginning would share its dropout"


def test_a_learner_computes_again_when_told(settings: Settings) -> None:
    base = Path(settings.model.name)
    torch.manual_seed(0)
    for recompute in (False, True):
        model = train_state_for(dataclasses.replace(resolve(settings), recompute=recompute), base, SINGLE).model
        assert model.is_gradient_checkpointing is recompute


def test_r22_a_model_that_cannot_be_planned_is_trained(
    settings: Settings, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise ConfigError("This model cannot be planned, though it may train", found="a kernel has no shapes")

    free(monkeypatch, 1)
    monkeypatch.setattr(planned, "choose_checkpointing", failing)
    said: list[str] = []

    assert not decide_recompute(resolve(settings), prepared, log=said.append).recompute
    assert said == ["  no plan of its memory (a kernel has no shapes): activation checkpointing off"]


def test_r6_a_plan_that_cannot_be_made_stops_nothing(
    settings: Settings, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise DataError("This model does not keep its layers in a list")

    monkeypatch.setattr(planned, "read_model_shape", refusing)
    said: list[str] = []

    assert not decide_recompute(resolve(settings), prepared, log=said.append).recompute
    assert "no plan of its memory (This model does not keep its layers in a list)" in said[0]

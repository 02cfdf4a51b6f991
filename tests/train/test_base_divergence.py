"""A run measures how far it moved from its base: the same number as from two whole models, resumed or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from tests.support.cli_process import launch
from tutelage.builders import base_divergence
from tutelage.evaluate.base_replies import read_base_replies
from tutelage.runs import folder as run_files
from tutelage.runs.divergence import divergence_in
from tutelage.train.run import Finished

TrainTiny = Callable[..., Finished]
QUICK = ("model.precision=fp32", "train.max_steps=6", "evaluate.max_new_tokens=12", "evaluate.divergence_prompts=3")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the replies of the base are kept as well, as a run deletes them when it is finished."""
    copy = tmp_path / "kept.safetensors"
    save = base_divergence.save

    def save_twice(path: Path, base: Any) -> None:
        save(path, base)
        save(copy, base)

    monkeypatch.setattr(base_divergence, "save", save_twice)
    return copy


def by_whole_models(base: Any, tuned: Any, kept: Path) -> dict[str, float]:
    """Nats a token by place, from plain forwards of both models in float64."""
    saved = read_base_replies(kept, base)
    assert saved is not None
    sums: dict[str, float] = {}
    tokens: dict[str, int] = {}
    for place, given in zip(saved.places, saved.replies, strict=True):
        ids = torch.from_numpy(np.concatenate([given.prompt, given.text])).long()[None]
        with torch.no_grad():
            first, second = (
                model(input_ids=ids).logits[0, -len(given.text) - 1 : -1].double().log_softmax(-1)
                for model in (base, tuned)
            )
        kl = torch.nn.functional.kl_div(second, first, log_target=True, reduction="sum")
        sums[place] = sums.get(place, 0.0) + float(kl)
        tokens[place] = tokens.get(place, 0) + len(given.text)
    return {place: sums[place] / tokens[place] for place in sums}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_is_that_of_the_base_and_of_what_was_saved(
    train_tiny: TrainTiny, tiny_model_folder: Path, kept: Path, method: str
) -> None:
    finished = train_tiny(*QUICK, f"model.method={method}")

    measured = divergence_in(run_files.read_result(finished.folder))
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    if method == "full":
        tuned = AutoModelForCausalLM.from_pretrained(finished.folder / "model")
    else:
        adapted = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
        tuned = PeftModel.from_pretrained(adapted, finished.folder / "adapter")
    expected = by_whole_models(base, tuned.eval(), kept)
    assert set(measured) == {"task", "general"}
    for place, measure in measured.items():
        assert measure.mean == pytest.approx(expected[place], rel=1e-3, abs=1e-6)
        assert measure.mean > 1e-3
        assert measure.noise is not None
        assert abs(measure.noise) < 1e-5
        assert measure.drawn
        assert 1 <= measure.replies <= 3
    with safe_open(kept, framework="pt") as file:
        assert ("head_weight" in file.keys()) == (method == "full")  # noqa: SIM118 not a mapping
    assert not (finished.folder / run_files.BASE_REPLIES).exists(), "deleted with the end of the run"


def test_a_resumed_run_compares_with_the_same_base(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None]
) -> None:
    whole = train_tiny(*QUICK, where="whole")
    stop_after(2)
    stopped = train_tiny(*QUICK, "train.checkpoint_every=1")
    path = stopped.folder / run_files.BASE_REPLIES
    written = path.read_bytes()
    stop_after(None)
    resumed = train_tiny(*QUICK, "train.checkpoint_every=1", resume=True)

    assert written
    assert resumed.result["divergence"] == whole.result["divergence"]
    stop_after(2)
    again = train_tiny(*QUICK, "train.checkpoint_every=1", where="again")
    (again.folder / run_files.BASE_REPLIES).write_bytes(written[: len(written) // 2])  # damaged: asked again
    stop_after(None)
    resumed = train_tiny(*QUICK, "train.checkpoint_every=1", where="again", resume=True)
    assert resumed.result["divergence"] == whole.result["divergence"]


def test_without_a_task_set_the_prompts_of_held_out_rows_are_asked(train_tiny: TrainTiny) -> None:
    result = train_tiny(*QUICK, "evaluate.task=", "evaluate.general=").result
    assert set(result["divergence"]) == {"task"}
    assert result["divergence"]["task"]["replies"] == 3


@pytest.mark.parametrize("off", ["evaluate.divergence_prompts=0", "evaluate.before=false"])
def test_it_can_be_left_out(train_tiny: TrainTiny, off: str) -> None:
    finished = train_tiny(*QUICK, off)
    assert finished.result["divergence"] == {}
    assert not (finished.folder / run_files.BASE_REPLIES).exists()


def test_what_fails_beside_it_does_not_end_the_run(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch, quiet_screen: Any
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(type(quiet_screen), "log", lambda _self, text: notes.append(text))

    def out_of_memory(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] data. DefaultCPUAllocator: not enough memory")

    monkeypatch.setattr(base_divergence, "ask_base", out_of_memory)
    finished = train_tiny(*QUICK)
    assert finished.ended == "finished"
    assert finished.result["divergence"] == {}
    assert any("is not measured" in note and "not enough memory" in note for note in notes)


@pytest.mark.parametrize("parallel", [pytest.param("replicate", marks=pytest.mark.nightly), "shard"])
def test_two_processes_measure_what_one_does(
    train_tiny: TrainTiny, tiny_recipe: Callable[[Path], Path], tmp_path: Path, parallel: str
) -> None:
    settings = (*QUICK, "model.method=full", "pack.share_prefixes=false")
    recipe = tiny_recipe(tmp_path / "two")
    done = launch("-m", "tutelage", "train", str(recipe), *settings, f"model.parallel={parallel}", torchrun=2)
    assert done.returncode == 0, done.stderr[-3000:]

    measured = divergence_in(run_files.read_result(tmp_path / "two" / "runs" / "tiny"))
    alone = divergence_in(train_tiny(*settings).result)
    assert set(measured) == set(alone) == {"task", "general"}
    for place, measure in alone.items():
        assert measured[place].mean == pytest.approx(measure.mean, rel=1e-3)
        assert measured[place].tokens == measure.tokens

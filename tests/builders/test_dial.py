"""The dial over whole runs: its ends are what the run measured, each value is kept as it ends, and none twice."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM

from tutelage import config
from tutelage.builders import dial as dial_module
from tutelage.builders.dial import measure_dial
from tutelage.errors import CheckpointError, ConfigError, SourceNotFoundError
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.divergence import divergence_in
from tutelage.train.run import run

SHORT = ("train.max_steps=6", "evaluate.max_new_tokens=12", "evaluate.divergence_prompts=3")
RUNS = {
    "lora": ("model.method=lora",),
    "full": ("model.method=full",),
    "whole": ("model.method=lora", 'lora.modules_to_save=["embed_tokens"]'),
    "prompt": ("model.method=prompt", "prompt.tokens=3"),
    "none": ("evaluate.task=", "evaluate.general=", "data.validation=", "data.validation_ratio=0"),
}


@pytest.fixture(scope="module")
def finished(tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of the tiny model."""
    folder = tmp_path_factory.mktemp("dial")
    recipe, screen = tiny_recipe(folder), Screen(Console(file=io.StringIO()))
    for name, chosen in RUNS.items():
        run(config.load(recipe, (*SHORT, f"name={name}", *chosen)), screen)
    run(
        config.load(recipe, (*SHORT, "name=on", f"model.name={folder / 'runs' / 'lora'}", "model.adapter=continue")),
        screen,
    )
    return folder / "runs"


@pytest.fixture
def runs(finished: Path) -> Path:
    """The same, without what an earlier test measured."""
    for path in finished.glob("*/dial.*"):
        path.unlink()
    return finished


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The values that a model is asked at, in their order."""
    values: list[float] = []
    original = dial_module.save_dial_measure

    def counted(path: Path, key: str, value: float, measure: Any) -> None:
        original(path, key, value, measure)
        values.append(value)

    monkeypatch.setattr(dial_module, "save_dial_measure", counted)
    return values


@pytest.mark.parametrize("name", ["lora", "full", "on"])
def test_the_ends_are_what_the_run_measured(runs: Path, quiet_screen: Screen, name: str) -> None:
    result = run_files.read_result(runs / name)
    measures = measure_dial(str(runs / name), [0.5], screen=quiet_screen)

    assert list(measures) == [0.0, 0.5, 1.0]
    for value, side in ((0.0, "before"), (1.0, "after")):
        metrics = measures[value].metrics
        assert metrics.heldout_loss == pytest.approx(result[side]["heldout_loss"], rel=1e-6)
        for share in ("exact_match", "valid_json", "general", "fields", "scores"):
            assert getattr(metrics, share) == result[side][share]
    losses = [measures[value].metrics.heldout_loss for value in measures]
    assert len(set(losses)) == 3
    after = divergence_in(result)
    for place, measure in measures[1.0].divergence.items():
        assert measure.mean == pytest.approx(after[place].mean, rel=1e-3), "the base drew the same replies again"
        assert abs(measures[0.0].divergence[place].mean) < 1e-5
        assert 0 < measures[0.5].divergence[place].mean < measure.mean
        assert sum(measures[1.0].divergence_sums[place]) == pytest.approx(measure.mean * measure.tokens)
    assert set(after) == {"task", "general"}


@pytest.mark.parametrize("name", ["lora", "full"])
def test_a_value_between_is_the_model_that_plain_torch_makes(
    runs: Path, quiet_screen: Screen, tiny_model_folder: Path, name: str
) -> None:
    found = measure_dial(str(runs / name), [0.5], screen=quiet_screen)[0.5]
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    if name == "full":
        tuned = AutoModelForCausalLM.from_pretrained(runs / name / "model")
    else:
        bare = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
        tuned = PeftModel.from_pretrained(bare, runs / name / "adapter").merge_and_unload()
    start, end = base.state_dict(), tuned.state_dict()
    base.load_state_dict({key: start[key] + 0.5 * (end[key] - start[key]) for key in start})

    prepared = dial_module.prepared_again(run_files.read_settings(runs / name), tiny_model_folder, log=print)
    total, count = 0.0, 0
    for example in prepared.validation:
        ids = torch.from_numpy(example.ids.copy()).long()
        labels = torch.where(torch.from_numpy(example.weights.copy()) > 0, ids, -100)
        with torch.no_grad():
            logits = base.eval()(input_ids=ids[None]).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum", ignore_index=-100))
        count += int((labels[1:] != -100).sum())
    assert found.metrics.heldout_loss == pytest.approx(total / count, rel=1e-5)


def test_what_was_measured_is_not_measured_again(
    runs: Path, quiet_screen: Screen, measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder = str(runs / "lora")
    first = measure_dial(run_folder, [0.25], screen=quiet_screen)
    assert measured == [0.0, 0.25, 1.0]
    second = measure_dial(run_folder, [0.75], screen=quiet_screen)
    assert measured == [0.0, 0.25, 1.0, 0.75]
    assert second[1.0] == first[1.0]
    shutil.copy(runs / "lora" / "dial.json", runs / "kept.json")

    def not_opened(*_: Any, **__: Any) -> None:
        raise AssertionError("all is known: no model is opened")

    monkeypatch.setattr(dial_module, "open_trained_model", not_opened)
    assert measure_dial(run_folder, [0.25, 0.75], screen=quiet_screen) == first | second
    assert (runs / "lora" / "dial.json").read_bytes() == (runs / "kept.json").read_bytes()


def test_after_a_kill_it_goes_on_with_the_value_that_was_not_finished(
    runs: Path, quiet_screen: Screen, measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = dial_module.run_suite
    asked = iter(range(10))

    def killed(*given: Any, **named: Any) -> Any:
        if next(asked) == 2:
            raise KeyboardInterrupt
        return original(*given, **named)

    monkeypatch.setattr(dial_module, "run_suite", killed)
    with pytest.raises(KeyboardInterrupt):
        measure_dial(str(runs / "lora"), [0.5], screen=quiet_screen)
    assert measured == [0.0, 0.5]
    monkeypatch.setattr(dial_module, "run_suite", original)
    measures = measure_dial(str(runs / "lora"), [0.5], screen=quiet_screen)

    assert measured == [0.0, 0.5, 1.0]
    (runs / "lora" / "dial.json").unlink()
    assert measure_dial(str(runs / "lora"), [0.5], screen=quiet_screen) == measures


def test_other_replies_of_the_base_are_not_compared(
    runs: Path, quiet_screen: Screen, measured: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_dial(str(runs / "lora"), [], screen=quiet_screen)
    original = dial_module.ask_base
    monkeypatch.setattr(dial_module, "ask_base", lambda *given, **named: original(*given, **named | {"seed": 99}))
    measures = measure_dial(str(runs / "lora"), [0.5], screen=quiet_screen)

    assert measured == [0.0, 1.0, 0.0, 0.5, 1.0]
    assert len({measure.replies_sha256 for measure in measures.values()}) == 1


def test_an_embedding_that_was_trained_whole_has_no_divergence_from_the_wrong_head(
    runs: Path, quiet_screen: Screen
) -> None:
    measures = measure_dial(str(runs / "whole"), [0.5], screen=quiet_screen)
    recorded = divergence_in(run_files.read_result(runs / "whole"))

    assert measures[0.5].divergence == recorded == {}, "logits of a tied head that was trained cannot come again"
    assert measures[0.5].metrics.heldout_loss is not None


def test_runs_that_cannot_be_dialed_are_refused_before_anything_is_measured(
    runs: Path, quiet_screen: Screen, tmp_path: Path
) -> None:
    def refused(error: type[Exception], folder: Path, says: str, values: tuple[float, ...] = (0.5,)) -> None:
        with pytest.raises(error) as caught:
            measure_dial(str(folder), values, screen=quiet_screen)
        assert says in str(caught.value)
        assert not (folder / "dial.json").exists()

    refused(ConfigError, runs / "prompt", "virtual tokens")
    refused(ConfigError, runs / "none", "nothing that the dial could be measured on")
    refused(ConfigError, runs / "lora", "does not go there", (2.5,))
    shutil.copytree(runs / "lora", tmp_path / "half")
    shutil.rmtree(tmp_path / "half" / "adapter")
    refused(SourceNotFoundError, tmp_path / "half", "no trained weights yet")
    shutil.copytree(runs / "lora", tmp_path / "gone")
    settings = (tmp_path / "gone" / "settings.toml").read_text(encoding="utf-8")
    named = json.dumps(config.load(tmp_path / "gone" / "settings.toml").model.name)
    (tmp_path / "gone" / "settings.toml").write_text(settings.replace(named, '"./no-base-here"'), "utf-8")
    refused(SourceNotFoundError, tmp_path / "gone", "no-base-here")
    shutil.copytree(runs / "lora", tmp_path / "changed")
    weights = tmp_path / "changed" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    refused(CheckpointError, tmp_path / "changed", "damaged, or was changed")

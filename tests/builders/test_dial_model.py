"""A value of the dial as a model: read by transformers and PEFT alone, it says what was measured there."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM

from tutelage import Run, config, export
from tutelage.builders.dial import opened_for_dial
from tutelage.builders.dial_model import save_dial_model
from tutelage.errors import ConfigError
from tutelage.render import Tokenizer
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.train.run import run

SHORT = ("train.max_steps=6", "evaluate.task=", "evaluate.general=", "evaluate.divergence_prompts=0")
RUNS = {
    "lora": ("model.method=lora", "lora.rank=4", "lora.alpha=6"),
    "rslora": ("model.method=lora", "lora.rslora=true"),
    "full": ("model.method=full",),
    "dora": ("model.method=lora", "lora.dora=true"),
    "whole": ("model.method=lora", 'lora.modules_to_save=["embed_tokens"]'),
    "prompt": ("model.method=prompt", "prompt.tokens=3"),
}
IDS = torch.tensor([[5, 17, 300, 41, 8, 100, 2]])


@pytest.fixture(scope="module")
def runs(tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of the tiny model."""
    folder = tmp_path_factory.mktemp("dial_model")
    recipe, screen = tiny_recipe(folder), Screen(Console(file=io.StringIO()))
    for name, chosen in RUNS.items():
        run(config.load(recipe, (*SHORT, f"name={name}", *chosen)), screen)
    start = f"model.name={folder / 'runs' / 'lora'}"
    run(config.load(recipe, (*SHORT, "name=on", start, "model.adapter=continue")), screen)
    return folder / "runs"


def logits_at(folder: Path, value: float, screen: Screen) -> torch.Tensor:
    """Those of the model that is measured."""
    opened = opened_for_dial(folder, run_files.read_settings(folder), screen)
    with opened.at(value) as model, torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=IDS).logits
    return logits


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=IDS).logits
    return logits


@pytest.mark.parametrize("name", ["lora", "rslora", "full", "dora", "whole", "on"])
@pytest.mark.parametrize("value", [0.3, pytest.param(1.0, marks=pytest.mark.nightly)])
def test_the_whole_model_is_the_one_that_was_measured(
    runs: Path, tmp_path: Path, quiet_screen: Screen, name: str, value: float
) -> None:
    measured = logits_at(runs / name, value, quiet_screen)
    folder = save_dial_model(runs / name, value, tmp_path / "out", screen=quiet_screen)
    found = logits_of(AutoModelForCausalLM.from_pretrained(folder))
    torch.testing.assert_close(found, measured, atol=2e-5, rtol=1e-4)
    other = logits_at(runs / name, 0.6, quiet_screen)
    assert (found - other).abs().max() > 1e-3, "another value is another model"


@pytest.mark.parametrize("name", ["lora", "rslora"])
def test_an_adapter_at_its_scale_is_the_one_that_was_measured(
    runs: Path, tmp_path: Path, tiny_model_folder: Path, quiet_screen: Screen, name: str
) -> None:
    folder = save_dial_model(runs / name, 0.5, tmp_path / "out", merged=False, screen=quiet_screen)
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_folder), folder)
    torch.testing.assert_close(logits_of(opened), logits_at(runs / name, 0.5, quiet_screen), atol=1e-6, rtol=1e-5)
    before = json.loads((runs / name / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    after = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert after["lora_alpha"] == before["lora_alpha"] / 2
    assert isinstance(after["lora_alpha"], int), "some readers take no point"
    weights = "adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (runs / name / "adapter" / weights).read_bytes()


def test_patterns_of_alpha_are_scaled_too(tmp_path: Path) -> None:
    from tutelage.builders.dial_model import scale_pairs

    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({"lora_alpha": 16, "alpha_pattern": {"q_proj": 3}, "r": 8}), encoding="utf-8")
    scale_pairs(path, 0.25)
    assert json.loads(path.read_text(encoding="utf-8")) == {"lora_alpha": 4, "alpha_pattern": {"q_proj": 0.75}, "r": 8}


@pytest.mark.usefixtures("proof_here")
@pytest.mark.parametrize("name", ["lora", "full"])
def test_the_folder_serves_as_the_run_was_trained(runs: Path, tmp_path: Path, quiet_screen: Screen, name: str) -> None:
    folder = Run(runs / name).export(tmp_path / "out", dial=0.5)
    settings = run_files.read_settings(runs / name)
    trained = Tokenizer.load(runs / name / run_files.trained_name(settings))
    saved = Tokenizer.load(folder)
    assert saved.stop_ids == trained.stop_ids
    assert saved.template == trained.template
    assert export(runs / name, tmp_path / "other", dial=0.5).is_dir()
    with pytest.raises(ConfigError, match="holds something"):
        export(runs / name, tmp_path / "other", dial=0.5)


@pytest.mark.parametrize(
    ("name", "value", "merged", "says"),
    [
        ("lora", 0.0, True, "base itself"),
        ("lora", 2.5, True, "does not go there"),
        ("lora", -0.5, False, "does not go there"),
        ("prompt", 0.5, True, "nothing between"),
        ("dora", 0.5, False, "magnitudes"),
        ("whole", 0.5, False, "embed_tokens"),
        ("on", 0.5, False, "began with"),
    ],
)
def test_what_cannot_be_written_says_why(
    runs: Path, tmp_path: Path, quiet_screen: Screen, name: str, value: float, merged: bool, says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        save_dial_model(runs / name, value, tmp_path / "out", merged=merged, screen=quiet_screen)
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()

"""A run leaves the house: what other tools load computes what the run's model computes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from tutelage import config
from tutelage.builders.export.request import ExportRequest
from tutelage.builders.export.targets import TARGETS
from tutelage.builders.trained_model import open_trained_model
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.train.run import run

SHORT = ("train.max_steps=6", "evaluate.task=", "evaluate.general=", "evaluate.divergence_prompts=0")
RUNS = {
    "lora": ("model.method=lora", "lora.rank=4", "lora.alpha=6"),
    "full": ("model.method=full",),
}
IDS = torch.tensor([[5, 17, 300, 41, 8, 100, 2]])


@pytest.fixture(scope="module")
def runs(tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of the tiny model."""
    folder = tmp_path_factory.mktemp("export")
    recipe, screen = tiny_recipe(folder), Screen(Console(file=io.StringIO()))
    for name, chosen in RUNS.items():
        run(config.load(recipe, (*SHORT, f"name={name}", *chosen)), screen)
    return folder / "runs"


@pytest.mark.parametrize("name", RUNS)
def test_the_whole_model_computes_what_the_run_does(
    runs: Path, tmp_path: Path, quiet_screen: Screen, name: str
) -> None:
    folder = runs / name
    request = ExportRequest(folder, run_files.read_settings(folder), tmp_path / "out", quiet_screen)
    exported = TARGETS["hf"].write(request)
    opened = open_trained_model(str(folder), tuned=True, base=False, log=quiet_screen.log)
    with torch.no_grad(), opened.as_tuned() as model:
        expected = model.eval()(input_ids=IDS).logits
        found = AutoModelForCausalLM.from_pretrained(exported.path)(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)

"""The recipes that carry the name of a system run end to end in seconds: their own settings, a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage import config
from tutelage.report.console.progress import Screen
from tutelage.train.run import run

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("name", ["alpaca", "vicuna", "lima", "instructgpt", "tulu"])
def test_a_recipe_of_a_paper_runs_from_rows_to_model(
    name: str,
    tiny_recipe: Callable[[Path], Path],
    tiny_model_folder: Path,
    quiet_screen: Screen,
    tmp_path: Path,
) -> None:
    tiny_recipe(tmp_path)
    reduced = [
        f"model.name={tiny_model_folder}", "model.precision=fp32", "model.threads=1", f"folder={tmp_path / 'runs'}",
        "data.folder=", "data.licenses=", "data.weights=", "data.max_rows=8", "data.validation_ratio=0.25",
        f"data.train={json.dumps([str(tmp_path / 'train.jsonl')])}", "pack.max_seq_length=256", "pack.row_tokens=512",
        "train.epochs=1.0", "train.batch_size=3", f"evaluate.general={json.dumps([str(tmp_path / 'general.jsonl')])}",
        "evaluate.max_new_tokens=4",
    ]  # fmt: skip
    settings = config.load(RECIPES / f"{name}.toml", reduced)

    finished = run(settings, quiet_screen)

    assert finished.ended == "finished"
    assert (finished.folder / "model" / "model.safetensors").is_file()
    kept = config.load(finished.folder / "settings.toml")
    assert (kept.size, kept.train) == ("laptop", settings.train)
    lines = (finished.folder / "record.jsonl").read_text().splitlines()
    assert sum('"gradient_norm"' in line for line in lines) == 2

"""The comparison of remedies: what each changes, a run that is finished is kept, and the figures of its table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the benchmark trains, which needs torch")

from benchmarks.remedies import run as benchmark
from benchmarks.remedies.remedies import plain, remedies
from benchmarks.remedies.table import table

from tutelage import config
from tutelage.runs.folder import write_json

ROW = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there."}]


@pytest.fixture
def general(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> str:
    """General rows beside a recipe that trains on them as well."""
    tiny_recipe(tmp_path)
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(json.dumps({"messages": ROW}) for _ in range(8)), encoding="utf-8")
    return str(path)


def test_every_remedy_is_a_recipe_that_can_be_trained(general: str, tmp_path: Path) -> None:
    recipe, train = tmp_path / "recipe.toml", str(tmp_path / "train.jsonl")
    asked = ("model.method=full", f"data.train={json.dumps([train, general])}")
    settings = plain(str(recipe), general, ["probes/facts"], asked)

    found = {one.folder: one for one in remedies(settings, general)}

    assert settings.data.train == [train]
    assert len(found) == 17
    base = tmp_path / "base.toml"
    base.write_text(config.dump(settings), encoding="utf-8")
    loaded = {name: config.load(base, one.overrides) for name, one in found.items()}
    assert loaded["none"] == loaded["none-again"]
    assert len({config.dump(one) for one in loaded.values()}) == len(loaded) - 1, "each other one differs"
    assert loaded["replay-1"].data.replay_ratio == 0.01
    assert loaded["frozen-half"].model.freeze == ["layers.0.*"], "of two layers"
    assert loaded["kl-to-base"].train.kl_to_base == 1.0


def test_what_is_finished_is_not_run_again(
    general: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[str] = []

    def trained(command: list[str], **_: Any) -> None:
        started.append(Path(command[-1]).stem)
        settings = config.load(command[-1])
        settings.run_folder.mkdir(parents=True)
        write_json(settings.run_folder / "result.json", RESULT)

    monkeypatch.setattr("benchmarks.remedies.run.subprocess.run", trained)
    words = ["--folder", str(tmp_path / "out"), "--recipe", str(tmp_path / "recipe.toml"), "--general", general]
    words += ["--max-steps", "2", "--only", "none", "talr"]

    benchmark.main(words)
    benchmark.main(words)

    assert started == ["none", "talr"]
    assert "| talr | 2.0 | 1.00 | 9 |" in capsys.readouterr().out


RESULT: dict[str, Any] = {
    "tokens_per_second": 50.0,
    "total_tokens": 100,
    "elapsed_seconds": 9.0,
    "before": {"general": 0.9},
    "after": {"general": 0.8, "exact_match": 0.5, "heldout_loss": 1.25},
    "uncertainty": {
        "level": 0.95, "margin": 0.05, "power": 0.8, "fields": {},
        "shares": {
            "exact_match": {"items": 10, "after": {"low": 0.2, "high": 0.8}},
            "general": {
                "items": 10,
                "change": {
                    "range": {"low": -0.4, "high": 0.2}, "fixed": 1, "broken": 2, "p_value": 1.0, "adjusted_p": 1.0,
                    "verdict": "not shown", "smallest_detectable": None,
                },
            },
        },
    },
    "divergence": {"task": {"mean": 0.5, "low": 0.4, "high": 0.6, "replies": 9, "tokens": 90, "drawn": True}},
}  # fmt: skip


def test_the_table_has_price_task_forgetting_and_distance() -> None:
    slower = RESULT | {"tokens_per_second": 25.0}

    lines = table({"none": RESULT, "slow": slower}, first="none").splitlines()

    assert lines[2] == (
        "| none | 2.0 | 1.00 | 9 | 1.250 | 50.0 % | 20 to 80 | 90.0 % | 80.0 % | -10.0 | -40.0 to +20.0 | not shown "
        "| 0.500 (0.400 to 0.600) | - |"
    )
    assert lines[3].startswith("| slow | 4.0 | 2.00 |")
    assert len({line.count("|") for line in lines}) == 1

"""The step `model_scores`: what stands in the metadata, what is reported, and that nothing is computed twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.stand_in_model import scored
from tutelage.config.curation import CurateSettings
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest
from tutelage.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
ROWS = 600


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_rows(path: Path, prompts: list[str]) -> Path:
    lines = [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": "yes " * (1 + number % 7)}]}
        for number, prompt in enumerate(prompts)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    prompts = [f"ask {number}" for number in range(ROWS)]
    prompts[3], prompts[5], prompts[7] = "this is worse", "break it", "long " * 20
    return write_rows(tmp_path / "rows.jsonl", prompts)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


SHORT = {"model_scores": {"most_tokens": 90}}


def test_both_losses_and_their_ratio_stand_in_the_metadata(rows: Path, tmp_path: Path) -> None:
    scored(rows, tmp_path / "out", **SHORT)
    kept = {row["metadata"]["row"]: row["metadata"] for row in records(tmp_path / "out" / "data.jsonl")}
    assert kept[0]["model_scores"] == {"reply_loss": 4.0, "reply_loss_alone": 9.0, "ifd": round(4 / 9, 6)}
    assert len(kept) == ROWS - 1


def test_a_ratio_above_1_is_a_finding_and_no_score(rows: Path, tmp_path: Path) -> None:
    scored(rows, tmp_path / "out", **SHORT)
    (entry,) = [line for line in records(tmp_path / "out" / "ledger.jsonl") if line.get("changed") == "ifd_above_1"]
    assert (entry["address"], entry["row"]) == (f"{rows}:4", 3)
    assert entry["detail"] == "1.067: loss 16.000 with the prompt, 15.000 without"
    kept = {row["metadata"]["row"]: row["metadata"] for row in records(tmp_path / "out" / "data.jsonl")}
    assert "ifd" not in kept[3]["model_scores"]
    assert kept[3]["model_scores"]["ifd_above_1"] > 1


def test_rows_without_a_score_go_on_and_one_that_breaks_the_model_goes(rows: Path, tmp_path: Path) -> None:
    curated, _ = scored(rows, tmp_path / "out", **SHORT)
    entries = {entry["row"]: entry for entry in records(tmp_path / "out" / "ledger.jsonl")}
    assert entries[5]["dropped"] == "step_failed"
    assert entries[5]["detail"] == "KeyError: 'break'"
    assert (entries[7]["changed"], entries[7]["detail"]) == ("not_scored", "too_long: 100 letters")
    assert f"scored {ROWS - 2} of {ROWS} rows; not scored: 1 too_long" in curated.notes[0]
    report = json.loads((tmp_path / "out" / "model_scores.json").read_text(encoding="utf-8"))
    assert (report["scored"], report["not_scored"], report["failed"]) == (ROWS - 2, {"too_long": 1}, 1)
    assert report["quantiles"]["reply_loss"]["0%"] == 4.0


def test_what_was_computed_is_not_computed_again_in_another_folder(rows: Path, tmp_path: Path) -> None:
    first, model = scored(rows, tmp_path / "one")
    assert len(model.read) == ROWS
    again, model = scored(rows, tmp_path / "two")
    assert model.read == []
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert first.funnel.as_dict() == again.funnel.as_dict()


def test_a_row_less_costs_its_own_block_and_no_other(rows: Path, tmp_path: Path) -> None:
    scored(rows, tmp_path / "one")
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    rows.write_text("".join(lines[:300] + lines[301:]), encoding="utf-8")
    _, model = scored(rows, tmp_path / "two")
    assert 0 < len(model.read) <= 2 * 128


def test_other_facts_of_the_model_are_other_answers(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(rows, tmp_path / "one")
    monkeypatch.setattr("tests.support.stand_in_model.WEIGHTS", "others")
    _, model = scored(rows, tmp_path / "two")
    assert len(model.read) == ROWS


def test_after_a_kill_only_what_is_missing_is_computed(rows: Path, tmp_path: Path, cache: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.stand_in_model", str(rows), str(tmp_path / "killed"), "350"],
        cwd=ROOT, env=os.environ, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    assert not (tmp_path / "killed" / "hashes.json").exists()
    _, model = scored(rows, tmp_path / "killed")
    assert 0 < len(model.read) < ROWS - 350 + 128
    cache.rename(tmp_path / "away")
    scored(rows, tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_the_same_bytes_for_any_number_of_workers(rows: Path, tmp_path: Path, cache: Path) -> None:
    scored(rows, tmp_path / "one", workers=1)
    cache.rename(tmp_path / "away")
    scored(rows, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_select_and_duplicates_use_a_score(rows: Path, tmp_path: Path) -> None:
    steps = ("model_scores", "select")
    scored(rows, tmp_path / "out", steps=steps, select={"keep": 7, "method": "score", "score": "model_scores.ifd"})
    chosen = [row["metadata"]["model_scores"] for row in records(tmp_path / "out" / "data.jsonl")]
    everything = [row["metadata"]["model_scores"] for row in _scores_of(rows, tmp_path)]
    assert sorted(one["ifd"] for one in chosen) == sorted(one["ifd"] for one in everything if "ifd" in one)[-7:]
    steps = ("model_scores", "exact_duplicates")
    kept_by = {"on": "prompt", "keep": "score", "score": "model_scores.reply_loss"}
    same = write_rows(tmp_path / "same.jsonl", ["the same"] * 9)
    scored(same, tmp_path / "dup", steps=steps, exact_duplicates=kept_by)
    assert [row["metadata"]["row"] for row in records(tmp_path / "dup" / "data.jsonl")] == [6], "the longest reply"


def _scores_of(rows: Path, tmp_path: Path) -> list[dict[str, Any]]:
    scored(rows, tmp_path / "all")
    return records(tmp_path / "all" / "data.jsonl")


def test_without_what_opens_models_the_step_says_so_before_any_row(tmp_path: Path) -> None:
    settings = CurateSettings(steps=["model_scores"])
    with pytest.raises(ConfigError, match="without what opens models") as error:
        curate(CurationRequest((str(tmp_path / "missing.jsonl"),), tmp_path / "out", settings))
    assert error.value.where == "curate.model_scores"

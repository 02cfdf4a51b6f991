"""Memory runs out on one of two processes: both end at once, say what to do, and a resume has the same mathematics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.cli_process import QUIET, launch

SCRIPT = ROOT / "tests/support/full_in_two.py"
LARGEST_TOKENS = 150
SETTINGS = ("model.method=full", "train.epochs=2", "pack.share_prefixes=false", *QUIET)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "record.jsonl").read_text(encoding="utf-8").splitlines()]


def assert_same_losses(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    for name in ("loss", "heldout_loss", "gradient_norm"):
        one, other = ({line["step"]: line[name] for line in lines if name in line} for lines in (found, expected))
        assert one == pytest.approx(other, abs=1e-5, rel=1e-5), name
        assert len(one) == 6


@pytest.mark.parametrize("after_rows", [3, pytest.param(0, marks=pytest.mark.nightly)])
def test_the_end_is_clean_and_a_resume_goes_on(
    train_tiny: Callable[..., Any], tiny_recipe: Callable[[Path], Path], tmp_path: Path, after_rows: int
) -> None:
    """Also in the first step, before there is a checkpoint."""
    recipe, folder = tiny_recipe(tmp_path / "two"), tmp_path / "two" / "runs" / "tiny"

    done = launch(str(SCRIPT), str(LARGEST_TOKENS), str(after_rows), "train", str(recipe), *SETTINGS, torchrun=2)
    ended = time.time()

    assert done.returncode == 1
    assert f"Memory ran out in step {after_rows + 1}, on process 1 of 2" in done.stderr, done.stderr
    assert f"tutelage train --resume {folder} --processes 2" in done.stderr
    assert "Another process of this run ended, and process 0 cannot go on without it" in done.stderr
    assert done.stderr.count("found:    process 1: Memory ran out") == 1
    assert "RuntimeError" not in done.stderr
    told = json.loads((folder / "stopped.json").read_text(encoding="utf-8"))
    assert ended - (folder / "stopped.json").stat().st_mtime < 25, "nobody waits for the other"
    assert (told["reason"], told["process"], told["step"]) == ("out_of_memory", 1, after_rows + 1)
    assert told["checkpoint"] == (f"step-{after_rows:06d}" if after_rows else None)
    assert told["row_tokens"] > LARGEST_TOKENS >= told["next_row_tokens"]

    done = launch(str(SCRIPT), str(LARGEST_TOKENS), "0", "train", "--resume", str(folder), torchrun=2)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert not (folder / "stopped.json").exists()
    lines = lines_of(folder)
    (smaller,) = [line for line in lines if "row_tokens" in line]
    assert (smaller["step"], smaller["row_tokens"]) == (after_rows + 1, told["next_row_tokens"])
    assert_same_losses(lines, lines_of(train_tiny(*SETTINGS, where="alone").folder))

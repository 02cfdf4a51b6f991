"""A curation that was killed goes on with what is there, and memory does not grow with the rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.curate.test_pipeline import contents, rows, run
from tests.support.curation_steps import DropShort, FirstOfEach, Tidy
from tests.support.killed_curation import curated
from tutelage.curate.out_folder import HASHES, WORK

__all__ = ["rows"]
ROOT = Path(__file__).resolve().parents[2]


def stage_files(out: Path) -> dict[str, tuple[int, int]]:
    """Every finished file of every stage, with its inode and time."""
    files = [path for path in (out / WORK).rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def kill_after(events: int, rows: Path, out: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_curation", str(rows), str(out), str(events), "local", "SIGKILL"],
        cwd=ROOT, env=os.environ, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


@pytest.mark.parametrize("events", [5, 20, 33])
def test_after_a_kill_only_what_is_missing_is_computed_and_the_output_is_the_same(
    rows: Path, tmp_path: Path, events: int
) -> None:
    whole = curated(rows, tmp_path / "whole")
    out = tmp_path / "killed"
    kill_after(events, rows, out)
    assert not (out / HASHES).exists()
    left = stage_files(out)
    again = curated(rows, out)
    now = stage_files(out)
    kept = [name for name in left if "features" not in name and "-output-" not in name and "LOCK" not in name.upper()]
    assert {name: left[name] for name in kept} == {name: now[name] for name in kept}
    assert contents(out) == contents(tmp_path / "whole")
    assert again.funnel.as_dict() == whole.funnel.as_dict()
    assert 0 < sum(again.computed.values()) < sum(whole.computed.values())


def peak_bytes(path: Path, out: Path, repeats: int) -> int:
    text = path.read_text(encoding="utf-8").replace("answer", "a long answer " * 150).splitlines()
    big = path.with_name(f"{repeats}.jsonl")
    big.write_text("\n".join(line for _ in range(repeats) for line in text) + "\n", encoding="utf-8")
    steps: Any = (Tidy(), DropShort(), FirstOfEach(), DropShort(name="again"))
    tracemalloc.start()
    run(big, out, steps, chunk_rows=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_rows(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own memory, counted: for a row more there are its place and what is decided on it, and no text of it."""
    monkeypatch.setattr("tutelage.formats.survey.KEPT_CHARACTERS", 1)  # the reader keeps the rows of short files
    peak_bytes(rows, tmp_path / "warm", 10)  # what is loaded once
    few, many = (peak_bytes(rows, tmp_path / str(repeats), repeats) for repeats in (20, 80))
    assert (many - few) / (61 * 60) < 300, "bytes a row, of rows of about 2,000"

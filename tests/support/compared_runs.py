"""Whole runs, compared step by step and weight by weight, and taken back to where they had just saved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

Record = tuple[dict[int, dict[str, Any]], dict[int, float]]
OFTEN = ("train.checkpoint_every=2", "train.keep_checkpoints=10", "train.epochs=2")


def weights(folder: Path) -> dict[str, Any]:
    (file,) = [*folder.glob("model/*.safetensors"), *folder.glob("adapter/*.safetensors")]
    return load_file(file)


def assert_same_course(one: Record, other: Record) -> None:
    (steps, heldout), (other_steps, other_heldout) = one, other
    assert set(steps) == set(other_steps)
    assert set(heldout) == set(other_heldout)
    for step in range(1, len(steps) + 1):
        a, b = steps[step], other_steps[step]
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-5), step
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-5), step
        assert ("divergence" in b) == ("divergence" in a), step
        assert b.get("divergence", 0.0) == pytest.approx(a.get("divergence", 0.0), rel=1e-4, abs=1e-7), step
        assert (b["trained_tokens"], b["learning_rate"]) == (a["trained_tokens"], a["learning_rate"])
    for step, value in heldout.items():
        assert other_heldout[step] == pytest.approx(value, abs=1e-5), step


def assert_same_weights(one: Path, other: Path, *, within: float = 1e-6) -> None:
    a, b = weights(one), weights(other)
    assert set(a) == set(b)
    worst = max((a[name] - b[name]).abs().max().item() for name in a)
    assert worst < within


def stopped_after(folder: Path, step: int, target: Path) -> Path:
    """A copy of a finished run as it was when it had just saved `step`."""
    shutil.copytree(folder, target)
    (target / "result.json").unlink()
    for path in (target / "checkpoints").iterdir():
        if int(path.name.split("-")[1]) > step:
            shutil.rmtree(path)
    assert (target / "checkpoints" / f"step-{step:06d}").is_dir()
    return target

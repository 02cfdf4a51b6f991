from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tutelage.config.curation import CurateSettings
from tutelage.curate import semantic_duplicates, static_vectors
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest
from tutelage.curate.semantic_duplicates import semantic_stars
from tutelage.curate.star_clusters import KEPT
from tutelage.errors import DependencyError


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 3, 1024])
@pytest.mark.parametrize("sides", [1, 2])
def test_stars_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch, block: int, sides: int) -> None:
    monkeypatch.setattr(semantic_duplicates, "BLOCK_ROWS", block)
    generator = np.random.default_rng(1)
    centers = generator.normal(size=(12, 8))
    parts = [unit(centers[np.arange(60) % 12] + 0.25 * generator.normal(size=(60, 8))) for _ in range(sides)]
    preferred = generator.permutation(60)
    stars = semantic_stars(np.concatenate(parts, axis=1), preferred, 0.9, sides)
    alike = np.round(np.minimum.reduce([part @ part.T for part in parts]).astype(np.float64), 4)
    kept: list[int] = []
    for row in preferred.tolist():
        anchor = max(kept, key=lambda other: alike[row, other], default=None)
        if anchor is not None and alike[row, anchor] >= 0.9:
            assert stars.anchors[row] == anchor
            assert stars.similarities[row] == alike[row, anchor]
        else:
            assert stars.anchors[row] == KEPT
            kept.append(row)
    assert 12 <= len(kept) < 60


def test_rows_without_a_text_are_like_no_other() -> None:
    assert (semantic_stars(np.zeros((4, 8), dtype=np.float32), np.arange(4), 0.9, 1).anchors == KEPT).all()


def test_a_package_that_is_missing_is_said_before_any_row_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_vectors, "find_spec", lambda _name: None)
    chosen = CurateSettings.model_validate({"steps": ["semantic_duplicates"]})
    with pytest.raises(DependencyError, match=r"tutelage\[semantic\]"):
        curate(CurationRequest((str(tmp_path / "missing.jsonl"),), tmp_path / "out", chosen))


@pytest.mark.skipif(find_spec("wordllama") is None, reason="the package wordllama is not installed")
def test_other_words_for_the_same_are_met(tmp_path: Path) -> None:
    pairs = [
        ("Write a Python program to sort a dictionary by value.", "Use sorted with a key that takes the value."),
        ("Write a Python program that sorts a dictionary by its values.", "Use sorted with a key taking the value."),
        ("How do I sell my house?", "Ask an agent first."),
    ]
    rows = tmp_path / "rows.jsonl"
    lines = [
        json.dumps({"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]})
        for prompt, reply in pairs
    ]
    rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
    chosen = CurateSettings.model_validate(
        {"steps": ["semantic_duplicates"], "semantic_duplicates": {"similarity": 0.85}}
    )
    curate(CurationRequest((str(rows),), tmp_path / "out", chosen, workers=1))
    entries = [json.loads(line) for line in (tmp_path / "out/ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(entry["row"], entry["anchor"]) for entry in entries if "merged" in entry] == [(1, f"{rows}:1")]

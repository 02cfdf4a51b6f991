"""The rows of the curation benchmark are what their labels say, and the same seed makes the same bytes."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks/curate"
MATERIAL = ROOT.parent / "shared/material/data"
needs_material = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the collection of published files is not here")


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded  # judged.py imports rows by this name, and dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "rows", ModuleType("rows"))
    return module("rows")


@needs_material
def test_labels_are_true(rows: ModuleType, tmp_path: Path) -> None:
    counts = rows.write(MATERIAL, 1500, 3, tmp_path)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    labels = rows.read_labels(tmp_path / "labels.jsonl")
    assert counts == Counter(label["kind"] for label in labels)
    assert set(counts) == {"fresh", *rows.SHARES}
    said = [[(turn["role"], turn["content"]) for turn in json.loads(line)["messages"]] for line in lines]
    questions = [" ".join(rows.words(text)) for text in rows.material(MATERIAL).questions]
    fresh = Counter(line for line, label in zip(lines, labels, strict=True) if label["kind"] == "fresh")
    assert set(fresh.values()) == {1}
    for turns, label in zip(said, labels, strict=True):
        origin = None if label["of"] is None else said[label["of"]]
        assert origin is None or label["of"] < label["row"]
        match label["kind"]:
            case "exact":
                assert turns == origin
            case "spaced":
                assert [text.split() for _, text in turns] == [text.split() for _, text in origin]
            case "near":
                assert turns != origin
                assert rows.is_near(turns, origin)
            case "trap_prompt":
                assert turns[0] == origin[0]
                assert not rows.is_near(turns, origin)
            case "contaminated" | "contaminated_reply":
                text = " ".join(rows.words(" ".join(text for _, text in turns)))
                assert any(question in text for question in questions)


@needs_material
def test_the_same_seed_makes_the_same_bytes(rows: ModuleType, tmp_path: Path) -> None:
    contents = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        rows.write(MATERIAL, 300, seed, tmp_path / name)
        contents.append([(tmp_path / name / file).read_bytes() for file in ("rows.jsonl", "labels.jsonl")])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_recall_and_precision(rows: ModuleType) -> None:
    judged = module("judged")
    kinds = ["fresh", "exact", "near", "fresh", "contaminated", "trap_prompt"]
    labels = [{"row": row, "kind": kind, "of": 0 if kind in rows.COPIES else None} for row, kind in enumerate(kinds)]
    steps = ("near_duplicates",)
    perfect = {"1": "near_duplicates", "2": "near_duplicates", "4": "decontaminate"}
    assert judged.copies(labels, perfect, steps) == {"recall": 1.0, "precision": 1.0}
    assert judged.contamination(labels, perfect, "decontaminate") == {"recall": 1.0, "precision": 1.0}
    missing = {"1": "near_duplicates", "3": "near_duplicates", "5": "decontaminate"}
    assert judged.copies(labels, missing, steps) == {"recall": 0.5, "precision": 0.5}
    assert judged.contamination(labels, missing, "decontaminate") == {"recall": 0.0, "precision": 0.0}
    whole_group = dict.fromkeys(("0", "1", "2"), "near_duplicates")
    assert judged.copies(labels, whole_group, steps) == {"recall": 1.0, "precision": 2 / 3}

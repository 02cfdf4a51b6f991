"""The brute force of the benchmark on a small file, beside our step: the same rows."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

from tests.curate.planted import planted_rows

ROOT = Path(__file__).resolve().parents[2]


def brute_force() -> ModuleType:
    spec = importlib.util.spec_from_file_location("near_recall", ROOT / "benchmarks/curate/near_recall.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_all_compared_with_all_gives_what_our_step_gives(tmp_path: Path) -> None:
    near_recall = brute_force()
    prompts, replies = planted_rows(4, 60)
    rows = [(" ".join(prompt), " ".join(reply)) for prompt, reply in zip(prompts, replies, strict=True)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": p, "completion": r}) + "\n" for p, r in rows), encoding="utf-8")
    near = near_recall.alike([[near_recall.runs(prompt), near_recall.runs(reply)] for prompt, reply in rows])
    expected = near_recall.should_go(near)
    assert len(expected) > 20
    assert set(near_recall.dropped(file, {}, "both", 1.0)) == expected
    for row in random.Random(1).sample(range(1, len(rows)), 30):
        sets = [[near_recall.runs(text) for text in rows[number]] for number in range(row + 1)]
        by_hand = []
        for other in range(row):
            shared = [len(a & b) for a, b in zip(sets[row], sets[other], strict=True)]
            total = [len(a | b) for a, b in zip(sets[row], sets[other], strict=True)]
            if sum(shared) >= 0.8 * sum(total) and all(a >= 0.5 * b for a, b in zip(shared, total, strict=True)):
                by_hand.append(other)
        assert near.get(row, []) == by_hand

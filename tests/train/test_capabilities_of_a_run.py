"""A run whose general set has capabilities: their shares, verdicts and moved items, in its result and on its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tutelage.runs.reading import load
from tutelage.train.run import Finished

TrainTiny = Callable[..., Finished]


def test_a_run_says_which_items_of_which_capability_it_lost(train_tiny: TrainTiny, tmp_path: Path) -> None:
    path = tmp_path / "capabilities.jsonl"
    rows = [
        {
            "id": f"{topic}-{number}",
            "topic": topic,
            "prompt": f"Say {topic} {number}",
            # A JSON object is what training teaches; the untouched model writes none.
            "checks": [{"kind": kind, "value": "{"}] if kind == "starts_with" else [{"kind": kind}],
            "reference": "{}" if kind == "starts_with" else "words",
        }
        for topic, kind in (("json", "starts_with"), ("words", "plain_text"))
        for number in range(10)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    finished = train_tiny(f"evaluate.general=['{path}']", "evaluate.task=")

    result = finished.result
    moved, capabilities = result["transitions"], result["uncertainty"]["capabilities"]
    assert set(result["before"]["capabilities"]) == set(result["after"]["capabilities"]) == {"json", "words"}
    for side in ("before", "after"):
        shares = result[side]["capabilities"]
        assert sum(shares.values()) / 2 == result[side]["general"]
    for name in ("json", "words"):
        change = capabilities[name]["change"]
        assert capabilities[name]["items"] == 10
        assert len(moved["lost"].get(name, [])) == change["broken"]
        assert len(moved["gained"].get(name, [])) == change["fixed"]
        assert (
            result["after"]["capabilities"][name] - result["before"]["capabilities"][name]
            == (change["fixed"] - change["broken"]) / 10
        )
    lost = sum(len(ids) for ids in moved["lost"].values())
    assert len(moved["lost_items"]) <= lost
    read = load(finished.folder).result
    assert read is not None
    assert read.transitions is not None
    assert read.after.capabilities == result["after"]["capabilities"]
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "The general set, item by item" in page
    assert "Capability words" in page

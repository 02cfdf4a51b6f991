"""`select` by nearness to targets: who chooses what, what is said of it, and what is refused before any row is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.curate.test_model_scores import cache, contents, records
from tests.support.stand_in_model import StandIn, scored
from tutelage.curate.selection.allowance import Allowance
from tutelage.curate.selection.targets import Near
from tutelage.errors import ConfigError, DataError, SourceNotFoundError

__all__ = ["cache"]
LETTERS = "abcdefgh"


def write_rows(path: Path, texts: list[str]) -> Path:
    lines = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]} for text in texts
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Ten rows of each letter, the n-th with n letters of another kind."""
    return write_rows(
        tmp_path / "rows.jsonl", [letter * 20 + "z" * number for letter in LETTERS for number in range(10)]
    )


def chosen(rows: Path, out: Path, targets: list[str], **select: Any) -> tuple[list[dict[str, Any]], StandIn]:
    target_rows = write_rows(rows.with_name("targets.jsonl"), targets)
    table = {"method": "rds", "target_rows": [str(target_rows)], "keep": 4} | select
    _, model = scored(rows, out, steps=("select",), select=table)
    return records(out / "data.jsonl"), model


def test_targets_take_turns_and_the_report_says_who_took_what(rows: Path, tmp_path: Path) -> None:
    kept, _ = chosen(rows, tmp_path / "out", ["c" * 9, "g" * 30])
    assert [row["metadata"]["row"] for row in kept] == [20, 21, 60, 61]
    assert [row["metadata"]["select"] for row in kept] == ["1", "3", "2", "4"]
    report = json.loads((tmp_path / "out" / "select.json").read_text(encoding="utf-8"))
    assert (report["method"], report["model"]["name"]) == ("rds", "smollm2-135m")
    first, second = report["targets"]
    assert first["address"] == f"{tmp_path / 'targets.jsonl'}:1"
    assert [one["address"] for one in first["chosen"]] == [f"{rows}:21", f"{rows}:22"]
    assert [one["similarity"] for one in second["chosen"]] == [1.0, pytest.approx(20 / np.hypot(20, 1), abs=1e-5)]


def test_what_is_not_chosen_names_its_nearest_target(rows: Path, tmp_path: Path) -> None:
    chosen(rows, tmp_path / "out", ["c" * 9, "g" * 30])
    gone = {entry["row"]: entry for entry in records(tmp_path / "out" / "ledger.jsonl")}
    assert gone[29]["dropped"] == "not_selected"
    assert gone[29]["detail"].startswith(f"nearest target {tmp_path / 'targets.jsonl'}:1, similarity 0.9")


def test_a_row_that_the_model_breaks_on_goes_and_is_never_chosen(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", ["break it", "brake it", "other"])
    kept, _ = chosen(rows, tmp_path / "out", ["broke it"], keep=3)
    assert [row["metadata"]["row"] for row in kept] == [1, 2]
    (entry,) = records(tmp_path / "out" / "ledger.jsonl")
    assert (entry["dropped"], entry["detail"]) == ("step_failed", "failed: KeyError: 'break'")


def test_vectors_are_kept_and_other_targets_cost_only_their_own(rows: Path, tmp_path: Path) -> None:
    _, model = chosen(rows, tmp_path / "one", ["c" * 9])
    assert len(model.read) == 80 + 1
    kept, model = chosen(rows, tmp_path / "one", ["d" * 9])
    assert len(model.read) == 1
    assert [row["metadata"]["row"] for row in kept] == [30, 31, 32, 33]


def test_the_same_bytes_with_and_without_what_is_kept(rows: Path, tmp_path: Path, cache: Path) -> None:
    chosen(rows, tmp_path / "one", ["c" * 9, "gh" * 8])
    chosen(rows, tmp_path / "two", ["c" * 9, "gh" * 8])
    cache.rename(tmp_path / "away")
    chosen(rows, tmp_path / "three", ["c" * 9, "gh" * 8])
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "three")


def test_quotas_hold_and_a_target_goes_on_to_its_next(rows: Path, tmp_path: Path) -> None:
    kept, _ = chosen(rows, tmp_path / "out", ["c" * 9], keep=9, quotas={str(rows): 3})
    assert [row["metadata"]["row"] for row in kept] == [20, 21, 22]


def test_a_round_is_one_row_for_each_target_that_has_one_left() -> None:
    similarities = np.array([[0.9, 0.8], [0.7, 0.95], [0.6, 0.1], [np.nan, np.nan]], dtype=np.float32)
    allowance = Allowance(np.ones(4, dtype=np.int64), 4, np.zeros(4, dtype=np.int32), [None])
    near = Near(similarities)
    near.choose(allowance)
    assert allowance.taken == [0, 1, 2]
    assert near.chosen_for == {0: 0, 1: 1, 2: 0}


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, SourceNotFoundError, "."),
        ("", DataError, "is empty"),
        ('{"broken\n', DataError, "No row of the file"),
        ('{"messages": []}\n', DataError, "hold no row"),
    ],
)
def test_targets_that_are_missing_or_empty_stop_it_before_any_row_is_read(
    tmp_path: Path, content: str | None, error: type[Exception], said: str
) -> None:
    targets = tmp_path / "targets.jsonl"
    if content is not None:
        targets.write_text(content, encoding="utf-8")
    table = {"method": "rds", "target_rows": [str(targets)], "keep": 4}
    with pytest.raises(error, match=said) as raised:
        scored(tmp_path / "no_such_rows.jsonl", tmp_path / "out", steps=("select",), select=table)
    assert "targets.jsonl" in str(raised.value)


def test_without_targets_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no examples are named") as raised:
        scored(tmp_path / "none.jsonl", tmp_path / "out", steps=("select",), select={"method": "rds", "keep": 4})
    assert raised.value.where == "curate.select.target_rows"


def test_a_target_that_the_model_breaks_on_is_named(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="target cannot be read") as raised:
        chosen(rows, tmp_path / "out", ["c", "break it"])
    assert raised.value.where == f"{tmp_path / 'targets.jsonl'}:2"

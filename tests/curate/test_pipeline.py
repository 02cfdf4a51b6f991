"""The whole of a curation: the books balance, the output is the same however it came about, and what is there stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.curation_steps import Break, DropShort, FirstOfEach, Halve, Tidy, Turn
from tutelage import formats
from tutelage.config.curation import CurateSettings
from tutelage.curate import stage_work
from tutelage.curate.out_folder import WORK
from tutelage.curate.pipeline import curate, sample
from tutelage.curate.request import Curated, CurationRequest
from tutelage.curate.step import CorpusStep, RowStep
from tutelage.errors import ConfigError
from tutelage.ledger import Ledger
from tutelage.system.workers import Workers

STEPS: tuple[RowStep | CorpusStep, ...] = (Tidy(), Halve(), DropShort(), Break(), FirstOfEach())


def lines(count: int = 60) -> Iterator[dict[str, Any]]:
    """Rows with a trap each: white space, four turns, a short reply, a prompt that breaks a step, one seen before."""
    for number in range(count):
        turns = [("user", f"ask {number}"), ("assistant", f"answer {number}")]
        if number % 10 == 1:
            turns[1] = ("assistant", f"  answer {number}\n")
        if number % 10 == 2:
            turns += [("user", f"and {number}"), ("assistant", f"more {number}")]
        if number % 10 == 3:
            turns[1] = ("assistant", "ok")
        if number % 10 == 4:
            turns[0] = ("user", f"break {number}")
        if number % 10 == 5:
            turns[0] = ("user", "ask 0")
        yield {"messages": [{"role": role, "content": text} for role, text in turns]}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    text = [json.dumps(line) for line in lines()]
    text.insert(7, "{broken")
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def request_for(rows: Path, out: Path, **changed: Any) -> CurationRequest:
    fields: dict[str, Any] = {"workers": 1, "chunk_rows": 8} | changed
    return CurationRequest((str(rows),), out, CurateSettings(), **fields)


def run(rows: Path, out: Path, steps: Any = STEPS, **changed: Any) -> Curated:
    return curate(request_for(rows, out, **changed), steps=steps)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_books_balance_and_name_every_row(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    funnel = run(rows, out).funnel
    assert (funnel.rows_in, funnel.rows_kept) == (61, 60 - 6 - 6 - 6 + 6)
    assert {what: funnel.total(what) for what in ("dropped", "merged", "changed", "added")} == {
        "dropped": 1 + 6 + 6, "merged": 6, "changed": 6 + 6, "added": 6,
    }  # fmt: skip
    assert json.loads((out / "funnel.json").read_text(encoding="utf-8")) == funnel.as_dict()
    ledger = records(out / "ledger.jsonl")
    assert sum("dropped" in entry for entry in ledger) == 13
    broken = next(entry for entry in ledger if entry.get("dropped") == "step_failed")
    assert broken == {
        "dropped": "step_failed", "step": "fragile", "address": f"{rows}:5", "row": 4, "detail": "KeyError: 'break'",
    }  # fmt: skip
    merged = next(entry for entry in ledger if "merged" in entry)
    assert (merged["address"], merged["anchor"], merged["detail"]) == (f"{rows}:6", f"{rows}:1", "1.0")


def test_dropped_rows_are_kept_apart_with_what_was_said_of_them(rows: Path, tmp_path: Path) -> None:
    run(rows, tmp_path / "out")
    dropped = records(tmp_path / "out" / "dropped.jsonl")
    assert len(dropped) == 13 + 6
    assert [entry["data"] for entry in dropped if entry["step"] == "read"] == [None]
    short = next(entry for entry in dropped if entry.get("dropped") == "too_short")
    assert short["data"]["messages"][1]["content"] == "ok"


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_our_reader_reads_the_output_back(rows: Path, tmp_path: Path, file_format: str) -> None:
    curated = run(rows, tmp_path / "out", file_format=file_format)
    assert curated.data is not None
    back = list(formats.read([str(curated.data)], ledger=Ledger()))
    assert len(back) == curated.funnel.rows_kept
    assert [turn.content for turn in back[1].messages] == ["ask 1", "answer 1"]
    assert [[turn.content for turn in row.messages] for row in back[2:4]] == [
        ["ask 2", "answer 2"], ["and 2", "more 2"],
    ]  # fmt: skip


def test_each_row_says_where_it_came_from(rows: Path, tmp_path: Path) -> None:
    run(rows, tmp_path / "out", (Halve(), Turn()))
    kept = records(tmp_path / "out" / "data.jsonl")
    last = {"file": str(rows), "number": 61, "unit": "line", "row": 60, "turn": "odd"}
    assert [row["metadata"] for row in kept[:2]] == [last, last]
    assert [row["metadata"].get("part") for row in kept if row["metadata"]["row"] == 2] == [1, None]
    repeated = [entry for entry in records(tmp_path / "out" / "ledger.jsonl") if entry.get("added") == "repeated"]
    assert [(entry["row"], entry["rows"]) for entry in repeated] == [(60, 1)]


def test_the_output_is_the_same_bytes_whatever_the_workers_and_the_chunks(rows: Path, tmp_path: Path) -> None:
    steps = (*STEPS, Turn(), Tidy("again"))
    run(rows, tmp_path / "one", steps, workers=1)
    run(rows, tmp_path / "three", steps, workers=3)
    run(rows, tmp_path / "whole", steps, workers=1, chunk_rows=1000)
    one, three, whole = (contents(tmp_path / name) for name in ("one", "three", "whole"))
    assert one == three
    assert len(one) == 6
    del one["hashes.json"], whole["hashes.json"]  # the key of the output names the chunks
    assert one == whole


def test_what_is_there_is_not_computed_again(rows: Path, tmp_path: Path) -> None:
    first = run(rows, tmp_path / "out")
    again = run(rows, tmp_path / "out")
    assert first.computed
    assert again.computed == {}
    assert again.funnel.as_dict() == first.funnel.as_dict()


def test_another_setting_begins_anew_from_where_it_differs(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(rows, out, (Tidy(), FirstOfEach(), DropShort(3)))
    changed = run(rows, out, (Tidy(), FirstOfEach(), DropShort(3, name="other")))
    assert set(changed.computed) == {"other", "writing rows"}
    rows.write_text(rows.read_text(encoding="utf-8").replace("ask 7", "ask seven"), encoding="utf-8")
    other_input = run(rows, out, (Tidy(), FirstOfEach(), DropShort(3)))
    assert set(other_input.computed) == {"read", "tidy", "first, looking at rows", "first", "short", "writing rows"}
    assert len(list((out / WORK).glob("*-*"))) == 4, "what earlier ones left is gone"


def test_a_changed_fact_of_a_step_begins_anew(rows: Path, tmp_path: Path) -> None:
    class Dated(DropShort):
        facts: str = "2026"

    run(rows, tmp_path / "out", (Dated(),))
    assert run(rows, tmp_path / "out", (Dated(),)).computed == {}
    Dated.facts = "2027"
    assert "short" in run(rows, tmp_path / "out", (Dated(),)).computed


def test_a_step_that_alters_a_row_and_says_nothing_loses_it(rows: Path, tmp_path: Path) -> None:
    class Silent(Tidy):
        def __call__(self, conversation: Any) -> Any:
            outcome = super().__call__(conversation)
            return getattr(outcome, "conversation", outcome)

    funnel = run(rows, tmp_path / "out", (Silent(),)).funnel
    assert funnel.steps[1].dropped == {"step_failed": 6}


def test_a_sample_goes_through_the_row_steps_and_writes_nothing(rows: Path, tmp_path: Path) -> None:
    request = request_for(rows, tmp_path / "out")
    curated = sample(request, rows=20)
    assert curated.funnel.rows_in == 20
    assert curated.funnel.steps[0].dropped == {"bad_json": 1}
    assert not (tmp_path / "out").exists()


def test_no_row_at_all_has_books_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n', "utf-8"
    )
    funnel = run(path, tmp_path / "out", (DropShort(), FirstOfEach(), Tidy())).funnel
    assert (funnel.rows_in, funnel.rows_kept) == (1, 0)
    assert (tmp_path / "out" / "data.jsonl").read_bytes() == b""


def test_a_folder_with_something_else_in_it_is_refused_before_any_row_is_read(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="no curation wrote") as error:
        run(rows, out)
    assert error.value.found == "thesis.tex"
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_data_of_our_name_that_no_curation_wrote_is_refused(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "data.jsonl").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="no curation wrote"):
        run(rows, out)
    assert (out / "data.jsonl").read_text(encoding="utf-8") == "mine"


def test_an_output_that_was_edited_since_is_refused(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(rows, out)
    (out / "data.jsonl").write_text("edited by hand", encoding="utf-8")
    with pytest.raises(ConfigError, match="no curation wrote") as error:
        run(rows, out)
    assert "data.jsonl" in str(error.value.found)
    (out / "data.jsonl").unlink()
    assert run(rows, out).computed == {"writing rows": 6}


def test_what_a_row_says_of_itself_outlives_a_second_curation(tmp_path: Path) -> None:
    """Labels of the row, and of the steps of an earlier curation; the address is that of the file that is read now."""
    data, first, second = tmp_path / "rows.jsonl", tmp_path / "first", tmp_path / "second"
    row = {"prompt": "How much is it?", "completion": "Three coins.", "category": "shop", "score": 0.5}
    data.write_text(
        json.dumps(
            row | {"metadata": {"annotator": "a1", "category": "other", "a.b": 1, "judge": {"quality": 4, "why": None}}}
        )
        + "\n",
        encoding="utf-8",
    )
    settings = CurateSettings(steps=["normalize"])
    curate(CurationRequest((str(data),), first, settings))
    curate(CurationRequest((str(first / "data.jsonl"),), second, settings))

    (kept,) = records(second / "data.jsonl")
    assert {name: kept["metadata"][name] for name in ("category", "score", "annotator", "judge", "a.b")} == {
        "category": "shop", "score": 0.5, "annotator": "a1", "judge": {"quality": 4}, "a.b": 1,
    }  # fmt: skip
    chosen = {"select": {"keep": 1, "method": "score", "score": "judge.quality"}, "steps": ["select"]}
    curate(CurationRequest((str(second / "data.jsonl"),), tmp_path / "third", CurateSettings.model_validate(chosen)))
    assert len(records(tmp_path / "third" / "data.jsonl")) == 1
    assert kept["metadata"]["file"] == str(first / "data.jsonl")


def test_workers_stay_from_stage_to_stage_and_end_with_the_curation(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Workers] = []

    class Counted(Workers):
        def __enter__(self) -> Workers:
            started.append(self)
            return super().__enter__()

    monkeypatch.setattr(stage_work, "Workers", Counted)
    settings = CurateSettings(steps=["normalize", "exact_duplicates", "near_duplicates"])
    result = curate(CurationRequest((str(rows),), tmp_path / "out", settings, workers=2, chunk_rows=7))

    assert sum(result.computed.values()) > 8, "there were stages with work for two"
    (pool,) = started
    assert [process.poll() is not None for process in pool._processes] == [True, True]
    assert not [path for path in (tmp_path / "out").rglob("*.work") if path.is_file()]

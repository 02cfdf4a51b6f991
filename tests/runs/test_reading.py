from __future__ import annotations

import json
import math

import pytest

from tutelage.errors import SourceNotFoundError
from tutelage.runs.reading import MOST_NOTICES, RUN_FILES, load


def test_a_whole_folder_loads_without_a_notice(run):
    folder = load(run)
    assert folder.notices == ()
    assert len(folder.steps) == 30
    assert [evaluation.step for evaluation in folder.evaluations] == [0, 10, 20, 30]
    assert folder.result.after.exact_match == 0.81
    assert folder.result.before.fields == {"product": 0.104, "urgent": None}
    assert folder.ledger_counts.samples["duplicate"][0].address == "train.jsonl:88"
    assert folder.rows[0].tokens[3].stop
    assert folder.settings == "[train]\nepochs = 3\n"


@pytest.mark.parametrize("name", RUN_FILES)
def test_each_missing_file_is_named(run, name):
    (run / name).unlink()
    notices = load(run).notices
    assert len(notices) == 1
    assert notices[0].startswith(f"{name} is not there yet")


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(SourceNotFoundError, match="no run folder") as caught:
        load(tmp_path / "nowhere")
    assert caught.value.where == str(tmp_path / "nowhere")


def test_a_line_cut_off_at_the_end_is_told_apart_from_a_damaged_one(run):
    record = run / "record.jsonl"
    lines = record.read_bytes().splitlines(keepends=True)
    record.write_bytes(b"".join([*lines[:3], b"{broken\n", *lines[3:], b'{"step": 31, "loss": 0.1\xc3']))
    folder = load(run)
    assert len(folder.steps) == 30
    assert "line 4 is not whole JSON" in folder.notices[0]
    assert "still writing" not in folder.notices[0]
    assert "still writing" in folder.notices[1]


def test_steps_run_again_after_a_resume_count_once_with_their_later_figures(run):
    with (run / "record.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": 30, "loss": 0.5}) + "\n")
    folder = load(run)
    assert len(folder.steps) == 30
    assert folder.steps[-1].loss == 0.5
    assert "1 steps more than once" in folder.notices[0]


def test_nan_and_infinity_are_read_as_they_are(run):
    (run / "record.jsonl").write_text('{"step": 1, "loss": NaN}\n{"step": 2, "loss": Infinity}\n')
    steps = load(run).steps
    assert math.isnan(steps[0].loss)
    assert math.isinf(steps[1].loss)


def test_damaged_json_is_left_out_and_named(run):
    (run / "result.json").write_text('{"name": "x"')
    (run / "rows.json").write_bytes(b"\xff\xfe\x00")
    folder = load(run)
    assert folder.result is None
    assert folder.rows is None
    assert [notice.split(" is ")[0] for notice in folder.notices] == ["result.json", "rows.json"]


def test_a_folder_where_a_file_should_be_is_named(run):
    (run / "ledger.json").unlink()
    (run / "ledger.json").mkdir()
    folder = load(run)
    assert folder.ledger_counts is None
    assert folder.notices[0].startswith("ledger.json could not be read")


def test_many_notices_are_cut_short(run):
    (run / "record.jsonl").write_text("[]\n" * 500)
    notices = load(run).notices
    assert len(notices) == MOST_NOTICES + 1
    assert notices[-1].startswith("And 980 more")


@pytest.mark.parametrize("content", ["null", "[]", "3", '"x"', '{"examples": 3, "before": [], "steps": "x"}'])
def test_json_of_another_shape_never_fails(run, content):
    for name in ("result.json", "ledger.json", "rows.json"):
        (run / name).write_text(content)
    load(run)

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.compared_replies import judged, said
from tutelage.errors import DataError, SaveError
from tutelage.evaluate.pairwise.verdicts import FILE_NAME, VerdictFile


def test_what_is_said_is_read_again(tmp_path: Path):
    file = VerdictFile.open(tmp_path / "new" / "folder")
    said(file, "p1", "a")
    said(file, "p2", "tie", rater="ben")
    again = VerdictFile.open(tmp_path / "new" / "folder")
    assert again.verdicts == file.verdicts
    assert again.raters("person") == ["anna", "ben"]
    assert again.damaged == []


def test_the_last_word_on_a_pair_holds_and_what_is_undone_is_gone(tmp_path: Path):
    file = VerdictFile.open(tmp_path)
    for choice in ("a", "b"):
        said(file, "p1", choice, left=choice)
    said(file, "p2", "a")
    said(file, "p2", "undone")
    assert {key: verdict.choice for key, verdict in file.of("person", "anna").items()} == {("p1", "a"): "b"}


def test_a_judge_has_a_verdict_for_each_order(tmp_path: Path):
    file = VerdictFile.open(tmp_path)
    judged(file, "p1", "a", "b")
    assert {key: verdict.choice for key, verdict in file.of("judge", "m").items()} == {
        ("p1", "a"): "a",
        ("p1", "b"): "b",
    }
    assert file.of("person", "m") == {}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_a_killed_process_left_costs_no_other(cut: int, tmp_path: Path):
    file = VerdictFile.open(tmp_path)
    said(file, "p1", "a")
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + whole[:cut])
    again = VerdictFile.open(tmp_path)
    assert [verdict.pair for verdict in again.verdicts] == ["p1"]
    assert again.damaged == [2]
    said(again, "p2", "b")
    last = VerdictFile.open(tmp_path)
    assert [verdict.pair for verdict in last.verdicts] == ["p1", "p2"]


def test_the_file_only_grows(tmp_path: Path):
    file = VerdictFile.open(tmp_path)
    content = b""
    for choice in ("a", "undone", "b"):
        said(file, "p1", choice)
        assert file.path.read_bytes().startswith(content)
        content = file.path.read_bytes()
    assert [json.loads(line)["choice"] for line in content.splitlines()] == ["a", "undone", "b"]


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / FILE_NAME).write_text('{"prompt": "x"}\n{"prompt": "y"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="no list of verdicts"):
        VerdictFile.open(tmp_path)
    (tmp_path / "sub" / FILE_NAME).mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be read"):
        VerdictFile.open(tmp_path / "sub")


def test_a_verdict_that_cannot_be_saved_is_an_error_and_the_others_stay(
    tmp_path: Path, files_at_most: Callable[[int], AbstractContextManager[None]]
):
    file = VerdictFile.open(tmp_path)
    said(file, "p1", "a")
    size = file.path.stat().st_size
    with files_at_most(size), pytest.raises(SaveError):
        said(file, "p2", "b")
    assert [verdict.pair for verdict in file.verdicts] == ["p1"]
    assert [verdict.pair for verdict in VerdictFile.open(tmp_path).verdicts] == ["p1"]

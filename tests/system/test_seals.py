"""Any other byte of what was written is noticed, wherever it is read again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from tutelage.runs import metrics_log, row_ledger
from tutelage.runs.reading import load
from tutelage.system import seals
from tutelage.system.seals import OTHER_BYTES, differing_files, file_sha256, numbered_lines, sealed_line

SOURCE = Path(seals.__file__).parents[1]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 7])
def test_the_hash_of_a_file_is_that_of_its_bytes_and_those_that_follow(tmp_path: Path, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
    assert file_sha256(tmp_path / "file", suffix=b"converter 3") == hashlib.sha256(data + b"converter 3").hexdigest()


def test_one_place_reads_files_to_hash_them() -> None:
    by_hand = re.compile(r"file_digest\(|sha256\([^)]*read_bytes\(\)")
    hashing = [path for path in SOURCE.rglob("*.py") if by_hand.search(path.read_text(encoding="utf-8"))]
    assert [path.relative_to(SOURCE).as_posix() for path in hashing] == ["system/seals.py"]


def test_files_that_differ_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    for name in ("same", "other", "came"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "folder").mkdir()
    written = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("same", "gone", "folder")}
    expected: dict[str, str | None] = {**written, "other": written["same"], "came": None, "never": None}
    assert differing_files(tmp_path, expected) == {
        "gone": "no such file",
        "folder": "Is a directory",
        "other": OTHER_BYTES,
        "came": OTHER_BYTES,
    }


def test_each_line_says_what_is_wrong_with_it_and_its_place() -> None:
    first, second, third = (sealed_line({"step": number, "line": number}).encode() for number in (1, 2, 3))
    lines = list(numbered_lines(b"\n".join([first, b"", third, second[:9]])))
    assert [(line.number, line.content, line.damage, line.misplaced, line.is_ended) for line in lines] == [
        (1, {"step": 1}, None, None, True),
        (2, None, OTHER_BYTES, None, True),
        (3, {"step": 3}, None, None, True),
        (4, None, OTHER_BYTES, None, False),
    ]
    moved = list(numbered_lines(b"\n".join([first, third, b""])))
    assert [one.misplaced for one in moved] == [None, "1 line before it is gone"]


def test_a_run_and_its_page_find_the_same_damage(tmp_path: Path) -> None:
    lines = [sealed_line({"step": number, "loss": 1.0, "line": number}) for number in (1, 2, 3, 4)]
    (tmp_path / "record.jsonl").write_text("\n".join([lines[0], lines[1][:-9], lines[3]]) + "\n", encoding="utf-8")
    (tmp_path / "rows.json").write_text("[]\n", encoding="utf-8")
    hashes = {"rows.json": hashlib.sha256(b"[1]\n").hexdigest()}
    (tmp_path / "ledger.json").write_text(seals.sealed({"rows_in": 1, "sha256": hashes}), encoding="utf-8")

    kept, damaged = metrics_log.read_record(tmp_path / "record.jsonl")
    page = load(tmp_path)

    assert [one["step"] for one in kept] == [1, 4] == [step.step for step in page.steps or ()]
    assert damaged == [
        f"record.jsonl, line 2: {OTHER_BYTES}; it is left out",
        "record.jsonl, line 3: 1 line before it is gone",
    ]
    assert "record.jsonl, line 2 is not as it was written and is left out." in page.notices
    assert "record.jsonl, line 3: 1 line before it is gone." in page.notices
    assert row_ledger.row_ledger_damage(tmp_path) == [f"rows.json: {OTHER_BYTES}"]
    assert any(notice.startswith("rows.json is not as it was written") for notice in page.notices)
    assert page.rows is None

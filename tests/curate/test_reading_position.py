"""How far the files of a curation are read."""

from __future__ import annotations

import json
from pathlib import Path

from tutelage.config.curation import CurateSettings
from tutelage.curate.pipeline import curate
from tutelage.curate.reading_position import ReadingPosition
from tutelage.curate.request import CurationRequest
from tutelage.curate.stages import READING
from tutelage.formats.sources import find_files


def written(path: Path, rows: int, letters: int) -> Path:
    line = json.dumps({"prompt": "What is it?", "completion": "x" * letters})
    path.write_text(f"{line}\n" * rows, encoding="utf-8")
    return path


def test_the_share_of_a_file_is_that_of_its_rows(tmp_path: Path) -> None:
    sources = [str(written(tmp_path / name, 10, 200_000)) for name in ("one.jsonl", "two.jsonl")]
    first, second = files = find_files(sources, lambda _note: None)
    position = ReadingPosition(files)
    assert (position.total, position.done(0)) == (5, 0)
    position.begin(first, 10, 0)
    assert [position.done(rows) for rows in (0, 5, 10)] == [0, 1, 2]
    position.begin(second, 10, 10)
    assert [position.done(rows) for rows in (10, 15, 20, 99)] == [2, 3, 4, 4]


def test_who_waits_hears_megabytes_of_all_files(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", 30, 100_000)
    heard: list[tuple[int, int | None]] = []

    def hear(title: str, done: int, total: int | None) -> None:
        if title == READING:
            heard.append((done, total))

    settings = CurateSettings(steps=["exact_duplicates"])
    curate(CurationRequest((str(source),), tmp_path / "out", settings, workers=1, chunk_rows=12), progress=hear)
    assert heard == [(0, 4), (1, 4), (2, 4), (4, 4)]

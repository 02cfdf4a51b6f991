"""The bytes that were hashed are the bytes that were read, and an error names the file that really failed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tutelage import config, formats
from tutelage.builders import dataset as dataset_module
from tutelage.builders.dataset import Prepared, prepare
from tutelage.errors import CheckpointError, DataError, SaveError
from tutelage.formats import data_files
from tutelage.formats.sources import SourceFile
from tutelage.ledger import Ledger
from tutelage.pack import prepared_cache as prepared_cache_module
from tutelage.report.console.progress import Screen
from tutelage.train.run import Finished, run
from tutelage.types import Address, Drop

TrainTiny = Callable[..., Finished]
QUICK = ("train.epochs=1", "evaluate.before=false", "evaluate.task=", "evaluate.general=")


def line(number: int, reply: str = '{"answer": 1}') -> str:
    said = ("user", f"Question {number}?"), ("assistant", reply)
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in said]}) + "\n"


def write(path: Path, count: int, reply: str = '{"answer": 1}') -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line(number, reply) for number in range(count)), encoding="utf-8")
    return path


@pytest.fixture
def prepared(tiny_tokenizer_folder: Path, tmp_path: Path) -> Callable[..., Prepared]:
    """Prepares with settings by section, a cache and a ledger's file in `tmp_path`."""

    def go(*, cache: bool = True, **sections: dict[str, Any]) -> Prepared:
        data = {"train": [str(tmp_path / "rows.jsonl")], "workers": 1} | sections.pop("data", {})
        given = {"model": {"name": "tiny"}, "data": data, **sections}
        return prepare(
            config.from_mapping(given, [], where="a test"),
            tiny_tokenizer_folder,
            cache=tmp_path / "cache" if cache else None,
            ledger_path=tmp_path / "run" / "ledger.jsonl",
        )

    (tmp_path / "run").mkdir()
    return go


def while_reading(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], *, first: bool = True) -> None:
    """Let something happen to the files between their hash and their rows, or once the first row was read."""
    read = formats.read

    def reading(*given: Any, **named: Any) -> Iterator[Any]:
        if first:
            act()
        for number, one in enumerate(read(*given, **named)):
            if number == 0 and not first:
                act()
            yield one

    monkeypatch.setattr(dataset_module.formats, "read", reading)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["data", "validation", "task"])
def test_b17_rows_that_come_while_a_file_is_read_are_refused(
    prepared: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, first: bool
) -> None:
    paths = {name: write(tmp_path / f"{name}.jsonl", 5) for name in ("rows", "held", "task")}
    changed = paths["rows" if kind == "data" else "held" if kind == "validation" else "task"]

    def append() -> None:
        if len(seen) == {"data": 0, "validation": 1, "task": 2}[kind]:
            with changed.open("a", encoding="utf-8") as stream:
                stream.write(line(99))
        seen.append(1)

    seen: list[int] = []
    while_reading(monkeypatch, append, first=first)
    with pytest.raises(DataError, match="changed while it was read") as caught:
        prepared(
            data={"validation": [str(paths["held"])]},
            evaluate={"task": [str(paths["task"])]},
            pack={"max_seq_length": 99},
        )
    assert caught.value.where == str(changed)


@pytest.mark.parametrize("change", ["rewritten", "cut", "gone", "replaced"])
def test_b17_however_the_file_changes(
    prepared: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    path = write(tmp_path / "rows.jsonl", 5)
    times = path.stat()

    def act() -> None:
        if change == "rewritten":  # of the same size, and with the time it had
            path.write_text(path.read_text(encoding="utf-8").replace("Question", "Etimoneq"), encoding="utf-8")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        elif change == "cut":
            path.write_bytes(path.read_bytes()[:40])
        elif change == "gone":
            path.unlink()
        else:
            os.replace(write(tmp_path / "other.jsonl", 3), path)

    while_reading(monkeypatch, act)
    with pytest.raises((DataError, FileNotFoundError)) as caught:
        prepared()
    assert str(path) in str(caught.value)
    if change != "gone":
        assert "changed while it was read" in str(caught.value)


def test_b17_a_file_that_comes_into_a_folder_is_refused(
    prepared: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "folder" / "one.jsonl", 5)
    while_reading(monkeypatch, lambda: write(tmp_path / "folder" / "two.jsonl", 2) and None)
    with pytest.raises(DataError, match="changed while it was read") as caught:
        prepared(data={"train": [str(tmp_path / "folder")]})
    assert caught.value.where == str(tmp_path / "folder" / "two.jsonl")


def test_b17_a_general_set_that_changes_is_refused(
    prepared: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "rows.jsonl", 3)
    path = tmp_path / "general.jsonl"
    path.write_text('{"prompt": "a", "checks": [{"kind": "plain_text"}]}\n', encoding="utf-8")
    read = dataset_module.read_general

    def changing(name: str, *more: Any) -> Any:
        path.write_text(path.read_text(encoding="utf-8") * 2, encoding="utf-8")
        return read(name, *more)

    monkeypatch.setattr(dataset_module, "read_general", changing)
    with pytest.raises(DataError, match="changed while it was read"):
        prepared(evaluate={"general": [str(path)]})


def test_b15_a_full_run_folder_blames_the_ledger(
    prepared: Callable[..., Prepared], tmp_path: Path, files_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    rows = write(tmp_path / "rows.jsonl", 5)
    with rows.open("a", encoding="utf-8") as stream:
        stream.write("{}\n" * 200)
    for prepared_before in (False, True):
        with files_at_most(3000), pytest.raises(SaveError, match="ledger of dropped and changed rows") as caught:
            prepared(cache=prepared_before)
        assert caught.value.where == str(tmp_path / "run" / "ledger.jsonl")
        assert "TUTELAGE_CACHE" not in str(caught.value.fix)
        (tmp_path / "run" / "ledger.jsonl").unlink()
        prepared()  # the next time rows come from the cache


@pytest.mark.parametrize(("cache", "variable"), [(True, "TUTELAGE_CACHE"), (False, "TMPDIR")])
def test_b15_a_full_cache_blames_the_cache(
    prepared: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: bool, variable: str
) -> None:
    write(tmp_path / "rows.jsonl", 5)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(prepared_cache_module.StoreWriter, "finish", full)
    with pytest.raises(SaveError, match="Prepared data cannot be written") as caught:
        prepared(cache=cache)
    assert f"{variable}=FOLDER" in str(caught.value.fix)
    assert str(tmp_path / "cache") == caught.value.where or not cache


@pytest.mark.parametrize("where", ["hash", "rows"])
def test_b15_a_data_file_that_cannot_be_read_is_named(
    prepared: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    rows = write(tmp_path / "rows.jsonl", 5)
    if where == "hash":
        target, opened = Path, Path.open

        def refused(path: Path, *given: Any, **named: Any) -> Any:
            if path == rows:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return opened(path, *given, **named)

        monkeypatch.setattr(target, "open", refused)
    else:

        def broken() -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(rows))

        while_reading(monkeypatch, broken)
    with pytest.raises(DataError, match=r"c(an|ould ?)not be read") as caught:
        prepared()
    assert caught.value.where == str(rows)


def test_b15_a_cache_that_may_only_be_read_serves_what_it_holds(
    prepared: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "rows.jsonl", 5)
    prepared()

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("utime", "rename"):
        monkeypatch.setattr(os, name, refused)
    monkeypatch.setattr(prepared_cache_module.tempfile, "mkdtemp", refused)
    assert len(prepared().train) == 5
    next((tmp_path / "cache").glob("*/store.json")).write_text("damaged", encoding="utf-8")
    with pytest.raises(SaveError, match="Prepared data cannot be written"):
        prepared()


def test_b15_a_reason_that_no_utf8_can_spell_is_written_as_its_escape(tmp_path: Path) -> None:
    ledger = Ledger(path=tmp_path / "ledger.jsonl")
    ledger.drop(Drop(Address("rows.jsonl", 1), "unknown_role", "the role '\ud800'"))
    (entry,) = (tmp_path / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(entry)["detail"] == "the role '\ud800'"


@pytest.mark.parametrize("section", ["validation", "task"])
def test_r19_a_measure_of_which_no_row_is_left_is_refused(
    prepared: Callable[..., Prepared], tmp_path: Path, section: str
) -> None:
    write(tmp_path / "rows.jsonl", 5)
    long = write(tmp_path / "long.jsonl", 2, "long " * 400)
    sections = {"data": {"validation": [str(long)]}} if section == "validation" else {"evaluate": {"task": [str(long)]}}
    with pytest.raises(DataError, match=r"Nothing is left to (measure held-out loss on|ask of the task)") as caught:
        prepared(pack={"max_seq_length": 256}, **sections)
    assert caught.value.where == str(long)
    assert caught.value.found == "2 rows dropped: too_long"
    with pytest.raises(DataError, match="Nothing is left"):  # from the cache as well
        prepared(pack={"max_seq_length": 256}, **sections)


def test_r19_a_source_of_which_no_row_is_left_beside_others_is_named(
    prepared: Callable[..., Prepared], tmp_path: Path
) -> None:
    rows = write(tmp_path / "rows.jsonl", 5)
    long = write(tmp_path / "long.jsonl", 2, "long " * 400)
    for _ in range(2):  # the second time from the cache
        made = prepared(pack={"max_seq_length": 256}, data={"validation": [str(rows), str(long)]})
        assert made.ledger.notes == [f"No row of {long} is left to measure held-out loss on"]
        assert len(made.validation) == 5


def test_r19_a_share_of_a_single_row_is_refused(prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", 1)
    with pytest.raises(DataError, match="No row can be held out") as caught:
        prepared(data={"validation_ratio": 0.1}, train={"early_stopping_patience": 2})
    assert caught.value.where == "data.validation_ratio"
    assert len(prepared().train) == 1


def test_r19_the_run_ends_before_its_model_is_loaded(
    train_tiny: TrainTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = write(tmp_path / "long.jsonl", 1, "long " * 400)
    with pytest.raises(DataError, match="Nothing is left to measure"):
        train_tiny(*QUICK, f'data.validation=["{long}"]', "train.early_stopping_patience=2")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_b16_a_refused_resume_changes_nothing(
    train_tiny: TrainTiny, stop_after: Callable[[int | None], None], quiet_screen: Screen, tmp_path: Path
) -> None:
    stop_after(1)
    train_tiny(*QUICK)
    data = tmp_path / "home" / "train.jsonl"
    for rows in (data.read_text(encoding="utf-8"), data.read_text(encoding="utf-8") + "{}\n"):
        data.write_text(rows, encoding="utf-8")
        stopped = train_tiny(*QUICK).folder  # with drops of its own, or without
        (stopped / ".record.jsonl").write_text("what a killed process left", encoding="utf-8")
        before = contents(stopped)
        data.write_text(rows + "{}\n{}\n", encoding="utf-8")
        with pytest.raises(CheckpointError, match="not the one this run began with"):
            run(config.load(stopped / "settings.toml"), quiet_screen, resume=True)
        assert contents(stopped) == before
        data.write_text(rows, encoding="utf-8")
        stop_after(None)
        assert run(config.load(stopped / "settings.toml"), quiet_screen, resume=True).ended == "finished"
        assert (stopped / "ledger.jsonl").exists() == rows.endswith("{}\n")
        assert not (stopped / ".record.jsonl").exists()
        stop_after(1)


def test_each_source_is_found_once_and_once_more_when_it_was_read(
    prepared: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = [str(write(tmp_path / f"{name}.jsonl", 5)) for name in ("rows", "more", "held", "task")]
    sought: list[str] = []
    hashed: list[str] = []
    find, sha256 = data_files.find_files, data_files.file_sha256

    def finding(sources: Sequence[str], note: Callable[[str], None]) -> list[SourceFile]:
        sought.extend(sources)
        return find(sources, note)

    def hashing(path: Path) -> str:
        hashed.append(str(path))
        return sha256(path)

    monkeypatch.setattr(data_files, "find_files", finding)
    monkeypatch.setattr(formats, "find_files", finding)
    monkeypatch.setattr(data_files, "file_sha256", hashing)
    made = prepared(
        data={"train": paths[:2], "validation": [paths[2]], "weights": {paths[1]: 2.0}}, evaluate={"task": [paths[3]]}
    )
    assert sorted(sought) == sorted(2 * paths)
    assert sorted(hashed) == sorted(2 * paths)
    assert [source.weight for source in made.sources] == [1.0, 2.0]

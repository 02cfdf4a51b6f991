"""Prepared data is found by its content alone, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.chunks import chunk_of, row_of
from tutelage.errors import DataError, SaveError
from tutelage.ledger import Ledger
from tutelage.pack import Cache
from tutelage.pack.example_store import EXAMPLES, SUMMARY, SYSTEMS
from tutelage.pack.prepared_cache import COUNTS, LEDGER, SCRATCH_PREFIX, EntryWriter, key_of, renderer_facts
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.types import Address, Change, Drop, Example, Turn

KEY = "0" * 32
ENTRIES = [
    Drop(Address("f.jsonl", 3), "bad_json", "a “detail”\n\ud83d"),
    Change(Address("f.csv", 4, "row"), "split", "two"),
    Drop(Address("f.json", 0, "item"), "too_long", "9 tokens"),
]


def example(number: int) -> Example:
    ids = np.arange(8, dtype=np.int32)
    return Example(Address("f.jsonl", number), 0, ids, np.ones(8, dtype=np.float32), (Turn(1, 3, 8),))


def written(cache: Cache, *, rows: int = 5, notes: tuple[str, ...] = ("a note",)) -> EntryWriter:
    """A finished entry that has no name yet."""
    writer = EntryWriter(cache.folder, vocabulary_size=100)
    writer.append(chunk_of([row_of([example(number)], "be brief") for number in range(rows)], vocabulary_size=100))
    for entry in ENTRIES:
        writer.record(entry)
    writer.finish(Ledger(rows_in=rows + 2, rows_kept=rows, notes=list(notes)))
    return writer


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_there_is_nothing_in_a_new_cache(cache: Cache) -> None:
    assert cache.find(KEY) is None
    assert not cache.folder.exists()


def test_what_was_published_is_found(cache: Cache) -> None:
    cache.publish(written(cache), KEY)
    entry = cache.find(KEY)
    assert entry is not None
    assert [one.address.number for one in entry.store] == list(range(5))
    assert cache.find("1" * 32) is None


def test_the_books_are_told_again_in_their_order(cache: Cache) -> None:
    cache.publish(written(cache), KEY)
    heard: list[Drop | Change] = []
    ledger = Ledger(listener=heard.append)
    entry = cache.find(KEY)
    assert entry is not None
    entry.replay_into(ledger)
    assert heard == ENTRIES
    assert (ledger.rows_in, ledger.rows_kept, ledger.notes) == (7, 5, ["a note"])
    ledger.check()


def test_a_strict_ledger_refuses_what_it_would_have_refused_before(cache: Cache) -> None:
    cache.publish(written(cache), KEY)
    entry = cache.find(KEY)
    assert entry is not None
    with pytest.raises(DataError, match=r"f\.jsonl:3"):
        entry.replay_into(Ledger(strict=True))


def test_nothing_is_found_before_it_is_published_or_after_it_is_abandoned(cache: Cache) -> None:
    writer = written(cache)
    assert cache.find(KEY) is None
    writer.abandon()
    assert list(cache.folder.iterdir()) == []


@pytest.mark.parametrize("name", [EXAMPLES, SYSTEMS, SUMMARY, LEDGER, COUNTS])
@pytest.mark.parametrize("damage", ["cut", "altered", "gone"])
def test_a_damaged_entry_is_not_found_and_makes_room_for_a_new_one(cache: Cache, name: str, damage: str) -> None:
    folder = cache.publish(written(cache), KEY)
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-2])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert cache.find(KEY) is None
    cache.publish(written(cache), KEY)
    assert cache.find(KEY) is not None


def test_of_two_writers_the_first_one_stands_and_nothing_is_left_of_the_other(cache: Cache) -> None:
    first, second = written(cache, rows=2), written(cache, rows=3)
    assert cache.publish(first, KEY) == cache.publish(second, KEY)
    entry = cache.find(KEY)
    assert entry is not None
    assert len(entry.store) == 2
    assert [path.name for path in cache.folder.iterdir()] == [KEY]


WRITER = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.pack.test_prepared_cache import KEY, Cache, written
cache = Cache(Path(sys.argv[1]))
for _ in range(20):
    cache.publish(written(cache), KEY)
    entry = cache.find(KEY)
    assert entry is None or len(list(entry.store)) == 5
    if entry is None or len(sys.argv) > 3:
        (cache.folder / KEY / "examples.arrow").unlink(missing_ok=True)
"""


def test_processes_that_write_read_and_damage_one_entry_never_meet_half_of_it(tmp_path: Path) -> None:
    here = str(ROOT)
    command = [sys.executable, "-c", WRITER, str(tmp_path), here]
    running = [subprocess.Popen([*command, *more], stderr=subprocess.PIPE, text=True) for more in ((), (), ("damage",))]
    said = [one.communicate(timeout=120)[1] for one in running]
    assert said == ["", "", ""]
    assert {path.name for path in tmp_path.iterdir()} <= {KEY}


@pytest.mark.parametrize("said", [errno.ENOTEMPTY, errno.EEXIST])
def test_a_name_that_is_free_again_is_taken(cache: Cache, monkeypatch: pytest.MonkeyPatch, said: int) -> None:
    """Another process was first, and a third one found its entry damaged and deleted it."""
    rename, refusals = Path.rename, [OSError(said, os.strerror(said))]

    def refused_once(path: Path, target: Path) -> Path:
        if refusals:
            raise refusals.pop()
        return rename(path, target)

    writer = written(cache)
    monkeypatch.setattr(Path, "rename", refused_once)
    cache.publish(writer, KEY)

    assert refusals == []
    assert cache.find(KEY) is not None
    assert {path.name for path in cache.folder.iterdir()} == {KEY}


def test_a_disk_that_refuses_a_name_says_so(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_path: Path, _target: Path) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    writer = written(cache)
    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(SaveError, match="Prepared data cannot be written"):
        cache.publish(writer, KEY)


def test_the_least_recently_used_entries_go_when_there_are_too_many_bytes(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    size = sum(path.stat().st_size for path in cache.publish(written(cache), "a").iterdir())
    cache.publish(written(cache), "b")
    for name, age in (("a", 10), ("b", 20)):
        os.utime(tmp_path / name / SUMMARY, (time.time() - age,) * 2)
    small = Cache(tmp_path, most_bytes=int(size * 2.5))
    small.publish(written(small), "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]
    assert small.find("a") is not None


def test_the_newest_entry_stays_however_large(tmp_path: Path) -> None:
    cache = Cache(tmp_path, most_bytes=1)
    cache.publish(written(cache), "a")
    cache.publish(written(cache), "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_use_counts_as_recent(cache: Cache) -> None:
    folder = cache.publish(written(cache), KEY)
    os.utime(folder / SUMMARY, (1.0, 1.0))
    cache.find(KEY)
    assert (folder / SUMMARY).stat().st_mtime > time.time() - 60


def test_what_an_ended_process_left_goes_after_a_day(cache: Cache) -> None:
    left, fresh = written(cache).folder, written(cache).folder
    os.utime(left, (time.time() - 2 * 24 * 3600,) * 2)
    cache.publish(written(cache), KEY)
    assert {path.name for path in cache.folder.iterdir()} == {KEY, fresh.name}
    assert fresh.name.startswith(SCRATCH_PREFIX)


def test_others_may_read_an_entry(cache: Cache) -> None:
    assert cache.publish(written(cache), KEY).stat().st_mode & 0o055 == 0o055


@pytest.fixture(scope="module")
def renderer(tiny_tokenizer_folder: Path) -> Renderer:
    tokenizer = Tokenizer.load(tiny_tokenizer_folder)
    assert tokenizer.template is not None
    return Renderer(tokenizer, ChatTemplate(tokenizer.template, named_tokens=tokenizer.named_tokens))


def template_with(renderer: Renderer, **options: Any) -> Renderer:
    given = {"source": renderer.template.source, "named_tokens": renderer.tokenizer.named_tokens} | options
    return replace(renderer, template=ChatTemplate(given.pop("source"), **given))


def with_another_token(renderer: Renderer, folder: Path) -> Renderer:
    copy = Path(shutil.copytree(renderer.tokenizer.folder, folder / "copy"))
    tokenizer = Tokenizer.load(copy)
    tokenizer.fast.add_tokens(["another"])
    return replace(renderer, tokenizer=tokenizer)


CHANGES: dict[str, Callable[[Renderer, Path], Renderer]] = {
    "template": lambda one, _: template_with(one, source=one.template.source + " "),
    "template for tools": lambda one, _: template_with(one, tools_source=one.template.source),
    "template argument": lambda one, _: template_with(one, arguments={"enable_thinking": False}),
    "argument that is a day": lambda one, _: template_with(one, arguments={"today": date(2026, 1, 2)}),
    "day": lambda one, _: template_with(one, date=date(2026, 1, 2)),
    "tokenizer": with_another_token,
    "stop tokens": lambda one, _: replace(one, tokenizer=replace(one.tokenizer, stop_ids=frozenset({1, 2}))),
    "vocabulary": lambda one, _: replace(one, tokenizer=replace(one.tokenizer, vocabulary_size=9999)),
    "named tokens": lambda one, _: replace(one, tokenizer=replace(one.tokenizer, named_tokens={"eos_token": "x"})),
    "train_on": lambda one, _: replace(one, train_on="all"),
    "turns": lambda one, _: replace(one, turns="last"),
    "control_tokens": lambda one, _: replace(one, control_tokens="keep"),
    "missing_stop": lambda one, _: replace(one, missing_stop="drop"),
    "reasoning_field": lambda one, _: replace(one, reasoning_field="thinking"),
    "empty_reasoning": lambda one, _: replace(one, empty_reasoning="close"),
    "closed_reasoning": lambda one, _: replace(one, closed_reasoning="open"),
    "most_tokens": lambda one, _: replace(one, most_tokens=512),
    "too_long": lambda one, _: replace(one, too_long="cut"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_decides_what_a_row_becomes_is_in_the_key(renderer: Renderer, tmp_path: Path, name: str) -> None:
    changed = CHANGES[name](renderer, tmp_path)
    assert key_of(renderer_facts(changed)) != key_of(renderer_facts(renderer))


def test_every_policy_of_the_renderer_is_among_these_changes(renderer: Renderer) -> None:
    assert set(renderer_facts(renderer)["policies"]) <= set(CHANGES)


def test_the_key_of_equal_facts_is_equal_in_every_process(renderer: Renderer) -> None:
    again = replace(renderer, tokenizer=Tokenizer.load(renderer.tokenizer.folder))
    again.prove([])
    assert key_of(renderer_facts(again)) == key_of(renderer_facts(renderer))
    command = "from tutelage.pack.prepared_cache import key_of; print(key_of({'a': frozenset('xyz'), 'b': [1, None]}))"
    keys = {
        subprocess.run(
            [sys.executable, "-c", command],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert keys == {key_of({"b": [1, None], "a": frozenset("xyz")}) + "\n"}


def test_a_fact_without_a_spelling_is_refused_rather_than_left_out() -> None:
    with pytest.raises(TypeError, match="object"):
        key_of({"fact": object()})

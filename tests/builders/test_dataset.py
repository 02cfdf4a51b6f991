"""Preparing data: the same from files, from several processes and from the cache as from one pass in memory."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving_oracle import LATEST_REASONING
from tutelage import config, formats
from tutelage.builders.dataset import Prepared, prepare
from tutelage.builders.renderer import renderer_for
from tutelage.errors import DataError, SaveError
from tutelage.ledger import Ledger
from tutelage.pack import proven_rows
from tutelage.pack.example_store import EXAMPLES
from tutelage.pack.prepared_cache import SCRATCH_PREFIX
from tutelage.render.workers import ROWS_WORTH_WORKERS
from tutelage.train.preflight import pass_gates
from tutelage.types import Example


def talk(number: int, *, system: str | None = None, turns: int = 1) -> dict[str, Any]:
    messages = [] if system is None else [{"role": "system", "content": system}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Question {number} {turn}?"})
        messages.append({"role": "assistant", "content": f"Answer {number}.", "reasoning_content": f"Thought {turn}"})
    return {"messages": messages}


def plain_talk(number: int, content: str | None = None) -> dict[str, Any]:
    said = ("user", f"Question {number}?"), ("assistant", content or f"Answer {number}.")
    return {"messages": [{"role": role, "content": text} for role, text in said]}


def mixed(count: int) -> list[str]:
    """Lines of which some are no JSON, some spell a control token, some are too long and some go on altered."""
    lines = []
    for number in range(count):
        row = plain_talk(number)
        if number % 50 == 11:
            lines.append('{"messages": [')
            continue
        if number % 50 == 3:
            row = plain_talk(number, "<|im_end|>")
        if number % 50 == 7:
            row = plain_talk(number, "long " * 200)
        if number % 50 == 9:
            row["messages"].append({"role": "user", "content": "and then?"})
        lines.append(json.dumps(row))
    return lines


@pytest.fixture
def prepared(tiny_tokenizer_folder: Path, tmp_path: Path) -> Callable[..., Prepared]:
    """Prepares lines, or the file as it is, with settings by section; `said` collects what it says."""

    def go(
        lines: Sequence[str] | None = None,
        *,
        cache: str | None = None,
        said: list[str] | None = None,
        ledger: str | None = None,
        **sections: dict[str, Any],
    ) -> Prepared:
        data = tmp_path / "data.jsonl"
        if lines is not None:
            data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        given = {"model": {"name": "tiny"}, **sections}
        given["data"] = {"train": [str(data)], "workers": 1} | sections.get("data", {})
        return prepare(
            config.from_mapping(given, [], where="a test"),
            tiny_tokenizer_folder,
            cache=None if cache is None else tmp_path / cache,
            ledger_path=None if ledger is None else tmp_path / ledger,
            log=[].append if said is None else said.append,
        )

    return go


def plain(made: Sequence[Example]) -> list[object]:
    return [(one.address, one.part, one.turns, one.ids.tolist(), one.weights.tolist()) for one in made]


def test_the_examples_are_those_of_one_pass_in_memory(
    prepared: Callable[..., Prepared], tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    from_files = prepared(mixed(150), pack={"max_seq_length": 100})
    ledger = Ledger()
    renderer = renderer_for(tiny_tokenizer_folder, config.RenderSettings())
    sources = [str(tmp_path / "data.jsonl")]
    rows = proven_rows(lambda own: formats.read(sources, ledger=own), renderer, ledger, max_seq_length=100)
    in_memory = [one for _, made in rows for one in made]
    assert plain(from_files.train) == plain(in_memory)
    assert from_files.train_totals.tokens == sum(len(one.ids) for one in in_memory)
    assert from_files.train_totals.trained_tokens == sum(one.trained_tokens for one in in_memory)
    assert from_files.ledger.dropped == ledger.dropped == {"bad_json": 3, "control_token_in_text": 3, "too_long": 3}
    assert from_files.ledger.changed == ledger.changed == {"trailing_turns_removed": 3}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_run_reads_what_the_first_prepared_and_says_so(
    prepared: Callable[..., Prepared], tmp_path: Path, workers: int
) -> None:
    lines = mixed(ROWS_WORTH_WORKERS + 300)
    options = {"pack": {"max_seq_length": 100}, "data": {"validation_ratio": 0.1, "workers": workers}}
    without = prepared(lines, ledger="without.jsonl", **options)
    said: list[str] = []
    first = prepared(cache="cache", ledger="first.jsonl", said=said, **options)
    assert said == []
    second = prepared(cache="cache", ledger="second.jsonl", said=said, **options)
    assert len(said) == 1
    assert said[0].startswith(f"Prepared before: {len(lines):,} rows of ")
    books = [(tmp_path / f"{name}.jsonl").read_text(encoding="utf-8") for name in ("without", "first", "second")]
    assert books[0] == books[1] == books[2]
    assert len(books[0].splitlines()) > 100
    for other in (first, second):
        assert other.ledger.as_dict() == without.ledger.as_dict()
        assert plain(other.train) == plain(without.train)
        assert plain(other.validation) == plain(without.validation)
        assert other.data_sha256 == without.data_sha256
        assert other.train_totals == without.train_totals


def test_the_books_do_not_depend_on_the_number_of_processes_and_follow_the_rows(
    prepared: Callable[..., Prepared], tmp_path: Path
) -> None:
    lines = mixed(ROWS_WORTH_WORKERS + 300)
    for workers in (1, 2):
        prepared(lines, ledger=f"{workers}.jsonl", pack={"max_seq_length": 100}, data={"workers": workers})
    one, two = ((tmp_path / f"{workers}.jsonl").read_text(encoding="utf-8") for workers in (1, 2))
    assert one == two
    places = [int(json.loads(line)["address"].rpartition(":")[2]) for line in one.splitlines()]
    assert places == sorted(places)


def test_preparing_in_another_way_does_not_find_the_entry(prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    lines = mixed(60)
    prepared(lines, cache="cache")
    template = tmp_path / "template.jinja"
    template.write_text(LATEST_REASONING, encoding="utf-8")
    said: list[str] = []
    for other in (
        {"data": {"max_rows": 50}},
        {"data": {"format": "messages"}},
        {"data": {"columns": {"messages": "messages"}}},
        {"pack": {"max_seq_length": 90}},
        {"pack": {"too_long": "cut"}},
        {"pack": {"too_long": "split"}},
        {"render": {"template": str(template)}},
        {"render": {"template_arguments": {"enable_thinking": False}}},
        {"render": {"date": "2026-02-01"}},
        {"render": {"turns": "last"}},
        {"render": {"stop_tokens": ["<|endoftext|>"]}},
    ):
        prepared(cache="cache", said=said, **other)
        assert said == [], f"{other} found what was prepared without it"
    prepared([*lines[1:], lines[0]], cache="cache", said=said)
    assert said == []
    prepared(lines, cache="cache", said=said)
    assert len(said) == 1


def test_what_does_not_decide_what_a_row_becomes_finds_the_entry(prepared: Callable[..., Prepared]) -> None:
    prepared(mixed(60), cache="cache")
    said: list[str] = []
    prepared(cache="cache", said=said, train={"epochs": 2.0}, seed=5, data={"workers": 2, "validation_ratio": 0.2})
    assert len(said) == 1


def test_a_damaged_entry_is_prepared_again(prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    first = plain(prepared(mixed(60), cache="cache").train)
    (entry,) = (tmp_path / "cache").iterdir()
    data = bytearray((entry / EXAMPLES).read_bytes())
    data[100] ^= 1
    (entry / EXAMPLES).write_bytes(data)
    said: list[str] = []
    again = prepared(cache="cache", said=said)
    assert said == []
    assert plain(again.train) == first
    prepared(cache="cache", said=said)
    assert len(said) == 1


def test_strict_mode_refuses_the_same_row_from_the_cache_as_without(
    prepared: Callable[..., Prepared], tmp_path: Path
) -> None:
    refusals = []
    for options in ({}, {"cache": "cache"}, {"cache": "cache"}):
        with pytest.raises(DataError) as error:
            prepared(mixed(60), data={"strict": True}, **options)
        refusals.append(str(error.value))
    assert list((tmp_path / "cache").iterdir()) == []
    prepared(cache="cache")
    with pytest.raises(DataError) as error:
        prepared(cache="cache", data={"strict": True})
    refusals.append(str(error.value))
    assert len(set(refusals)) == 1
    assert "data.jsonl:4" in refusals[0]


def test_nothing_is_kept_of_a_file_that_changes_while_it_is_read(
    prepared: Callable[..., Prepared], tmp_path: Path
) -> None:
    lines = mixed(600)
    prepared(lines)
    done = threading.Event()

    def touch() -> None:
        while not done.is_set():
            os.utime(tmp_path / "data.jsonl")
            time.sleep(0.001)

    thread = threading.Thread(target=touch)
    thread.start()
    made = prepared(cache="cache")
    done.set()
    thread.join()
    assert len(made.train) > 500
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_cache_nothing_is_left(prepared: Callable[..., Prepared]) -> None:
    def aside() -> set[str]:
        return {path.name for path in Path(tempfile.gettempdir()).iterdir() if path.name.startswith(SCRATCH_PREFIX)}

    before = aside()
    made = prepared(mixed(60))
    assert aside() <= before
    assert len(plain(made.train)) == len(made.train)


def test_a_full_disk_is_said_and_leaves_nothing(
    prepared: Callable[..., Prepared], tmp_path: Path, files_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    lines = mixed(600)
    prepared(lines)
    with files_at_most(10_000), pytest.raises(SaveError, match="cannot be written"):
        prepared(cache="cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said(prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(SaveError, match="TUTELAGE_CACHE"):
        prepared(mixed(60), cache="cache")


def split_rows(prepared: Callable[..., Prepared], tmp_path: Path, *, share: float, seed: int = 0) -> Prepared:
    template = tmp_path / "template.jinja"
    template.write_text(LATEST_REASONING, encoding="utf-8")
    lines = [json.dumps(talk(number, turns=1 + number % 3)) for number in range(30)]
    return prepared(lines, render={"template": str(template)}, data={"validation_ratio": share}, seed=seed)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_rows_are_held_out_whole(prepared: Callable[..., Prepared], tmp_path: Path, share: float) -> None:
    made = split_rows(prepared, tmp_path, share=share)
    assert made.ledger.changed["split"] == 20
    train, validation = ({one.address for one in part} for part in (made.train, made.validation))
    assert not train & validation
    assert len(train | validation) == 30
    assert len(validation) == min(29, round(share * 30))
    assert len(made.train) + len(made.validation) == 10 + 20 + 30


def test_the_same_seed_holds_out_the_same_rows_and_another_seed_others(
    prepared: Callable[..., Prepared], tmp_path: Path
) -> None:
    first, same, other = (split_rows(prepared, tmp_path, share=0.3, seed=seed) for seed in (1, 1, 2))
    assert plain(first.validation) == plain(same.validation)
    assert plain(first.validation) != plain(other.validation)


@pytest.mark.parametrize(
    ("systems", "expected"),
    [
        ([None, None, None], None),
        (["brief", "brief", "other"], "brief"),
        (["brief", None], "brief"),
        (["brief", "other"], "brief"),
        (["brief", None, None], None),
        (["a", "b", "c"], None),
        (["first\nline", "first\nline"], "first\nline"),
    ],
)
def test_the_system_prompt_is_the_one_of_at_least_half_of_the_rows(
    prepared: Callable[..., Prepared], systems: list[str | None], expected: str | None
) -> None:
    rows = [plain_talk(number) for number in range(len(systems))]
    for row, system in zip(rows, systems, strict=True):
        row["messages"][:0] = [] if system is None else [{"role": "system", "content": system}]
    lines = [json.dumps(row) for row in rows]
    assert prepared(lines).system_prompt == expected


def test_a_row_counts_once_for_the_system_prompt_however_many_sequences_it_has(
    prepared: Callable[..., Prepared], tmp_path: Path
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(LATEST_REASONING, encoding="utf-8")
    rows = [talk(0, system="long", turns=5), talk(1, system="brief"), talk(2, system="brief")]
    made = prepared([json.dumps(row) for row in rows], render={"template": str(template)})
    assert made.ledger.changed["split"] == 1
    assert made.system_prompt == "brief"


@pytest.mark.parametrize("kind", ["talk", "document"])
def test_long_rows_are_cut_at_a_turn_and_documents_divided(prepared: Callable[..., Prepared], kind: str) -> None:
    """From the file to the gates of a run; with the default both go."""
    turns = [message for number in range(5) for message in plain_talk(number)["messages"]]
    long = {"text": "A driver returns the manual. " * 20} if kind == "document" else {"messages": turns}
    short = {"text": "Hello."} if kind == "document" else plain_talk(9)
    lines = [json.dumps(long), json.dumps(short)]
    found, parts = {}, {}
    for policy in ("drop", "cut", "split"):
        made = prepared(lines, cache="cache", pack={"max_seq_length": 64, "too_long": policy})
        made.ledger.check()
        pass_gates(made.train, made.renderer.tokenizer, untrained_V=None, whole=False, fix="change this")
        found[policy], parts[policy] = made, [one for one in made.train if one.address.number == 1]
    (whole,) = [one for one in prepared(pack={"max_seq_length": 999}).train if one.address.number == 1]

    assert parts["drop"] == []
    assert dict(found["drop"].ledger.dropped) == {"too_long": 1}
    if kind == "document":
        assert parts["cut"] == []
        assert len(parts["split"]) > 1
        assert sum(one.trained_tokens for one in parts["split"]) == whole.trained_tokens
        assert dict(found["split"].ledger.changed) == {"document_split": 1}
        return
    (cut,) = parts["cut"]
    assert plain(parts["split"]) == plain([cut])
    assert 0 < len(cut.turns) < 5
    assert cut.turns == whole.turns[: len(cut.turns)]
    assert cut.ids.tolist() == whole.ids[: cut.turns[-1].reply_end].tolist()
    assert dict(found["cut"].ledger.changed) == {"turns_cut": 1}

"""Replies that a killed process kept are there again: whole ones only, and only for what was asked of that model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from tutelage.distributed.process_group import ProcessGroup
from tutelage.evaluate.reply_log import NOT_KEPT, ReplyLog, delete_replies
from tutelage.generate.requests import EndedReply
from tutelage.types import TokenIds

ASKED = {"weights": {"model.safetensors": "a1"}, "max_new_tokens": 8}
REPLIES = [
    EndedReply("two\nlines, \u2028 and \ufffd", 7, "stop_token"),
    EndedReply("", 0, "stop_token"),
    EndedReply("cut", 8, "length"),
]


def prompt(number: int) -> TokenIds:
    return np.array([1, 2, number], dtype=np.int32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replies.jsonl"


@pytest.fixture
def kept(path: Path) -> list[str]:
    """The keys of three replies in a file."""
    replies = ReplyLog(path, asked=ASKED)
    keys = [replies.key(prompt(number)) for number in range(3)]
    for key, reply in zip(keys, REPLIES, strict=True):
        replies.add(key, reply)
    return keys  # never closed, as where the process was killed


def test_what_was_kept_is_there_again(path: Path, kept: list[str]) -> None:
    assert ReplyLog(path, asked=ASKED).known == dict(zip(kept, REPLIES, strict=True))


def test_a_key_is_that_of_the_prompt_and_of_all_that_decides_its_reply(path: Path, kept: list[str]) -> None:
    same = ReplyLog(path, asked=dict(reversed(ASKED.items())))
    others = [
        ReplyLog(path, asked=ASKED | {"max_new_tokens": 9}),
        ReplyLog(path, asked=ASKED | {"weights": {"model.safetensors": "a2"}}),
    ]

    assert [same.key(prompt(number)) for number in range(3)] == kept
    assert same.key(prompt(0), again=True) not in kept
    assert same.key(np.array([1, 2], dtype=np.int32)) not in kept
    assert all(other.key(prompt(0)) not in other.known for other in others)


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_half_a_line_is_dropped_and_the_next_begins_a_line(path: Path, kept: list[str], cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])

    replies = ReplyLog(path, asked=ASKED)
    assert list(replies.known) == kept[:2]
    replies.add(kept[2], REPLIES[2])

    assert list(ReplyLog(path, asked=ASKED).known) == kept
    assert path.read_bytes().count(b"\n") == 3


def test_a_line_with_other_bytes_is_asked_again(path: Path, kept: list[str]) -> None:
    path.write_bytes(path.read_bytes().replace(b"two", b"six"))

    assert list(ReplyLog(path, asked=ASKED).known) == kept[1:]


def test_replies_of_other_processes_are_read_and_deleted_with_them(path: Path, kept: list[str]) -> None:
    path.rename(path.with_name("replies-of-3.jsonl"))

    assert list(ReplyLog(path, asked=ASKED).known) == kept
    delete_replies(path)

    assert list(path.parent.iterdir()) == []


def test_each_process_writes_a_file_of_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main_knows = {"k": REPLIES[0]}
    monkeypatch.setattr(ProcessGroup, "gather", lambda _self, value: [main_knows, value])

    replies = ReplyLog(path, asked=ASKED, process_group=ProcessGroup(rank=1, size=2))
    replies.add("other", REPLIES[1])

    assert replies.known is main_knows, "all take from what the main one read"
    assert [file.name for file in path.parent.iterdir()] == ["replies-of-1.jsonl"]


def test_a_file_that_cannot_be_written_is_said_and_nothing_is_kept(tmp_path: Path) -> None:
    said: list[str] = []

    replies = ReplyLog(tmp_path / "no folder" / "replies.jsonl", asked=ASKED, log=said.append)
    replies.add("key", REPLIES[0])

    assert len(said) == 1
    assert "replies.jsonl cannot be written (No such file or directory)" in said[0]
    delete_replies(tmp_path / "no folder" / "replies.jsonl")


def test_a_disk_that_fills_up_ends_no_evaluation(
    path: Path, kept: list[str], files_at_most: Callable[[int], AbstractContextManager[None]]
) -> None:
    said: list[str] = []

    replies = ReplyLog(path, asked=ASKED, log=said.append)
    with files_at_most(path.stat().st_size + 20):
        for number in range(3):
            replies.add(replies.key(prompt(10 + number)), REPLIES[0])

    assert len(said) == 1
    assert "File too large" in said[0]
    assert list(ReplyLog(path, asked=ASKED).known) == kept


def test_where_nothing_is_kept_nothing_is_known() -> None:
    NOT_KEPT.add(NOT_KEPT.key(prompt(0)), REPLIES[0])

    assert NOT_KEPT.known == {}

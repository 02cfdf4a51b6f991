"""Steps for tests of the pipeline: one of each kind of answer. Workers import them from here."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from msgspec.structs import replace

from tutelage.curate.step import Decisions, Edited, Outcome, Split
from tutelage.curate.store import Rows
from tutelage.curate.texts import prompt_text, reply_text
from tutelage.types import Change, Conversation, Drop


@dataclass(frozen=True)
class DropShort:
    """Drops replies of fewer letters than `letters`."""

    letters: int = 3
    name: str = "short"

    def __call__(self, conversation: Conversation) -> Outcome:
        text = reply_text(conversation)
        if len(text) < self.letters:
            return Drop(conversation.address, "too_short", text)
        return conversation


@dataclass(frozen=True)
class Tidy:
    """Takes white space off replies."""

    name: str = "tidy"

    def __call__(self, conversation: Conversation) -> Outcome:
        *before, last = conversation.messages
        text = (last.content or "").strip()
        if text == last.content:
            return conversation
        change = Change(conversation.address, "white_space", f"{last.content!r} -> {text!r}")
        return Edited(replace(conversation, messages=(*before, replace(last, content=text))), (change,))


@dataclass(frozen=True)
class Halve:
    """Makes two rows of each with four turns."""

    name: str = "halve"

    def __call__(self, conversation: Conversation) -> Outcome:
        turns = conversation.messages
        if len(turns) != 4:
            return conversation
        change = Change(conversation.address, "halved", "4 turns -> 2 and 2")
        return Split((replace(conversation, messages=turns[:2]), replace(conversation, messages=turns[2:])), (change,))


@dataclass(frozen=True)
class Break:
    """Breaks on prompts that hold the word."""

    word: str = "break"
    name: str = "fragile"

    def __call__(self, conversation: Conversation) -> Outcome:
        if self.word in prompt_text(conversation):
            raise KeyError(self.word)
        return conversation


@dataclass(frozen=True)
class FirstOfEach:
    """Merges rows with a prompt that stood before."""

    name: str = "first"

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        return pa.record_batch({"prompt": pa.array(map(prompt_text, conversations), pa.string())})

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        first: dict[str, int] = {}
        merged = np.full(len(rows), -1, dtype=np.int64)
        for index, prompt in enumerate(features.column("prompt").to_pylist()):
            anchor = first.setdefault(prompt, index)
            if anchor != index:
                merged[index] = anchor
        gone = np.flatnonzero(merged >= 0).tolist()
        return Decisions(merged < 0, dict.fromkeys(gone, "same_prompt"), dict.fromkeys(gone, "1.0"), merged_into=merged)


@dataclass(frozen=True)
class Turn:
    """Turns the order round, with the last row twice, and says of each row whether its place is even."""

    name: str = "turn"

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        return pa.record_batch({"nothing": pa.nulls(len(conversations), pa.int8())})

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        count = len(rows)
        order = np.array([count - 1, *range(count - 1, -1, -1)], dtype=np.int64)
        labels = {index: "even" if index % 2 == 0 else "odd" for index in range(count)}
        return Decisions(np.ones(count, dtype=np.bool_), order=order, labels=labels)


@dataclass(frozen=True)
class EndWorker:
    """Ends the process that comes to a prompt with the word, as the system does when memory runs out.

    Attributes:
        ended: file that is there once it was done; while it is, nothing is ended.
        word: in the prompt.
        always: end every process that comes to it.
    """

    ended: Path
    word: str = "ask 30"
    always: bool = False
    name: str = "deadly"

    def __call__(self, conversation: Conversation) -> Outcome:
        if self.word in prompt_text(conversation) and (self.always or not self.ended.exists()):
            self.ended.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return conversation


OTHER_MACHINE_SECONDS = 45.0
"""For a row; where no other comes, the rows behind it wait as well, until the time of the test is over."""


@dataclass(frozen=True)
class NoteMachine:
    """Makes a file of the name of each machine of a Ray cluster that comes to work on rows.

    Whoever is first waits for another, so that a machine that is slow to begin is not left without rows.
    """

    folder: Path
    name: str = "noted"

    def __call__(self, conversation: Conversation) -> Outcome:
        import ray

        (self.folder / ray.get_runtime_context().get_node_id()).touch()
        end = time.monotonic() + OTHER_MACHINE_SECONDS
        while len(list(self.folder.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        return conversation

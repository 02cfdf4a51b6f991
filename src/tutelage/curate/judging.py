"""What row steps make of the rows of a chunk, whoever runs them: this process, or a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat

import numpy as np

from tutelage.curate.entries import Entry, entry_of
from tutelage.curate.row_json import row_json
from tutelage.curate.step import Edited, Outcome, RowStep, ScreenedStep, Split
from tutelage.curate.store import StoredRow
from tutelage.types import Change, Conversation, Drop

STEP_FAILED = "step_failed"


@dataclass(slots=True)
class Judged:
    """The rows of a chunk that go on, what was said of its rows, and how long each step took in seconds."""

    rows: list[StoredRow] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def extend(self, other: Judged) -> None:
        """Take in what became of the rows that follow."""
        self.rows += other.rows
        self.entries += other.entries
        for name, spent in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0) + spent


@dataclass(slots=True)
class _Row:
    """A row on its way: `stored.text` is behind once `altered` is set."""

    stored: StoredRow
    conversation: Conversation
    altered: bool = False

    def current(self) -> StoredRow:
        return self.stored._replace(text=row_json(self.conversation)) if self.altered else self.stored


def judge(steps: Sequence[RowStep], stored: Sequence[StoredRow]) -> Judged:
    """Take the rows of a chunk through the steps; entries are in the order of the rows, those of a row of the steps."""
    judged = Judged()
    started = time.perf_counter()
    rows = [_Row(row, row.conversation) for row in stored]
    judged.seconds["decode"] = time.perf_counter() - started
    for step in steps:
        started = time.perf_counter()
        rows = _after(step, rows, judged.entries)
        judged.seconds[step.name] = time.perf_counter() - started
    started = time.perf_counter()
    judged.rows = [row.current() for row in rows]
    if len(steps) > 1:
        place = {(row.row, row.part): index for index, row in enumerate(stored)}  # parts made here follow their row
        judged.entries.sort(key=lambda entry: place.get((entry.row, entry.part), place.get((entry.row, 0), 0)))
    judged.seconds["encode"] = time.perf_counter() - started
    return judged


def _after(step: RowStep, rows: Sequence[_Row], entries: list[Entry]) -> list[_Row]:
    remaining: list[_Row] = []
    for row, question in zip(rows, _questions(step, rows), strict=True):
        outcome = _outcome(question, row.conversation) if question else row.conversation
        if outcome is row.conversation:
            remaining.append(row)
        elif isinstance(outcome, Drop):
            stored = row.current()
            entries.append(entry_of(outcome, step.name, stored, stored.row, stored.text))
        elif isinstance(outcome, Conversation):  # equal: `_outcome` has seen to it
            remaining.append(row)
        else:
            entries += [_said(change, step, row) for change in outcome.changes]
            remaining += _altered(outcome, row, step, entries)
    return remaining


def _questions(step: RowStep, rows: Sequence[_Row]) -> Iterable[Callable[[Conversation], Outcome] | None]:
    """What is asked of each row; None where the step has nothing to say of it."""
    if not isinstance(step, ScreenedStep):
        return repeat(step, len(rows))
    possible = step.screen([row.conversation for row in rows])
    asked = {found: partial(step.judged, possible=found) if found else None for found in np.unique(possible).tolist()}
    return map(asked.__getitem__, possible.tolist())


def _outcome(step: Callable[[Conversation], Outcome], conversation: Conversation) -> Outcome:
    """What the step says; a step that breaks, or alters a row without a word, loses that row alone."""
    try:
        outcome = step(conversation)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 whatever a step trips over, the row and the step are named
        return Drop(conversation.address, "step_failed", f"{type(error).__name__}: {error}"[:400])
    if isinstance(outcome, Conversation) and outcome != conversation:
        return Drop(conversation.address, "step_failed", "the step altered the row and did not say how")
    if isinstance(outcome, Split) and not outcome.conversations:
        return Drop(conversation.address, "step_failed", "the step split the row into nothing")
    return outcome


def _altered(outcome: Edited | Split, row: _Row, step: RowStep, entries: list[Entry]) -> list[_Row]:
    if isinstance(outcome, Edited):
        return [_Row(row.stored, outcome.conversation, altered=True)]
    made = outcome.conversations
    if len(made) > 1:
        reason = outcome.changes[0].reason if outcome.changes else step.name
        entry = _said(Change(row.stored.address, reason, f"{len(made)} rows came of it"), step, row)
        entries.append(entry._replace(what="added", rows=len(made) - 1))
    first = row.stored.part
    return [
        _Row(row.stored._replace(part=first + part), conversation, altered=True)
        for part, conversation in enumerate(made)
    ]


def _said(change: Change, step: RowStep, row: _Row) -> Entry:
    return entry_of(change, step.name, row.stored, row.stored.row)

"""Rows of trained tasks that are near-duplicates of held-out rows, by curation's measure: a task by another name.

Compared is what goes into the task: the columns that its templates name and its target does not. So the words of
templates make no rows alike, and another label does not hide the same question.

Shape legend: N = rows of all tasks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.config.synthesis import TaskSettings
from tutelage.curate.near_pairs import Likeness, RowSets, near_pairs
from tutelage.curate.shingles import shingle_sets
from tutelage.curate.word_hashes import Ragged, numbered_words
from tutelage.errors import ConfigError
from tutelage.synthesize.tasks.request import Division
from tutelage.synthesize.tasks.table import TaskRow, table_files, task_rows
from tutelage.synthesize.tasks.task import Task
from tutelage.types import Address

SHOWN_PAIRS = 3


@dataclass(frozen=True, slots=True)
class Overlap:
    """Rows of a trained task that are like rows of a held-out one.

    Attributes:
        trained: name of the one.
        held_out: name of the other.
        held_out_rows: of the held-out task, how many have a near-duplicate.
        share: the same, of all its rows.
        pairs: address in training, address held out, similarity; all of them.
    """

    trained: str
    held_out: str
    held_out_rows: int
    share: float
    pairs: tuple[tuple[Address, Address, float], ...]

    def sentence(self) -> str:
        """For people, with the first pairs."""
        shown = "; ".join(f"{ours} like {theirs} ({alike:.2f})" for ours, theirs, alike in self.pairs[:SHOWN_PAIRS])
        return (
            f"{self.trained} has near-duplicates of {self.held_out_rows:,} rows ({self.share:.1%}) "
            f"of {self.held_out}: {shown}"
        )


def overlaps(
    division: Division, settings: TaskSettings, seed: int, *, max_rows: int | None = None
) -> tuple[Overlap, ...]:
    """Every pair of a trained and a held-out task with near-duplicates, the largest share first.

    Args:
        division: the tasks.
        settings: what a near-duplicate is.
        seed: of the signatures that nominate pairs.
        max_rows: of each table; None reads all.

    Raises:
        DataError: a row lacks a column.
    """
    if not division.held_out:
        return ()
    chunks, owners, addresses = [], [], []
    for number, task in enumerate((*division.held_out, *division.trained)):
        texts, places = _inputs(task, division.tables[task.name], max_rows)
        chunks.append(_sets(texts))
        owners += [number] * len(places)
        addresses += places
    likeness = Likeness(settings.held_out_similarity, 0.0)
    # Held-out rows come first, so that one of them stands for what is like it.
    stars = near_pairs(RowSets(chunks), np.arange(len(owners)), likeness=likeness, seed=seed).stars
    pairs: dict[tuple[int, int], list[tuple[Address, Address, float]]] = defaultdict(list)
    met: dict[tuple[int, int], set[int]] = defaultdict(set)
    first_trained = len(division.held_out)
    for row in np.flatnonzero(stars.anchors >= 0).tolist():
        anchor = int(stars.anchors[row])
        if owners[row] >= first_trained > owners[anchor]:
            key = owners[row], owners[anchor]
            pairs[key].append((addresses[row], addresses[anchor], float(stars.similarities[row])))
            met[key].add(anchor)
    tasks, sizes = (*division.held_out, *division.trained), Counter(owners)
    found = [
        Overlap(tasks[ours].name, tasks[theirs].name, len(met[ours, theirs]), len(met[ours, theirs]) / sizes[theirs],
                tuple(pairs[ours, theirs]))
        for ours, theirs in pairs
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda overlap: (-overlap.share, overlap.trained, overlap.held_out)))


def require_apart(found: Sequence[Overlap], settings: TaskSettings) -> Mapping[str, Mapping[Address, str]]:
    """The rows that go, by task, where no task is a held-out one by another name.

    Raises:
        ConfigError: one is; all such pairs are in the one error.
    """
    same = [overlap for overlap in found if overlap.share > settings.held_out_share]
    if same:
        raise ConfigError(
            "What is held out is trained under another name",
            where="synthesize.tasks.hold_out",
            found="".join(f"\n    - {overlap.sentence()}" for overlap in same),
            expected=f"near-duplicates of at most {settings.held_out_share:.1%} of the rows of a held-out task",
            fix=f"hold out the cluster of {same[0].trained}, too, or leave that task out; to drop those rows and go "
            "on, set synthesize.tasks.held_out_share=1",
        )
    near: dict[str, dict[Address, str]] = defaultdict(dict)
    for overlap in found:
        for ours, theirs, alike in overlap.pairs:
            near[overlap.trained][ours] = f"like {theirs} of {overlap.held_out}, similarity {alike:.3f}"
    return near


def _inputs(task: Task, table: str, max_rows: int | None) -> tuple[list[str], list[Address]]:
    named = {name for template in task.straight for name in template.input.names}
    targets = {name for template in task.straight for name in template.target.names}
    choices = {task.file.choices} if isinstance(task.file.choices, str) else set()
    compared = sorted((named - targets or named) & set(task.file.columns) - choices)
    texts, addresses = [], []
    for row in task_rows(task, table_files(table, lambda _text: None), max_rows=max_rows):
        if isinstance(row, TaskRow):
            texts.append("\n".join(str(row.values[name]) for name in compared))
            addresses.append(row.address)
    return texts, addresses


def _sets(texts: Sequence[str]) -> Ragged:
    return shingle_sets(numbered_words(texts), numbered_words([""] * len(texts)))

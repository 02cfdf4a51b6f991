"""Where a row that comes back belongs when the rows were split: beside those that it has to stay together with."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.config.curation_split import SplitSettings
from tutelage.curate.out_folder import TEST, TRAIN, VALIDATION
from tutelage.curate.shingles import SHINGLE_WORDS
from tutelage.curate.splitting.step import compared_words, first_turn
from tutelage.types import Address, Conversation, Message

Words = tuple[str, ...]
_NOWHERE = Address("", 0)


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    """The rows that are not trained on, by what holds others to them.

    Attributes:
        settings: what that is. Every run of words is compared, those of templates too: rather held out than a leak.
    """

    settings: SplitSettings
    _splits: list[str] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)
    _holders: dict[Words, list[int]] = field(default_factory=lambda: defaultdict(list))
    _first_turns: dict[Words, str] = field(default_factory=dict)
    _values: dict[Any, str] = field(default_factory=dict)
    _rows: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Mapping[str, Path], settings: SplitSettings) -> HeldOutRows:
        """Those of the files of a split output, by name."""
        held_out = cls(settings)
        for split in (VALIDATION, TEST):
            for row in _rows_in(files[split]) if split in files else ():
                held_out._add(row, split)
        return held_out

    def split_of(self, row: Mapping[str, Any]) -> str:
        """The split that a row of `dropped.jsonl` belongs in: where a row is that holds it, else that to train on."""
        if row["metadata"]["row"] in self._rows:  # another part of it
            return self._rows[row["metadata"]["row"]]
        conversation = _conversation(row)
        runs = _runs(conversation)
        shared = Counter(holder for run in runs for holder in self._holders.get(run, ()))
        nearest = max(
            ((count / (len(runs) + self._sizes[holder] - count), -holder) for holder, count in shared.items()),
            default=(0.0, 0),
        )
        if nearest[0] >= self.settings.similarity:
            return self._splits[-nearest[1]]
        opening, value = tuple(first_turn(conversation)), self._value(row)
        if len(opening) >= self.settings.first_turn_words and opening in self._first_turns:
            return self._first_turns[opening]
        return self._values.get(value, TRAIN) if value is not None else TRAIN

    def _add(self, row: Mapping[str, Any], split: str) -> None:
        conversation = _conversation(row)
        runs = _runs(conversation)
        for run in runs:
            self._holders[run].append(len(self._splits))
        self._splits.append(split)
        self._rows[row["metadata"]["row"]] = split
        self._sizes.append(len(runs))
        self._first_turns.setdefault(tuple(first_turn(conversation)), split)
        if (value := self._value(row)) is not None:
            self._values.setdefault(value, split)

    def _value(self, row: Mapping[str, Any]) -> Any:
        return None if self.settings.field is None else row["metadata"].get(self.settings.field)


def _rows_in(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a file of the output, as they are in JSON lines."""
    if path.suffix == ".jsonl":
        with path.open(encoding="utf-8", newline="\n") as lines:
            yield from map(json.loads, lines)
        return
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["messages", "text", "metadata"]):
            for row in batch.to_pylist():
                yield {**row, "metadata": json.loads(row["metadata"])}


def _conversation(row: Mapping[str, Any]) -> Conversation:
    """What of a row is compared."""
    if row.get("messages") is None:
        return Conversation((Message("text", row["text"]),), _NOWHERE)
    return Conversation(tuple(Message(turn["role"], turn.get("content")) for turn in row["messages"]), _NOWHERE)


def _runs(conversation: Conversation) -> set[Words]:
    words = tuple(compared_words(conversation))
    return {words[start : start + SHINGLE_WORDS] for start in range(max(1, len(words) - SHINGLE_WORDS + 1))}

"""Rows that are the same, spaces or more aside: one of them goes on. By a 128-bit BLAKE2b of what is compared.

Shape legend: N = rows.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_duplicates import ExactDuplicatesSettings
from tutelage.curate.excerpts import excerpt
from tutelage.curate.preference import preferred_rows
from tutelage.curate.row_json import row_json
from tutelage.curate.screens import TextColumn
from tutelage.curate.step import NOT_MERGED, Decisions, StepContext, StepDefinition
from tutelage.curate.store import Rows
from tutelage.curate.texts import message_text, prompt_text, reply_text, words
from tutelage.curate.twins import twin_notes
from tutelage.errors import ConfigError
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

NAME, REASON = "exact_duplicates", "exact_duplicate"
_WHAT = {"both": "conversation", "prompt": "prompt", "reply": "reply"}
_BUT = {
    "nothing": "",
    "space": ", white space aside",
    "case": ", letter case and white space aside",
    "words": ", word by word",
}


_MAY_BE_SPACED = r"[^\x00-\x7f]|[\x00-\x1f]|  |\A | \z"
"""What every text has that `_spaces` changes, as a pattern of `screens`."""
_encode = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class ExactDuplicates:
    """The step."""

    settings: ExactDuplicatesSettings
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """Two halves of the hash of what is compared, and its length in characters."""
        import pyarrow as pa

        texts = self._compared(conversations)
        digests = b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
        halves = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
        return pa.record_batch(
            {
                "high": pa.array(halves[:, 0]),
                "low": pa.array(halves[:, 1]),
                "characters": pa.array([len(text) for text in texts], pa.int64()),
            }
        )

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        """Of rows with the same hash the preferred one is kept."""
        high, low, characters = (features.column(name).to_numpy() for name in ("high", "low", "characters"))
        preferred = preferred_rows(self.settings.keep, rows, characters, self.name, score=self.settings.score)
        order = preferred[np.lexsort((low[preferred], high[preferred]))]  # stable: the preferred row first
        is_same = np.zeros(len(rows), dtype=bool)
        is_same[1:] = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
        firsts = np.maximum.accumulate(np.where(is_same, 0, np.arange(len(rows))))
        keep, merged_into = np.ones(len(rows), dtype=bool), np.full(len(rows), NOT_MERGED, dtype=np.int64)
        keep[order[is_same]] = False
        merged_into[order[is_same]] = order[firsts[is_same]]
        words = f"the same {_WHAT[self.settings.on]}{_BUT[self.settings.normalize]}"
        evidence = dict.fromkeys(np.flatnonzero(~keep).tolist(), words)
        notes = twin_notes(rows, merged_into, f"have {words}, as")
        if self.settings.field is not None:
            evidence |= _same_field(self.settings.field, rows, preferred[keep[preferred]], merged_into)
            keep[list(evidence)] = False
        return Decisions(keep, dict.fromkeys(evidence, REASON), evidence, merged_into, notes=notes)

    def _compared(self, conversations: Sequence[Conversation]) -> list[str]:
        if self.settings.on == "both":
            if self.settings.normalize == "nothing":
                return list(map(row_json, conversations))
            turns = TextColumn([list(map(message_text, conversation.messages)) for conversation in conversations])
            texts = iter(self._normalized(turns))
            return [_whole(conversation, texts) for conversation in conversations]
        text_of = prompt_text if self.settings.on == "prompt" else reply_text
        return self._normalized(TextColumn([[text_of(conversation)] for conversation in conversations]))

    def _normalized(self, column: TextColumn) -> list[str]:
        normalize = _NORMALIZERS[self.settings.normalize]
        if self.settings.normalize != "space":
            return list(map(normalize, column.flat))
        spaced = column.matches(_MAY_BE_SPACED).tolist()
        return [normalize(text) if other else text for text, other in zip(column.flat, spaced, strict=True)]


def _same_field(name: str, rows: Rows, candidates: NDArray[np.int64], merged_into: NDArray[np.int64]) -> dict[int, str]:
    """Rows whose value of a field another has: what is said of each; what stands for it is written into `merged_into`.

    Args:
        name: of the field.
        rows: N.
        candidates: rows that are kept, the preferred first, int64.
        merged_into: int64 [N].

    Raises:
        ConfigError: no row has the field.
    """
    stored = list(rows)
    labels = rows.label_values(name)
    values = {row: labels[row] for row in candidates.tolist()}
    if values and all(value is None for value in values.values()):
        raise ConfigError(
            "Duplicates are to be told by a field that no row has",
            where=f"curate.{NAME}.field = '{name}'",
            found=f"{len(values):,} rows without it in their metadata",
            expected="a field that the rows have, such as id",
            fix=f"name another, or take curate.{NAME}.field out",
        )
    anchors: dict[str, int] = {}
    evidence: dict[int, str] = {}
    for row, value in values.items():
        if value is None:
            continue
        anchor = anchors.setdefault(json.dumps(value), row)
        if stored[anchor].row != stored[row].row:  # parts of one row have one value
            evidence[row] = f"the same {name}: {excerpt(str(value))}"
            merged_into[row] = anchor
    for row, anchor in enumerate(merged_into.tolist()):
        if anchor in evidence:
            merged_into[row] = merged_into[anchor]
    return evidence


def _whole(conversation: Conversation, texts: Iterator[str]) -> str:
    """A conversation with the next texts in place of those of its turns."""
    turns = [(message.role, message.name, message.weight, next(texts)) for message in conversation.messages]
    return _encode([turns, conversation.tools, dict(conversation.template_arguments)])


def _as_it_is(text: str) -> str:
    return text


def _spaces(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _case(text: str) -> str:
    return _spaces(text).casefold()


def _words(text: str) -> str:
    return " ".join(words(text))


_NORMALIZERS: dict[str, Callable[[str], str]] = {
    "nothing": _as_it_is,
    "space": _spaces,
    "case": _case,
    "words": _words,
}


def _build(settings: ExactDuplicatesSettings, _: StepContext) -> ExactDuplicates:
    return ExactDuplicates(settings)


EXACT_DUPLICATES = StepDefinition(
    NAME, "one row goes on of rows that are the same, white space aside", ExactDuplicatesSettings, _build
)

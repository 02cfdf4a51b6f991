"""Rows that are the same, spaces or more aside: one of them goes on. By a 128-bit BLAKE2b of what is compared.

Shape legend: N = rows.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from tutelage.config.curation_duplicates import ExactDuplicatesSettings
from tutelage.curate.preference import preferred_rows
from tutelage.curate.row_json import row_json
from tutelage.curate.step import NOT_MERGED, Decisions, StepContext, StepDefinition
from tutelage.curate.store import Rows
from tutelage.curate.texts import message_text, prompt_text, reply_text, words
from tutelage.curate.twins import twin_notes
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


@dataclass(frozen=True, slots=True)
class ExactDuplicates:
    """The step."""

    settings: ExactDuplicatesSettings
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """Two halves of the hash of what is compared, and its length in characters."""
        import pyarrow as pa

        texts = [self._compared(conversation) for conversation in conversations]
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
        dropped = np.flatnonzero(~keep).tolist()
        evidence = f"the same {_WHAT[self.settings.on]}{_BUT[self.settings.normalize]}"
        return Decisions(
            keep,
            dict.fromkeys(dropped, REASON),
            dict.fromkeys(dropped, evidence),
            merged_into,
            notes=twin_notes(rows, merged_into, f"have {evidence}, as"),
        )

    def _compared(self, conversation: Conversation) -> str:
        normalize = _NORMALIZERS[self.settings.normalize]
        match self.settings.on:
            case "prompt":
                return normalize(prompt_text(conversation))
            case "reply":
                return normalize(reply_text(conversation))
            case "both" if self.settings.normalize == "nothing":
                return row_json(conversation)
            case "both":
                turns = [
                    (message.role, message.name, message.weight, normalize(message_text(message)))
                    for message in conversation.messages
                ]
                return json.dumps([turns, conversation.tools, dict(conversation.template_arguments)], sort_keys=True)


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

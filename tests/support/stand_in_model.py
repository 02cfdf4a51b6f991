"""A model that reads rows without being one: its losses are made of the letters of a row, and it counts what it reads.

`python -m tests.support.stand_in_model ROWS OUT READ` curates with it and dies once that many rows are read.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.config.curation import CurateSettings
from tutelage.curate.pipeline import curate
from tutelage.curate.request import Curated, CurationRequest
from tutelage.curate.scoring_model import ModelRequest, ReplyLosses, Unread, Vector
from tutelage.curate.texts import prompt_text, reply_text
from tutelage.types import Conversation

WEIGHTS = "made"


@dataclass
class StandIn:
    """Its loss of a reply is the number of its characters, alone that and those of the prompt.

    A prompt that holds `break` breaks it, one with `worse` makes the reply less likely, a long one is not read. The
    vector of a row is a count of its letters. It kills this process once `dies_after` rows are read.
    """

    request: ModelRequest
    read: list[str] = field(default_factory=list)
    dies_after: int | None = None

    @property
    def facts(self) -> dict[str, Any]:
        return {"weights": WEIGHTS}

    @property
    def name(self) -> str:
        return self.request.name

    def losses(self, conversations: Sequence[Conversation]) -> list[ReplyLosses | Unread]:
        return [self._loss(conversation) for conversation in self._seen(conversations)]

    def vectors(self, conversations: Sequence[Conversation]) -> list[Vector | Unread]:
        return [_letters(conversation) for conversation in self._seen(conversations)]

    def _seen(self, conversations: Sequence[Conversation]) -> Sequence[Conversation]:
        self.read += [prompt_text(conversation) for conversation in conversations]
        if self.dies_after is not None and len(self.read) >= self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return conversations

    def _loss(self, conversation: Conversation) -> ReplyLosses | Unread:
        prompt, reply = prompt_text(conversation), reply_text(conversation)
        if "break" in prompt:
            return Unread("failed", "KeyError: 'break'", failed=True)
        if len(prompt) > self.request.max_tokens:
            return Unread("too_long", f"{len(prompt)} letters")
        alone = float(len(reply) - 1 if "worse" in prompt else len(reply) + len(prompt))
        return ReplyLosses(float(len(reply)), alone, len(reply))


def _letters(conversation: Conversation) -> Vector | Unread:
    text = prompt_text(conversation) + reply_text(conversation)
    if "break" in text:
        return Unread("failed", "KeyError: 'break'", failed=True)
    counts = np.zeros(128, dtype=np.float32)
    for letter in text.lower():
        counts[ord(letter) % 128] += 1
    return counts


def scored(
    rows: Path, out: Path, *, dies_after: int | None = None, workers: int = 1, steps: Sequence[str] = ("model_scores",),
    **tables: Any,
) -> tuple[Curated, StandIn]:  # fmt: skip
    """Curate with the stand-in; what came of it, and the model."""
    opened: list[StandIn] = []

    def open_model(request: ModelRequest) -> StandIn:
        opened.append(StandIn(request, dies_after=dies_after))
        return opened[-1]

    settings = CurateSettings.model_validate({"steps": list(steps), **tables})
    request = CurationRequest((str(rows),), out, settings, workers=workers, chunk_rows=50, open_model=open_model)
    return curate(request), opened[0]


if __name__ == "__main__":
    scored(Path(sys.argv[1]), Path(sys.argv[2]), dies_after=int(sys.argv[3]))

"""What judges answered, on disk: a line for each answer, there before the next one is waited for, and never changed.

An answer was paid for, so it is kept apart from any output: neither another folder nor `--clean` loses it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tutelage.errors import SaveError, cause_of, remedy
from tutelage.system.files import cache_folder
from tutelage.system.line_log import append_line

KEPT_CHARACTERS = 4000
"""Of an answer: scores stand at its end or alone."""


class JudgeAnswer(NamedTuple):
    """What a judge said, the tokens that the endpoint counted for it, and whether it ended at its limit.

    `seconds` is what it took, beside the others that were asked for; None where nobody wrote it down.
    """

    text: str
    tokens: int
    was_cut: bool
    seconds: float | None = None


@dataclass(slots=True)
class JudgeAnswers:
    """The answers of one model.

    Attributes:
        path: of their file.
        answer_tokens: the longest answer; one that was cut at fewer is not known.
        known: by the hash of the request.
    """

    path: Path
    answer_tokens: int
    known: dict[str, JudgeAnswer] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str, answer_tokens: int) -> JudgeAnswers:
        """Those of a model, read; a line that a process which was killed left half is not counted."""
        safe = re.sub(r"[^\w.-]+", "_", model)[:40]
        name = f"{safe}-{hashlib.sha256(model.encode()).hexdigest()[:8]}.jsonl"
        answers = cls(cache_folder() / "judge" / name, answer_tokens)
        try:
            lines = answers.path.read_bytes().split(b"\n")
        except OSError:
            return answers
        for line in lines:
            try:
                record = json.loads(line)
                cut_at = record.get("cut_at")
                seconds = None if (taken := record.get("seconds")) is None else float(taken)
                answer = JudgeAnswer(str(record["answer"]), int(record["tokens"]), cut_at is not None, seconds)
                if cut_at is None or int(cut_at) >= answer_tokens:
                    answers.known[str(record["request"])] = answer
            except (ValueError, KeyError, TypeError):
                continue
        return answers

    def add(self, request: str, answer: JudgeAnswer) -> None:
        """Keep an answer.

        Raises:
            SaveError: the disk refuses; no further request should be paid for.
        """
        answer = answer._replace(text=answer.text[-KEPT_CHARACTERS:])
        record: dict[str, Any] = {"request": request, "answer": answer.text, "tokens": answer.tokens}
        if answer.seconds is not None:
            record["seconds"] = round(answer.seconds, 3)
        try:
            append_line(
                self.path, json.dumps(record | ({"cut_at": self.answer_tokens} if answer.was_cut else {})).encode()
            )
        except OSError as error:
            raise SaveError(
                "A judge's answer could not be saved; those before it are",
                where=str(self.path),
                found=cause_of(error),
                fix=remedy(error, elsewhere="set TUTELAGE_CACHE to another disk"),
            ) from error
        self.known[request] = answer

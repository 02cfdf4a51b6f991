"""`verdicts.jsonl`: every verdict as it was given, one line each; nothing in it is ever changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutelage.errors import DataError, SaveError, cause_of, remedy
from tutelage.evaluate.pairwise.pairs import Side
from tutelage.system.line_log import append_line

FILE_NAME = "verdicts.jsonl"

Choice = Literal["a", "b", "tie", "skip", "none", "undone"]
"""a, b: whose reply is better. skip: a person would not say. none: a judge's answer holds no verdict. undone: as if the
rater had not been asked."""
Kind = Literal["person", "judge"]


class Verdict(BaseModel):
    """What one rater said of one pair, which was shown in one order.

    Attributes:
        pair: its key.
        kind: a person or a judge.
        rater: a person's name, or the judge's model.
        left: whose reply stood on the left, or came first.
        choice: what was said.
        seconds: that it took.
        time: when it was said, in UTC.
        request: hash of all that decides a judge's answer; None of a person.
        answer: the judge's own words.
        tokens: that the endpoint counted for the answer and its prompt.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    pair: Annotated[str, Field(min_length=1)]
    kind: Kind
    rater: Annotated[str, Field(min_length=1)]
    left: Side
    choice: Choice
    seconds: float = 0.0
    time: str = ""
    request: str | None = None
    answer: str | None = None
    tokens: int | None = None


@dataclass(slots=True)
class VerdictFile:
    """The verdicts of one comparison, read once and written line by line.

    Attributes:
        path: of the file; it and its folder are made with the first verdict.
        verdicts: all of them, the oldest first.
        damaged: lines that cannot be read; a last line without its end is one, as a process that was killed leaves it.
    """

    path: Path
    verdicts: list[Verdict] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> VerdictFile:
        """Read the file of a folder, if there is one.

        Raises:
            DataError: it holds no verdict at all, and so is something else, or it cannot be read.
        """
        file = cls(folder / FILE_NAME)
        try:
            content = file.path.read_bytes()
        except FileNotFoundError:
            return file
        except OSError as error:
            raise DataError(
                "The verdicts so far cannot be read",
                where=str(file.path),
                found=cause_of(error),
                fix="see to the right to read it, or choose another place: --folder FOLDER",
            ) from error
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line.strip():
                try:
                    file.verdicts.append(Verdict.model_validate_json(line))
                except ValidationError:
                    file.damaged.append(number)
        if len(file.damaged) > 1 and not file.verdicts:
            raise DataError(
                "A file that is no list of verdicts stands where they are kept",
                where=str(file.path),
                found=f"{len(file.damaged)} lines, none of them a verdict",
                expected="no such file, or one that `tutelage compare` wrote",
                fix="choose another place: --folder FOLDER",
            )
        return file

    def append(self, verdict: Verdict) -> None:
        """Add a line and see it onto the disk; several processes may do so at once.

        Raises:
            SaveError: the disk is full or refuses.
        """
        try:
            append_line(self.path, verdict.model_dump_json(exclude_none=True).encode())
        except OSError as error:
            raise SaveError(
                "A verdict could not be saved; those before it are",
                where=str(self.path),
                found=cause_of(error),
                fix=remedy(error, elsewhere="choose another place: --folder FOLDER"),
            ) from error
        self.verdicts.append(verdict)

    def of(self, kind: Kind, rater: str) -> dict[tuple[str, Side], Verdict]:
        """What holds of one rater: the last verdict on each pair, of a judge on each pair and order.

        A person is asked once about a pair, so that a later verdict holds whatever the order was; the second part of
        the key is then always "a".
        """
        latest: dict[tuple[str, Side], Verdict] = {}
        for verdict in self.verdicts:
            if (verdict.kind, verdict.rater) == (kind, rater):
                key: tuple[str, Side] = (verdict.pair, "a" if kind == "person" else verdict.left)
                latest.pop(key, None)  # so that the last one comes last
                latest[key] = verdict
        return {key: verdict for key, verdict in latest.items() if verdict.choice != "undone"}

    def raters(self, kind: Kind) -> Sequence[str]:
        """The names of those who said something, in the order in which they first did."""
        return list(dict.fromkeys(verdict.rater for verdict in self.verdicts if verdict.kind == kind))

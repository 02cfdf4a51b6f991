"""`events.jsonl`: all that people did, one line each as it was done; nothing in it is ever changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutelage.errors import DataError, SaveError, cause_of, remedy
from tutelage.system.line_log import append_line
from tutelage.system.seals import numbered_lines, sealed_line

FILE_NAME = "events.jsonl"

Kind = Literal["prompt", "assign", "draft", "submit", "undo", "skip", "flag", "suggest", "rate"]


class Event(BaseModel):
    """One thing that was done.

    Attributes:
        kind: what was done. prompt: the words of a prompt, before the first event on it. assign: it was given to a
            person. draft: the text in a page changed. submit: it is a revision. undo: what the person did last is
            taken back. skip, flag: the person would not write it, or says that something is wrong with it. suggest: a
            model wrote a reply. rate: a person judged another's revision.
        prompt: its key.
        person: who did it; empty of a prompt and a suggestion.
        number: of the event, larger than that of each before it.
        time: in UTC.
        page: a name of the page that the text stood in; two pages of one person write two texts.
        after: number of the draft that the page went on from, of another page.
        at, cut: of a draft, where `text` takes the place of how many characters.
        text: what was written; the reason of a skip or flag.
        seconds: that the person was at it.
        began: what the text began from, empty where from nothing: `row`, or `model NAME`.
        whose, revision, score: of a rating.
        fields: of a prompt.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    kind: Kind
    prompt: Annotated[str, Field(min_length=1)]
    person: str = ""
    number: int = 0
    time: str = ""
    page: str | None = None
    after: int | None = None
    at: int | None = None
    cut: int | None = None
    text: str | None = None
    seconds: float | None = None
    began: str | None = None
    whose: str | None = None
    revision: int | None = None
    score: int | None = None
    fields: dict[str, Any] | None = None


@dataclass(slots=True)
class EventLog:
    """The events of one folder, read once and written line by line.

    Attributes:
        path: of the file; it and its folder are made with the first event.
        events: those that were there, the oldest first.
        damaged: lines that cannot be read; a last line without its end is one, as a process that was killed leaves it.
    """

    path: Path
    events: list[Event] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path) -> EventLog:
        """Read the file of a folder, if there is one.

        Raises:
            DataError: it cannot be read, or holds something else.
        """
        log = cls(folder / FILE_NAME)
        try:
            content = log.path.read_bytes()
        except FileNotFoundError:
            return log
        except OSError as error:
            raise DataError(
                "What was written so far cannot be read",
                where=str(log.path),
                found=cause_of(error),
                fix="see to the right to read it, or choose another folder with -o",
            ) from error
        for line in numbered_lines(content):
            try:
                log.events.append(Event.model_validate(line.content))
            except ValidationError:
                log.damaged.append(line.number)
        if len(log.damaged) > 1 and not log.events:
            raise DataError(
                "A file that is no log of events stands where one is kept",
                where=str(log.path),
                found=f"{len(log.damaged)} lines, none of them an event",
                expected="no such file, or one that `tutelage demonstrate` wrote",
                fix="choose another folder with -o",
            )
        return log

    def append(self, event: Event) -> None:
        """Add a line and see it onto the disk.

        Raises:
            SaveError: the disk is full or refuses.
        """
        line = sealed_line(event.model_dump(exclude_none=True, exclude_defaults=True) | {"kind": event.kind})
        try:
            append_line(self.path, line.encode("utf-8"))
        except OSError as error:
            raise SaveError(
                "It could not be saved; all before it is",
                where=str(self.path),
                found=cause_of(error),
                fix=remedy(error, elsewhere="choose another folder with -o"),
            ) from error

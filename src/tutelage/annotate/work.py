"""What one person did about one prompt: texts in pages, revisions, and what came of it last."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from tutelage.annotate.edits import Edit, edited
from tutelage.annotate.events import Event

Outcome = Literal["submit", "skip", "flag"]


@dataclass(frozen=True, slots=True)
class Draft:
    """The text of one page as it was kept last.

    Attributes:
        page: its name.
        text: in it.
        number: of the event that kept it; later ones have larger numbers.
        time: in UTC.
        is_settled: it was handed in, or another page went on from it; a person who typed on in it unsettles it.
    """

    page: str
    text: str
    number: int
    time: str
    is_settled: bool = False


@dataclass(frozen=True, slots=True)
class Revision:
    """A text that was handed in.

    Attributes:
        number: from 1.
        text: all of it.
        time: in UTC.
        seconds: that the person was at it.
        began: what it began from; empty where from nothing.
        event: number of the event that handed it in.
    """

    number: int
    text: str
    time: str
    seconds: float
    began: str
    event: int


@dataclass(frozen=True, slots=True)
class Act:
    """What a person did about a prompt in the end: the revision that was handed in, or the reason of a skip or flag."""

    outcome: Outcome
    revision: Revision | None = None
    reason: str = ""


@dataclass(slots=True)
class Work:
    """One person at one prompt.

    Attributes:
        drafts: by page.
        revisions: all, those that were taken back too.
        acts: those that stand; the last one counts, and to take it back brings the one before to count.
        began: what the text in the newest page began from.
        time: of the last event.
    """

    drafts: dict[str, Draft] = field(default_factory=dict)
    revisions: list[Revision] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    began: str = ""
    time: str = ""

    @property
    def outcome(self) -> Outcome | None:
        """What counts; None while it is open."""
        return self.acts[-1].outcome if self.acts else None

    @property
    def revision(self) -> Revision | None:
        """The text that counts; None where there is none."""
        return self.acts[-1].revision if self.acts else None

    @property
    def newest_draft(self) -> Draft | None:
        """Of those that are not settled and were kept after the last revision; None where there is none."""
        handed_in = self.revisions[-1].event if self.revisions else 0
        newer = [draft for draft in self.open_drafts if draft.number > handed_in]
        return newer[0] if newer else None

    @property
    def open_drafts(self) -> list[Draft]:
        """Those that are not settled, the newest first."""
        return sorted(
            (draft for draft in self.drafts.values() if not draft.is_settled), key=lambda draft: -draft.number
        )

    def apply(self, event: Event, number: int) -> None:
        """Do what an event of this person about this prompt says.

        Raises:
            ValueError: a draft that changes a text which is not there, as where a line before it was lost.
        """
        if event.kind == "draft":
            self._draft(event, number)
        elif event.kind == "submit":
            self._settle(event)
            count, text, began = len(self.revisions) + 1, event.text or "", event.began or ""
            revision = Revision(count, text, event.time, event.seconds or 0.0, began, number)
            self.revisions.append(revision)
            self.acts.append(Act("submit", revision))
        elif event.kind in ("skip", "flag"):
            self.acts.append(Act("skip" if event.kind == "skip" else "flag", reason=event.text or ""))
        elif event.kind == "undo" and self.acts:
            undone = self.acts.pop().revision
            if undone is not None:  # its text is written on, whatever stands in other pages
                page = f"revision {undone.number}"
                self.drafts[page] = Draft(page, undone.text, number, event.time)
        self.began = self.began if event.began is None else event.began
        self.time = event.time

    def _draft(self, event: Event, number: int) -> None:
        page, text = event.page or "", event.text or ""
        if event.at is not None:
            before = self.drafts.get(page)
            if before is None or event.at + (event.cut or 0) > len(before.text):
                raise ValueError("a draft changes a text that is not there")
            text = edited(before.text, Edit(event.at, event.cut or 0, text))
        self._settle_earlier(event)
        self.drafts[page] = Draft(page, text, number, event.time)

    def _settle(self, event: Event) -> None:
        """The text of this page, and that of the page that it went on from, are in what was handed in."""
        self._settle_earlier(event)
        draft = self.drafts.get(event.page or "")
        if draft is not None:
            self.drafts[draft.page] = replace(draft, is_settled=True)

    def _settle_earlier(self, event: Event) -> None:
        for draft in list(self.drafts.values()):
            if draft.number == event.after and draft.page != event.page:
                self.drafts[draft.page] = replace(draft, is_settled=True)

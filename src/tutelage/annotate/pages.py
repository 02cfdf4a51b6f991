"""The pages on which people write: who writes, what, with which guidelines; each answer is saved before it is given."""

from __future__ import annotations

import json
import math
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import urlencode

from markupsafe import Markup

from tutelage.annotate.asked import AskedPrompt
from tutelage.annotate.consistency import consistency_of, notes_on
from tutelage.annotate.drafting import Drafting
from tutelage.annotate.exports import Form, export, file_name
from tutelage.annotate.rows import write_rows
from tutelage.annotate.workspace import HIGHEST_SCORE, LOWEST_SCORE, Workspace
from tutelage.errors import SaveError, TutelageError
from tutelage.report.html.offline import own_parts, template
from tutelage.system.page_server import JSON, NOTHING, TEXT, PageAnswer, PageRequest

LONGEST_TEXT_BYTES = 8 << 20
"""Of what a browser sends at once: a text of a million words."""
LONGEST_NAME = 80
SHOWN_PROMPTS = 200
"""Of a list; a search finds the others."""
EXCERPT = 160
DAY_SECONDS = 86400.0
_NO_TEXT = dict.fromkeys((0, *range(0xD800, 0xE000)), "\ufffd")


@dataclass(slots=True)
class WritingPages:
    """All pages of one folder, for one request at a time.

    Attributes:
        workspace: what is written, and by whom.
        folder: where the rows go.
        guidelines: what stands beside the prompt, as HTML.
        drafting: a model that drafts replies when it is asked; None without one.
        finished: set to end the serving; no page does so, as others may still write.
        longest_body: bytes of the longest form.
    """

    workspace: Workspace
    folder: Path
    guidelines: Markup = field(default_factory=Markup)
    drafting: Drafting | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    longest_body: int = LONGEST_TEXT_BYTES
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: PageRequest) -> PageAnswer:
        """The page, or what came of what was sent."""
        actions: dict[tuple[str, str], Callable[[PageRequest], PageAnswer]] = {
            ("GET", ""): self._names,
            ("GET", "write"): self._write,
            ("GET", "list"): self._list,
            ("GET", "rate"): self._rate,
            ("GET", "progress"): self._progress,
            ("GET", "export"): self._export,
            ("POST", "draft"): self._draft,
            ("POST", "submit"): self._submit,
            ("POST", "score"): self._score,
        }
        action = actions.get((request.method, request.name))
        if (request.method, request.name) == ("POST", "suggest"):
            return self._suggest(request)  # without the lock: a model takes its time, and others write meanwhile
        if action is None:
            return NOTHING
        with self._lock:
            try:
                return action(request)
            except SaveError as error:
                return PageAnswer(f"{error}\n", 507, TEXT)

    def _names(self, _request: PageRequest) -> PageAnswer:
        return self._page("names", "", people=self.workspace.people)

    def _write(self, request: PageRequest) -> PageAnswer:
        person = _person(request.query)
        if not person:
            return PageAnswer(location="")
        key = request.query.get("prompt") or None
        prompt = self.workspace.assign(person, key, not_key=request.query.get("later", ""))
        if prompt is None:
            return NOTHING if key else self._page("done", person, can_undo=self.workspace.can_undo(person))
        work = self.workspace.work(person, prompt.key)
        draft = work.newest_draft
        text, began = _first_text(prompt, work.revisions[-1].text if work.revisions else None, work.began)
        text = text if draft is None else draft.text
        others = [(_shown_time(other.time), other.text) for other in work.open_drafts if other.text != text]
        return self._page(
            "write",
            person,
            prompt=prompt,
            text=text,
            began=began,
            after="" if draft is None else draft.number,
            is_draft=draft is not None,
            page=secrets.token_urlsafe(6),
            others=others,
            revisions=[(revision, _shown_time(revision.time)) for revision in reversed(work.revisions)],
            outcome=work.acts[-1] if work.acts else None,
            flagged=self.workspace.flag(prompt.key),
            can_undo=self.workspace.can_undo(person),
            guidelines=self.guidelines,
            drafter="" if self.drafting is None else self.drafting.name,
        )

    def _draft(self, request: PageRequest) -> PageAnswer:
        """Keep the text of a page as it is typed."""
        try:
            fields = json.loads(request.body)
            person, prompt = _person(fields), self.workspace.prompt(str(fields["prompt"]))
            text, page, after = str(fields["text"]), str(fields["page"]), fields.get("after")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return PageAnswer("this is no draft\n", 400, TEXT)
        if not person or prompt is None or not isinstance(after, int | None):
            return PageAnswer("nobody's draft, or of no prompt\n", 400, TEXT)
        number = self.workspace.draft(
            person, prompt, page=page, text=_clean(text), after=after, began=str(fields.get("began") or "")
        )
        return PageAnswer(json.dumps({"number": number}), kind=JSON)

    def _suggest(self, request: PageRequest) -> PageAnswer:
        """A model's draft, asked for once a prompt."""
        with self._lock:
            prompt = self.workspace.prompt(request.form().get("prompt", ""))
            known = None if prompt is None else self.workspace.suggestions.get(prompt.key)
        if prompt is None or self.drafting is None:
            return NOTHING
        try:
            if known is None:
                text = _clean(self.drafting.draft(prompt))
                with self._lock:
                    self.workspace.suggest(prompt, text, self.drafting.name)
                    known = self.workspace.suggestions[prompt.key]
        except TutelageError as error:
            return PageAnswer(f"{error}\n", 502, TEXT)
        return PageAnswer(json.dumps({"began": known[0], "text": known[1]}), kind=JSON)

    def _submit(self, request: PageRequest) -> PageAnswer:
        """A button of the writing page."""
        fields = request.form()
        person, button = _person(fields), fields.get("do", "")
        prompt = self.workspace.prompt(fields.get("prompt", ""))
        if not person or (prompt is None and button != "undo"):
            return PageAnswer("no such prompt, or nobody's\n", 400, TEXT)
        if button == "undo":
            back = self.workspace.undo(person)
            return _to("write", person, prompt="" if back is None else back.key)
        assert prompt is not None
        if button == "later":
            return _to("write", person, later=prompt.key)
        if button in ("skip", "flag"):
            return self._leave(person, prompt, button, fields)
        text = _clean(fields.get("text", ""))
        if button != "submit" or not text.strip():
            return PageAnswer("an empty text is no demonstration\n", 400, TEXT)
        self.workspace.submit(
            person,
            prompt,
            page=fields.get("page", ""),
            text=text,
            after=int(fields["after"]) if fields.get("after", "").isdecimal() else None,
            began=fields.get("began", ""),
            seconds=_seconds(fields.get("seconds", "")),
        )
        write_rows(self.folder, self.workspace)
        return _to("write", person)

    def _leave(self, person: str, prompt: AskedPrompt, button: str, fields: dict[str, str]) -> PageAnswer:
        reason = _clean(fields.get("reason", "")).strip()
        if button == "flag" and not reason:
            return PageAnswer("what is wrong with the prompt? A flag needs a reason\n", 400, TEXT)
        self.workspace.leave(person, prompt, "skip" if button == "skip" else "flag", reason)
        write_rows(self.folder, self.workspace)
        return _to("write", person)

    def _list(self, request: PageRequest) -> PageAnswer:
        person, words = _person(request.query), request.query.get("q", "").strip()
        if not person:
            return PageAnswer(location="")
        found = [prompt for prompt in self.workspace.all_prompts() if self._holds(prompt, words)]
        rows = [
            {
                "prompt": prompt,
                "excerpt": _excerpt(prompt),
                "own": self.workspace.work(person, prompt.key).outcome,
                "has_draft": self.workspace.work(person, prompt.key).newest_draft is not None,
                "written": self.workspace.written(prompt.key),
                "wanted": self.workspace.wanted(prompt.key),
                "flagged": self.workspace.flag(prompt.key),
            }
            for prompt in found[:SHOWN_PROMPTS]
        ]
        return self._page("list", person, rows=rows, words=words, found=len(found))

    def _holds(self, prompt: AskedPrompt, words: str) -> bool:
        """Whether all the words stand somewhere in the prompt, or in what was written about it."""
        if not words:
            return True
        texts = [message.content or "" for message in prompt.messages] + [prompt.address]
        texts += [
            revision.text
            for person in self.workspace.people
            if (revision := self.workspace.work(person, prompt.key).revision) is not None
        ]
        text = "\n".join(texts).casefold()
        return all(word in text for word in words.casefold().split())

    def _rate(self, request: PageRequest) -> PageAnswer:
        person = _person(request.query)
        if not person:
            return PageAnswer(location="")
        rated = self.workspace.next_to_rate(person)
        return self._page("rate", person, rated=rated, scores=range(LOWEST_SCORE, HIGHEST_SCORE + 1))

    def _score(self, request: PageRequest) -> PageAnswer:
        fields = request.form()
        person, prompt = _person(fields), self.workspace.prompt(fields.get("prompt", ""))
        score, revision = fields.get("score", ""), fields.get("revision", "")
        if not (person and prompt and score.isdecimal() and revision.isdecimal()):
            return PageAnswer("no such text, or no score\n", 400, TEXT)
        if not LOWEST_SCORE <= int(score) <= HIGHEST_SCORE:
            return PageAnswer(f"a score is {LOWEST_SCORE} to {HIGHEST_SCORE}\n", 400, TEXT)
        self.workspace.rate(person, prompt, fields.get("whose", ""), int(revision), int(score))
        return _to("rate", person)

    def _progress(self, request: PageRequest) -> PageAnswer:
        person = _person(request.query)
        if not person:
            return PageAnswer(location="")
        rows = [
            {
                "name": name,
                "written": self.workspace.count(name, "submit"),
                "skipped": self.workspace.count(name, "skip"),
                "flagged": self.workspace.count(name, "flag"),
                "minutes": _minutes(self.workspace.median_seconds(name)),
            }
            for name in self.workspace.people
        ]
        notes = notes_on(consistency_of(self.workspace))
        return self._page("progress", person, rows=rows, notes=notes, forms=get_args(Form))

    def _export(self, request: PageRequest) -> PageAnswer:
        form = request.query.get("form", "")
        if form not in get_args(Form):
            return NOTHING
        kind = "application/octet-stream" if form == "parquet" else JSON
        named = cast(Form, form)
        return PageAnswer(export(self.workspace, named).content, kind=kind, file_name=file_name(named))

    def _page(self, view: str, person: str, **parts: Any) -> PageAnswer:
        left, pace = self.workspace.left(), self.workspace.median_seconds(person) or self.workspace.median_seconds()
        text = template("demonstrate_page.html").render(
            view=view,
            person=person,
            query=urlencode({"as": person}),
            mine=self.workspace.count(person, "submit"),
            done=len(self.workspace.standing()),
            left=left,
            time_left="" if pace is None or not left else duration_text(pace * left),
            longest_name=LONGEST_NAME,
            **parts,
            **own_parts(
                style=("page.css", "demonstrate_page.css"),
                script=("demonstrate_page.js",),
                has_forms=True,
                may_fetch=True,
            ),
        )
        return PageAnswer(text)


def duration_text(seconds: float) -> str:
    """Rounded up, for people: minutes below two hours, hours otherwise."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{math.ceil(minutes / 60)} h"


def _first_text(prompt: AskedPrompt, revised: str | None, began: str) -> tuple[str, str]:
    """What stands in a page that no draft was written in, and what it began from."""
    if revised is not None:
        return revised, began
    return (prompt.reply, "row") if prompt.reply is not None else ("", "")


def _to(name: str, person: str, **query: str) -> PageAnswer:
    given = {key: value for key, value in query.items() if value}
    return PageAnswer(location=f"{name}?{urlencode({'as': person, **given})}")


def _person(fields: Any) -> str:
    """The name that came with a request, on one line; empty where there is none."""
    return _clean(" ".join(str(fields.get("as", "")).split()))[:LONGEST_NAME]


def _clean(text: str) -> str:
    """Line ends as a text area shows them, and neither half a character nor NUL, which files or pages cannot hold."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_NO_TEXT)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return round(seconds, 1) if 0 <= seconds < DAY_SECONDS else 0.0


def _minutes(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds / 60:.1f}"


def _shown_time(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UTC"


def _excerpt(prompt: AskedPrompt) -> str:
    text = " ".join((prompt.messages[-1].content or "").split())
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"

"""Who writes what: prompts go to people, and every text is on the disk before the answer that it is."""

from __future__ import annotations

import datetime
import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tutelage.annotate.asked import AskedPrompt
from tutelage.annotate.edits import edit_between
from tutelage.annotate.events import Event, EventLog, Kind
from tutelage.annotate.work import Outcome, Revision, Work

HELD_HOURS = 24.0
"""After which a prompt that somebody began and left goes to others, too. Our choice: a working day and its night."""
EDITS_TO_WHOLE = 50
"""Drafts of a page after which one is kept whole: a damaged line costs no more than those behind it."""
LOWEST_SCORE, HIGHEST_SCORE = 1, 7
"""Of a rating of another's text. Source: Ouyang et al. 2022 (InstructGPT), table 3: overall quality from 1 to 7."""


def utc_now() -> datetime.datetime:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Rated:
    """A text of one person that others judge."""

    prompt: AskedPrompt
    whose: str
    revision: Revision


@dataclass(slots=True)
class Workspace:
    """All prompts, and all that was done about them; for one thread at a time.

    Args:
        prompts: in the order in which they are given out.
        log: what was done, and where it is kept.
        overlap: how many people write about one prompt.
        overlap_share: of the prompts, the share that so many write about; one person writes about each other one.
        now: the time.

    Attributes:
        works: by person, by prompt.
        ratings: by prompt, author and number of the revision, the score of each person.
        suggestions: by prompt, who wrote a reply for it and the reply.
        lost: drafts that could not be put together, as a line before them is damaged.
    """

    prompts: Sequence[AskedPrompt]
    log: EventLog
    overlap: int = 1
    overlap_share: float = 1.0
    now: Callable[[], datetime.datetime] = utc_now
    works: dict[str, dict[str, Work]] = field(init=False, default_factory=dict)
    ratings: dict[tuple[str, str, int], dict[str, int]] = field(init=False, default_factory=dict)
    suggestions: dict[str, tuple[str, str]] = field(init=False, default_factory=dict)
    lost: int = field(init=False, default=0)
    _by_key: dict[str, AskedPrompt] = field(init=False)
    _logged: dict[str, AskedPrompt] = field(init=False, default_factory=dict)
    _acts: dict[str, list[str]] = field(init=False, default_factory=lambda: defaultdict(list))
    _edits: Counter[tuple[str, str, str]] = field(init=False, default_factory=Counter)
    _number: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._by_key = {prompt.key: prompt for prompt in self.prompts}
        for event in self.log.events:
            self._apply(event)
        self.log.events.clear()  # what they come to is held; a long log is not held twice

    def prompt(self, key: str) -> AskedPrompt | None:
        """The prompt with this key, also one that is not among the rows any more."""
        return self._by_key.get(key) or self._logged.get(key)

    def all_prompts(self) -> Iterator[AskedPrompt]:
        """Those that are given out, and behind them those that something was written about before."""
        yield from self.prompts
        yield from (prompt for key, prompt in self._logged.items() if key not in self._by_key)

    @property
    def people(self) -> list[str]:
        """All who did something, in the order in which they first did."""
        return list(self.works)

    def work(self, person: str, key: str) -> Work:
        """What a person did about a prompt; empty where that is nothing."""
        return self.works.get(person, {}).get(key) or Work()

    def wanted(self, key: str) -> int:
        """How many people are to write about a prompt: drawn by its key, and the same at every start."""
        drawn = int.from_bytes(hashlib.sha256(f"overlap {key}".encode()).digest()[:4], "big") / 2**32
        return self.overlap if drawn < self.overlap_share else 1

    def flag(self, key: str) -> str | None:
        """Why a prompt is not given out: what the first of its flags says; None without one."""
        for works in self.works.values():
            work = works.get(key)
            if work is not None and work.outcome == "flag":
                return work.acts[-1].reason
        return None

    def assign(self, person: str, key: str | None = None, *, not_key: str = "") -> AskedPrompt | None:
        """Give a prompt to a person: the one that is asked for, one that was begun, or the next that is free.

        Args:
            person: who is to write.
            key: of the prompt; None: it is chosen.
            not_key: the prompt that is put off.

        Returns:
            The prompt; None where none is left, or there is none with this key.

        Raises:
            SaveError: it could not be kept.
        """
        prompt = self._next(person, not_key) if key is None else self.prompt(key)
        if prompt is not None and prompt.key not in self.works.get(person, {}):
            self._do(person, "assign", prompt)
        return prompt

    def draft(
        self, person: str, prompt: AskedPrompt, *, page: str, text: str, after: int | None, began: str
    ) -> int | None:
        """Keep the text of a page as it is now.

        Args:
            person: who writes.
            prompt: about which.
            page: a name of the page.
            text: all of it.
            after: number of the draft that the page began with; None where it began with none.
            began: what the text began from.

        Returns:
            The number of this draft; None where nothing is kept, as the text is the one before.

        Raises:
            SaveError: it could not be kept.
        """
        before = self.work(person, prompt.key).drafts.get(page)
        if before is not None and before.text == text and not before.is_settled:
            return before.number
        place = (person, prompt.key, page)
        edit = None if before is None or self._edits[place] >= EDITS_TO_WHOLE else edit_between(before.text, text)
        self._edits[place] = 0 if edit is None else self._edits[place] + 1
        self._do(
            person,
            "draft",
            prompt,
            page=page,
            after=after,
            began=began,
            text=text if edit is None else edit.text,
            at=None if edit is None else edit.at,
            cut=None if edit is None else edit.cut,
        )
        return self._number

    def submit(
        self, person: str, prompt: AskedPrompt, *, page: str, text: str, after: int | None, began: str, seconds: float
    ) -> None:
        """Hand a text in as a revision.

        Args:
            person: who wrote.
            prompt: about which.
            page: the page it stands in.
            text: all of it.
            after: number of the draft that the page began with; None where it began with none.
            began: what the text began from.
            seconds: that the person was at it.

        Raises:
            SaveError: it could not be kept.
        """
        self._do(person, "submit", prompt, page=page, text=text, after=after, began=began, seconds=seconds)

    def leave(self, person: str, prompt: AskedPrompt, outcome: Outcome, reason: str) -> None:
        """Skip or flag a prompt.

        Raises:
            SaveError: it could not be kept.
        """
        self._do(person, outcome, prompt, text=reason)

    def undo(self, person: str) -> AskedPrompt | None:
        """Take back what a person did last, also at an earlier start; the prompt of it, or None where there is none.

        Raises:
            SaveError: it could not be kept.
        """
        acts = self._acts[person]
        if not acts:
            return None
        prompt = self.prompt(acts[-1])
        assert prompt is not None, "a prompt is kept before the first event on it"
        self._do(person, "undo", prompt)
        return prompt

    def can_undo(self, person: str) -> bool:
        """Whether there is something to take back."""
        return bool(self._acts[person])

    def suggest(self, prompt: AskedPrompt, text: str, whose: str) -> None:
        """Keep a reply that a model wrote.

        Raises:
            SaveError: it could not be kept.
        """
        self._do("", "suggest", prompt, text=text, began=f"model {whose}")

    def next_to_rate(self, person: str) -> Rated | None:
        """A text of another that this person has not judged; None where all are.

        Those with one rating come first: the second one says whether people agree.
        """
        open_ones = [
            rated
            for rated in self.standing()
            if rated.whose != person and person not in self.ratings.get(_rating_key(rated), {})
        ]
        counts = {_rating_key(rated): len(self.ratings.get(_rating_key(rated), {})) for rated in open_ones}
        order = {1: 0, 0: 1}
        return min(open_ones, key=lambda rated: order.get(n := counts[_rating_key(rated)], n), default=None)

    def rate(self, person: str, prompt: AskedPrompt, whose: str, revision: int, score: int) -> None:
        """Keep what a person thinks of another's text.

        Raises:
            SaveError: it could not be kept.
        """
        self._do(person, "rate", prompt, whose=whose, revision=revision, score=score)

    def standing(self) -> list[Rated]:
        """The texts that count, in the order of their prompts; two people may have written about one."""
        return [
            Rated(prompt, person, revision)
            for prompt in self.all_prompts()
            for person, works in self.works.items()
            if (work := works.get(prompt.key)) is not None and (revision := work.revision) is not None
        ]

    def count(self, person: str, outcome: Outcome) -> int:
        """How many prompts came to this, of one person."""
        return sum(work.outcome == outcome for work in self.works.get(person, {}).values())

    def median_seconds(self, person: str | None = None) -> float | None:
        """Of a text that was handed in, by one person or all; None without one."""
        people = self.people if person is None else [person]
        seconds = [
            revision.seconds
            for name in people
            for work in self.works.get(name, {}).values()
            if (revision := work.revision) is not None and revision.seconds > 0
        ]
        return statistics.median(seconds) if seconds else None

    def left(self) -> int:
        """Texts that are still to be written, by all together; flagged prompts need none."""
        return sum(
            max(0, self.wanted(prompt.key) - self.written(prompt.key))
            for prompt in self.prompts
            if self.flag(prompt.key) is None
        )

    def written(self, key: str) -> int:
        """How many people handed a text about this prompt in."""
        return sum(work.outcome == "submit" for works in self.works.values() if (work := works.get(key)) is not None)

    def _next(self, person: str, not_key: str) -> AskedPrompt | None:
        own = self.works.get(person, {})
        begun = [
            prompt
            for key, work in own.items()
            if work.outcome is None and key != not_key and (prompt := self._by_key.get(key)) is not None
        ]
        begun = [prompt for prompt in begun if self.flag(prompt.key) is None]
        drafted = [prompt for prompt in begun if own[prompt.key].newest_draft is not None]
        free = next((prompt for prompt in self.prompts if self._is_free(prompt.key, person, not_key)), None)
        if not_key and free is not None:  # what is put off waits until nothing else is left
            return free
        put_off = [self._by_key[not_key]] if not_key in self._by_key and not_key in own else []
        return next(iter((*drafted, *begun)), None) or free or next(iter(put_off), None)

    def _is_free(self, key: str, person: str, not_key: str) -> bool:
        if key == not_key or key in self.works.get(person, {}) or self.flag(key) is not None:
            return False
        takers = sum(
            work.outcome == "submit" or (work.outcome is None and self._is_held(work))
            for works in self.works.values()
            if (work := works.get(key)) is not None
        )
        return takers < self.wanted(key)

    def _is_held(self, work: Work) -> bool:
        try:
            began = datetime.datetime.fromisoformat(work.time)
        except ValueError:
            return False
        return (self.now() - began).total_seconds() < HELD_HOURS * 3600

    def _do(self, person: str, kind: Kind, prompt: AskedPrompt, **what: object) -> None:
        if prompt.key not in self._logged:
            self._keep(Event(kind="prompt", prompt=prompt.key, fields=prompt.as_fields()))
        values: Mapping[str, object] = {name: value for name, value in what.items() if value is not None}
        event = {"kind": kind, "prompt": prompt.key, "person": person, "time": self.now().isoformat(), **values}
        self._keep(Event.model_validate(event))

    def _keep(self, event: Event) -> None:
        numbered = event.model_copy(update={"number": self._number + 1})
        self.log.append(numbered)
        self._apply(numbered)

    def _apply(self, event: Event) -> None:
        self._number = max(self._number + 1, event.number)
        if event.kind == "prompt":
            try:
                self._logged[event.prompt] = AskedPrompt.from_fields(event.prompt, event.fields or {})
            except (KeyError, TypeError, ValueError):
                self.lost += 1
            return
        if event.prompt not in self._by_key and event.prompt not in self._logged:
            self.lost += 1
            return
        if event.kind == "suggest":
            self.suggestions[event.prompt] = (event.began or "", event.text or "")
        elif event.kind == "rate":
            self._rate(event)
        else:
            work = self.works.setdefault(event.person, {}).setdefault(event.prompt, Work())
            self._note_act(event)
            try:
                work.apply(event, self._number)
            except ValueError:
                self.lost += 1

    def _rate(self, event: Event) -> None:
        self.works.setdefault(event.person, {})  # so that who only rates is one of the people
        if event.whose and event.revision and event.score:
            self.ratings.setdefault((event.prompt, event.whose, event.revision), {})[event.person] = event.score

    def _note_act(self, event: Event) -> None:
        acts = self._acts[event.person]
        if event.kind in ("submit", "skip", "flag"):
            acts.append(event.prompt)
        elif event.kind == "undo" and event.prompt in acts:
            acts.reverse()  # the last one is meant, which is the first from behind
            acts.remove(event.prompt)
            acts.reverse()


def _rating_key(rated: Rated) -> tuple[str, str, int]:
    return rated.prompt.key, rated.whose, rated.revision.number

"""One person rates pairs: what is asked next, what was said, what is taken back. Terminal and browser share it."""

from __future__ import annotations

import datetime
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tutelage.evaluate.pairwise.pairs import Pair, Side, left_side, other
from tutelage.evaluate.pairwise.verdicts import Choice, Verdict, VerdictFile

Said = Literal["left", "right", "tie", "skip"]
LONGEST_PAUSE_SECONDS = 300.0
"""What took longer was a pause, and says nothing about the time that is left."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a rater sees: nothing of it says whose reply is where.

    Attributes:
        pair: its prompt is shown.
        left, right: the replies.
        number: of this question, from 1.
        total: of all questions.
        seconds_left: for this and those behind it, at the median pace; None before there is one.
    """

    pair: Pair
    left: str
    right: str
    number: int
    total: int
    seconds_left: float | None

    @property
    def progress(self) -> str:
        """Which question this is, and how long the rest will take."""
        place = f"{self.number} of {self.total}"
        if self.seconds_left is None:
            return place
        minutes = math.ceil(self.seconds_left / 60)
        return f"{place}, about {minutes} min left" if minutes > 1 else f"{place}, about a minute left"


@dataclass(slots=True)
class Rating:
    """Asks about the pairs that a rater has not rated yet; every verdict is on the disk before the next question.

    Args:
        pairs: in the order in which they are asked. Of those that hold one reply twice, a tie is noted.
        verdicts: where verdicts are kept; what the rater said at an earlier start is not asked again.
        rater: a name.
        seed: of the sides.
        clock: seconds.
    """

    pairs: Sequence[Pair]
    verdicts: VerdictFile
    rater: str
    seed: int = 0
    clock: Callable[[], float] = time.monotonic
    _rated: dict[str, Choice] = field(init=False)
    _history: list[Pair] = field(init=False, default_factory=list)
    _paces: list[float] = field(init=False, default_factory=list)
    _again: Pair | None = field(init=False, default=None)
    _asked: tuple[str, float] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        held = {pair: verdict for (pair, _), verdict in self.verdicts.of("person", self.rater).items()}
        self._rated = {pair: verdict.choice for pair, verdict in held.items()}
        asked = {pair.key: pair for pair in self.pairs if not pair.is_identical}
        self._history = [asked[key] for key in held if key in asked]

    @property
    def total(self) -> int:
        """Questions that this rater is asked in all."""
        return sum(not pair.is_identical for pair in self.pairs)

    @property
    def done(self) -> int:
        """Of these, those that were answered."""
        return sum(pair.key in self._rated for pair in self.pairs if not pair.is_identical)

    def question(self) -> Question | None:
        """What to ask now; None where all is rated. It is the same until something is said.

        Raises:
            SaveError: a tie of two equal replies could not be saved.
        """
        pair = self._again or self._next()
        if pair is None:
            return None
        if self._asked is None or self._asked[0] != pair.key:
            self._asked = (pair.key, self.clock())
        left, right = pair.shown(self._left(pair))
        done = self.done
        pace = statistics.median(self._paces) if self._paces else None
        return Question(pair, left, right, done + 1, self.total, None if pace is None else pace * (self.total - done))

    def say(self, pair: Pair, said: Said) -> None:
        """Save what was said about a pair, which need not be the one that is asked now; the last word holds.

        Raises:
            SaveError: it could not be saved; the question stands.
        """
        left = self._left(pair)
        sides: dict[Said, Choice] = {"left": left, "right": other(left), "tie": "tie", "skip": "skip"}
        seconds = self.clock() - self._asked[1] if self._asked and self._asked[0] == pair.key else 0.0
        self._save(pair, sides[said], seconds)
        if 0 < seconds < LONGEST_PAUSE_SECONDS:
            self._paces.append(seconds)
        if pair in self._history:
            self._history.remove(pair)
        self._history.append(pair)
        self._again = self._asked = None

    def undo(self) -> bool:
        """Take back the last verdict, also of an earlier start, and ask again; False where there is none.

        Raises:
            SaveError: it could not be saved; the verdict stands.
        """
        if not self._history:
            return False
        pair = self._history[-1]
        self._save(pair, "undone", 0.0)
        self._history.pop()
        del self._rated[pair.key]
        self._again, self._asked = pair, None
        return True

    @property
    def can_undo(self) -> bool:
        """Whether there is a verdict to take back."""
        return bool(self._history)

    def by_key(self, key: str) -> Pair | None:
        """The pair with this key, if this rater is asked about it."""
        return next((pair for pair in self.pairs if pair.key == key and not pair.is_identical), None)

    def _next(self) -> Pair | None:
        for pair in self.pairs:
            if pair.key not in self._rated:
                if not pair.is_identical:
                    return pair
                self._save(pair, "tie", 0.0)
        return None

    def _left(self, pair: Pair) -> Side:
        return left_side(pair, seed=self.seed, rater=self.rater)

    def _save(self, pair: Pair, choice: Choice, seconds: float) -> None:
        self.verdicts.append(
            Verdict(
                pair=pair.key,
                kind="person",
                rater=self.rater,
                left=self._left(pair),
                choice=choice,
                seconds=round(seconds, 2),
                time=utc_now(),
            )
        )
        self._rated[pair.key] = choice


def utc_now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

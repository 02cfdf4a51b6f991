"""The thread that owns the models: it takes requests as they come, steps, and tells who asked what came of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

from tutelage.generate.engine import Session
from tutelage.generate.requests import Completion, Likely, Request
from tutelage.generate.schedule import Reply

STEPS_A_TURN = 8
"""Steps that one model takes before another one that has work gets its turn."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One session, and what the model that it asks has to be switched to before.

    Attributes:
        open: makes the session, and a new one after a failure.
        switched: in its block the model answers as the lane's.
    """

    open: Callable[[], Session]
    switched: Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token of a reply."""

    sample: int
    token: int
    logprob: float | None
    likely: Likely


Event: TypeAlias = NewToken | Completion | Exception
"""An exception ends all replies to a request."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A request under way.

    Attributes:
        lane: who answers.
        request: what is asked.
        tell: called in the worker's thread with what came of a step.
    """

    lane: int
    request: Request
    tell: Callable[[Sequence[Event]], None]
    place: int = -1
    open_samples: int = field(default=0)


@dataclass(slots=True)
class Counts:
    """What was done since the start, for `/metrics`."""

    requests: int = 0
    cancelled: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    step_seconds: float = 0.0


class Full(Exception):  # noqa: N818 - it is said to whoever asks, as a status
    """More replies wait than may."""


class Worker:
    """Answers requests one step after the other, in a thread of its own.

    Args:
        lanes: who can answer.
        most_replies: under way and waiting, all lanes together.
    """

    def __init__(self, lanes: Sequence[Lane], *, most_replies: int) -> None:
        self.counts = Counts()
        self._lanes, self._most_replies = list(lanes), most_replies
        self._sessions: list[Session | None] = [None for _ in lanes]
        self._tickets: dict[int, Ticket] = {}
        self._arrived: deque[Ticket] = deque()
        self._left: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._open_replies = 0
        self._number = 0
        self._events: dict[int, list[Event]] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def open_replies(self) -> int:
        """Replies under way and waiting."""
        return self._open_replies

    @property
    def reused_tokens(self) -> int:
        """Tokens of prompts that were known."""
        return sum(session.reused_tokens for session in self._sessions if session is not None)

    def submit(self, tickets: Sequence[Ticket]) -> None:
        """Let requests wait for their turn, all or none of them.

        Raises:
            Full: no more may wait.
        """
        with self._changed:
            replies = sum(ticket.request.samples for ticket in tickets)
            if self._closing or self._open_replies + replies > self._most_replies:
                raise Full
            for ticket in tickets:
                ticket.place, ticket.open_samples = self._number, ticket.request.samples
                self._number += 1
                self._arrived.append(ticket)
            self._open_replies += replies
            self.counts.requests += len(tickets)
            self._changed.notify()

    def cancel(self, tickets: Sequence[Ticket]) -> None:
        """Forget requests whose replies nobody waits for; those that have ended are passed over."""
        with self._changed:
            self._left += tickets
            self._changed.notify()

    def close(self) -> None:
        """End once the step under way has ended; what waits is told so."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        for number, lane in enumerate(self._lanes):
            self._sessions[number] = lane.open()
        while True:
            with self._changed:
                while not (self._arrived or self._left or self._closing or self._tickets):
                    self._changed.wait()
                if self._closing:
                    break
            self._take_messages()
            for number in {ticket.lane for ticket in self._tickets.values()}:
                self._turn(number)
        for ticket in [*self._tickets.values(), *self._arrived]:
            ticket.tell([ConnectionError("the server is shutting down")])

    def _take_messages(self) -> None:
        with self._changed:
            arrived, left = [*self._arrived], [*self._left]
            self._arrived.clear()
            self._left.clear()
        for ticket in arrived:
            self._tickets[ticket.place] = ticket
            try:
                self._session(ticket.lane).submit(ticket.place, ticket.request)
            except Exception as error:  # noqa: BLE001 - whoever asked is told; the others go on
                self._end(ticket, error)
        for ticket in left:
            if self._tickets.pop(ticket.place, None) is not None:
                self._close_replies(ticket.open_samples)
                self.counts.cancelled += 1
                try:
                    self._session(ticket.lane).cancel(ticket.place)
                except Exception as error:  # noqa: BLE001 - the thread goes on whatever becomes of one request
                    self._fail(ticket.lane, error)

    def _turn(self, number: int) -> None:
        """Some steps of one lane: as long as nothing else is to be done."""
        lane, session = self._lanes[number], self._session(number)
        try:
            with lane.switched(), session.answering():
                for step in range(10**9):
                    if session.done or self._arrived or self._left or self._closing:
                        return
                    if step >= STEPS_A_TURN and any(ticket.lane != number for ticket in self._tickets.values()):
                        return
                    self._step(session)
        except Exception as error:  # noqa: BLE001 - those who asked are told; a new session takes those who come
            self._fail(number, error)

    def _fail(self, number: int, error: Exception) -> None:
        """End all replies of a lane, and begin it anew."""
        self._events.clear()
        for ticket in [ticket for ticket in self._tickets.values() if ticket.lane == number]:
            self._end(ticket, error)
        self._sessions[number] = self._lanes[number].open()

    def _step(self, session: Session) -> None:
        started = time.perf_counter()
        completions = session.step(self._note)
        self.counts.steps += 1
        self.counts.step_seconds += time.perf_counter() - started
        for completion in completions:
            self._events.setdefault(completion.request, []).append(completion)
        events, self._events = self._events, {}
        for place, told in events.items():
            ticket = self._tickets[place]
            ended = sum(isinstance(event, Completion) for event in told)
            ticket.open_samples -= ended
            if not ticket.open_samples:
                del self._tickets[place]
                self.counts.prompt_tokens += len(ticket.request.prompt)
            self._close_replies(ended)
            ticket.tell(told)

    def _note(self, reply: Reply, token: int) -> None:
        logprob = reply.logprobs[-1] if reply.logprobs else None
        likely = reply.likely[-1] if reply.likely else ()
        self.counts.generated_tokens += 1
        self._events.setdefault(reply.place, []).append(NewToken(reply.sample, token, logprob, likely))

    def _end(self, ticket: Ticket, error: Exception) -> None:
        self._tickets.pop(ticket.place, None)
        self._close_replies(ticket.open_samples)
        self.counts.failed += 1
        ticket.tell([error])

    def _close_replies(self, count: int) -> None:
        with self._changed:
            self._open_replies -= count

    def _session(self, number: int) -> Session:
        session = self._sessions[number]
        assert session is not None, "the thread opens them first"
        return session

"""One request of the API from its fields to its answer: it waits, streams, and is cancelled when its asker leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tutelage.errors import TutelageError
from tutelage.generate.requests import Completion
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.serve.asking import Asked, Limits
from tutelage.serve.problems import Problem, of_error
from tutelage.serve.worker import Event, Full, NewToken, Ticket, Worker

RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a step: for which prompt of the request."""

    prompt: int
    event: NewToken | Completion


@dataclass(slots=True)
class Underway:
    """The replies to one request, as they come.

    Attributes:
        asked: what it asks.
        completions: those that have ended.
    """

    asked: Asked
    queue: asyncio.Queue[tuple[int, Sequence[Event]]]
    tickets: list[Ticket] = field(default_factory=list)
    completions: list[tuple[int, Completion]] = field(default_factory=list)

    async def events(self) -> AsyncIterator[Told]:
        """Tokens and completions until all replies have ended.

        Raises:
            Problem: the engine failed, or the server ends.
        """
        remaining = sum(request.samples for request in self.asked.requests)
        while remaining:
            prompt, events = await self.queue.get()
            for event in events:
                if isinstance(event, Exception):
                    raise _problem_of(event)
                if isinstance(event, Completion):
                    remaining -= 1
                    self.completions.append((prompt, event))
                yield Told(prompt, event)

    async def all(self) -> list[tuple[int, Completion]]:
        """All replies with the numbers of their prompts, in the order of `index`."""
        async for _ in self.events():
            pass
        return sorted(self.completions, key=lambda entry: (entry[0], entry[1].sample))


def submitted(worker: Worker, asked: Asked) -> Underway:
    """Ask the engine; whoever asks leaves through `answering`.

    Raises:
        Problem: too many wait.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Sequence[Event]]]()

    def ticket_for(prompt: int) -> Ticket:
        def tell(events: Sequence[Event]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, (prompt, events))

        return Ticket(asked.model.engine, asked.requests[prompt], tell)

    underway = Underway(asked, queue, [ticket_for(number) for number in range(len(asked.requests))])
    try:
        worker.submit(underway.tickets)
    except Full:
        raise Problem(
            429,
            f"Too many requests: {worker.open_replies} replies are under way or wait, and no more may.",
            kind="rate_limit_error",
            code="rate_limit_exceeded",
            retry_after=RETRY_SECONDS,
        ) from None
    return underway


@asynccontextmanager
async def answering(worker: Worker, underway: Underway, limits: Limits) -> AsyncIterator[None]:
    """What is still under way as the block ends is cancelled, and its room free.

    Raises:
        Problem: the block took longer than a request may.
    """
    try:
        async with asyncio.timeout(limits.seconds):
            yield
    except TimeoutError:
        raise Problem(
            504, f"No whole reply within {limits.seconds:g} seconds.", kind="server_error", code="timeout"
        ) from None
    finally:
        worker.cancel(underway.tickets)


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, ConnectionError):
        return Problem(503, "The server is shutting down.", kind="server_error", code="shutting_down")
    if isinstance(error, TutelageError):
        return of_error(error, None)
    if is_out_of_memory(error):
        message = "There is not enough memory for this request beside the others."
        return Problem(503, message, kind="server_error", code="out_of_memory", retry_after=RETRY_SECONDS)
    message = f"The engine failed on this request: {type(error).__name__}."
    return Problem(500, message, kind="server_error", code="engine_failed")

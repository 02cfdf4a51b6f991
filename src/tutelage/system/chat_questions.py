"""Many questions to one endpoint, several at once: each answer is handed on as it comes, so that none is paid twice."""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from tutelage.errors import TutelageError
from tutelage.system.chat_client import BudgetSpentError, Client, StoppedError
from tutelage.system.chat_endpoint import Answer, ChatMessage, Trouble

ASKED_AGAIN = 2
"""How often a judge is reminded that its answer held nothing of what was asked for."""
STOP_LOOK_SECONDS = 0.2
"""Between looks at whether all work is to end."""

_THOUGHT = re.compile(r"\A.*</think>", re.DOTALL)
"""Some templates open the block in the prompt, so that an answer shows only its end."""
_FENCED = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?\s*```\Z", re.DOTALL)


class Asked(Protocol):
    """A question: the messages that are sent."""

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """The prompt."""


Q = TypeVar("Q", bound=Asked)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Answered(Generic[Q, V]):
    """What came of a question.

    Attributes:
        question: that was asked.
        value: what was read in the answer; None where there is nothing in it.
        answer: the last answer; None where there is none.
        tokens: that the endpoint counted, reminders included.
        seconds: that it took.
        trouble: why there is no value; empty where there is one.
    """

    question: Q
    value: V | None
    answer: Answer | None
    tokens: int
    seconds: float
    trouble: str

    @property
    def text(self) -> str:
        """The words of the last answer; empty where there is none."""
        return "" if self.answer is None else self.answer.text


@dataclass(frozen=True, slots=True)
class Reading(Generic[V]):
    """How an answer is read.

    Attributes:
        parse: the value in an answer, or None.
        reminder: what is said to an answer without one.
        noun: what the value is called, such as verdict.
    """

    parse: Callable[[str], V | None]
    reminder: str
    noun: str


@dataclass(frozen=True, slots=True)
class _Handed(Generic[Q, V]):
    """An answer on its way from a thread, and whether it is saved."""

    answered: Answered[Q, V]
    saved: threading.Event = field(default_factory=threading.Event)


def ask_all(
    client: Client,
    questions: Sequence[Q],
    reading: Reading[V],
    save: Callable[[Answered[Q, V]], None],
    *,
    parallel: int,
) -> str | None:
    """Ask all questions; each answer is saved as it comes, so that what ends this early costs none.

    Args:
        client: of the endpoint; it is stopped when this returns.
        questions: in the order they are asked.
        reading: how answers are read.
        save: given each answer, in this thread.
        parallel: requests at once.

    Returns:
        Why not all was asked; None where all was.

    Raises:
        EndpointError: the endpoint does not answer; what it had answered is saved.
        KeyboardInterrupt: Ctrl-C; what had been answered by then is saved.
    """
    waiting: queue.SimpleQueue[Q] = queue.SimpleQueue()
    answers: queue.SimpleQueue[_Handed[Q, V] | Exception | None] = queue.SimpleQueue()
    for question in questions:
        waiting.put(question)
    workers = min(parallel, len(questions))
    for _ in range(workers):
        # Daemons: a request that nobody waits for any more must not keep the program from ending.
        threading.Thread(target=_work, args=(client, reading, waiting, answers), daemon=True).start()
    ended = None
    try:
        while workers:
            item = answers.get()
            if item is None:
                workers -= 1
            elif isinstance(item, BudgetSpentError):
                ended = f"the budget is spent: {item}"
            elif isinstance(item, Exception):
                raise item
            else:
                save(item.answered)
                item.saved.set()
        assert ended or waiting.empty(), "a thread ended that had work left"
    finally:
        client.stop.set()
        while not answers.empty():
            if isinstance(item := answers.get(), _Handed):
                save(item.answered)
    return ended


def last_words(text: str) -> str:
    """What is left of an answer without its reasoning and the one code fence around it."""
    text = _THOUGHT.sub("", text).strip()
    fenced = _FENCED.match(text)
    return text if fenced is None else fenced[1].strip()


def json_object(text: str) -> dict[str, Any]:
    """The JSON object that a text is; empty where it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def why_none(text: str, noun: str, answer_tokens: str, *, was_cut: bool) -> str:
    """Why an answer holds nothing of what was asked for.

    Args:
        text: the answer.
        noun: what it should have held.
        answer_tokens: what the setting of the longest answer is called.
        was_cut: it ended at that limit.
    """
    if was_cut:
        return f"the answer was cut at {answer_tokens} before its {noun}"
    return f"the answer holds no {noun}" if text.strip() else "the answer is empty"


def _work(
    client: Client,
    reading: Reading[V],
    waiting: queue.SimpleQueue[Q],
    answers: queue.SimpleQueue[_Handed[Q, V] | Exception | None],
) -> None:
    """Answer questions until none is left; an error is handed on, and None behind it whatever ends this.

    The next question waits until the answer is saved: a process that is killed loses one answer a thread at most.
    """
    try:
        while True:
            handed = _Handed(_answered(client, reading, waiting.get_nowait()))
            answers.put(handed)
            while not handed.saved.wait(STOP_LOOK_SECONDS) and not client.stop.is_set():
                pass
    except (queue.Empty, StoppedError):
        pass
    except (TutelageError, BudgetSpentError) as error:
        answers.put(error)
    finally:
        answers.put(None)


def _answered(client: Client, reading: Reading[V], question: Q) -> Answered[Q, V]:
    messages: list[ChatMessage] = list(question.messages)
    started, tokens, outcome = time.monotonic(), 0, client.ask(messages)
    value = None
    for asked_again in range(ASKED_AGAIN + 1):
        if isinstance(outcome, Trouble):
            break
        tokens += outcome.tokens or 0
        value = reading.parse(outcome.text)
        if value is not None or asked_again == ASKED_AGAIN:
            break
        messages = [
            *question.messages,
            {"role": "assistant", "content": outcome.text},
            {"role": "user", "content": reading.reminder},
        ]
        outcome = client.ask(messages)
    seconds = time.monotonic() - started
    if isinstance(outcome, Trouble):
        return Answered(question, None, None, tokens, seconds, outcome.reason)
    limit = client.endpoint.names.answer_tokens
    trouble = "" if value is not None else why_none(outcome.text, reading.noun, limit, was_cut=outcome.was_cut)
    return Answered(question, value, outcome, tokens, seconds, trouble)

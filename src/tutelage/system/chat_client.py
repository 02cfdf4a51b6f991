"""Asks an endpoint as often as it takes, and no more often or longer than was allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from tutelage.errors import EndpointError
from tutelage.system.chat_endpoint import (
    COMMAND_LINE,
    Answer,
    ChatMessage,
    Endpoint,
    SettingNames,
    Trouble,
    ask_once,
)

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 120.0
"""Who asks for more has a limit of hours or days, which is a matter for another day."""
MOST_FAILURES = 5
"""Prompts in a row that came to nothing, after which a further one would, too."""
TEMPLATE_TOKENS = 64
"""What a server puts around the messages, generously."""


class BudgetSpentError(Exception):
    """A further request might exceed the budget; nothing was sent."""


class StoppedError(Exception):
    """The user, or another thread's error, ends the work."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in the currency of the budget: of prompts, and of answers."""

    prompt: float = 0.0
    answer: float = 0.0

    def of(self, prompt_tokens: int, answer_tokens: int) -> float:
        """What a request costs."""
        return (prompt_tokens * self.prompt + answer_tokens * self.answer) / 1e6

    def of_answer(self, answer: Answer) -> float | None:
        """What an answer cost; None where its tokens were not counted. Without those of the prompt all are dear."""
        if answer.tokens is None:
            return None
        if answer.prompt_tokens is None:
            return answer.tokens * max(self.prompt, self.answer) / 1e6
        return self.of(answer.prompt_tokens, max(0, answer.tokens - answer.prompt_tokens))


@dataclass(slots=True)
class Budget:
    """Requests, tokens and money that may be spent, and were; several threads share it.

    A request sets aside the most tokens that it can take: a byte-level tokenizer makes at most one of each byte. Once
    it is answered, what the endpoint counted is spent; all that was set aside, where it counts nothing or gave no
    answer.
    """

    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    prices: Prices = Prices()
    names: SettingNames = COMMAND_LINE
    requests: int = 0
    tokens: int = 0
    cost: float = 0.0
    _set_aside: int = 0
    _cost_set_aside: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, most_tokens: int, most_cost: float = 0.0) -> None:
        """Set aside one request.

        Raises:
            BudgetSpentError: that would be more than is allowed.
        """
        with self._lock:
            if self.max_requests is not None and self.requests >= self.max_requests:
                raise BudgetSpentError(f"{self.names.most_requests} {self.max_requests}")
            if self.max_tokens is not None and self.tokens + self._set_aside + most_tokens > self.max_tokens:
                raise BudgetSpentError(f"{self.names.most_tokens} {self.max_tokens}")
            if self.max_cost is not None and self.cost + self._cost_set_aside + most_cost > self.max_cost:
                raise BudgetSpentError(f"{self.names.most_cost} {self.max_cost:g}")
            self.requests += 1
            self._set_aside += most_tokens
            self._cost_set_aside += most_cost

    def settle(self, most_tokens: int, spent_tokens: int, most_cost: float = 0.0, spent_cost: float = 0.0) -> None:
        """Put what was set aside in order."""
        with self._lock:
            self._set_aside -= most_tokens
            self._cost_set_aside -= most_cost
            self.tokens += spent_tokens
            self.cost += spent_cost


def most_tokens(messages: Sequence[ChatMessage], answer_tokens: int) -> int:
    """The most tokens that a request and its answer can take."""
    return (
        sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in messages)
        + TEMPLATE_TOKENS
        + answer_tokens
    )


@dataclass(slots=True)
class Client:
    """One endpoint for several threads.

    Args:
        endpoint: where to ask.
        budget: of all requests, repeated ones among them.
        retries: how often a request that came to nothing is repeated.
        stop: set to end all waiting.
        log: told where the request is put in other words.
        first_wait_seconds: before the first repetition; twice as long before each further one.
        sampling: fields of each request that say how tokens are drawn.
    """

    endpoint: Endpoint
    budget: Budget
    retries: int = 4
    stop: threading.Event = field(default_factory=threading.Event)
    log: Callable[[str], None] = lambda _text: None
    first_wait_seconds: float = FIRST_WAIT_SECONDS
    sampling: Mapping[str, object] = field(default_factory=lambda: {"temperature": 0})
    _options: dict[str, object] = field(init=False)
    _answered: bool = False
    _failures: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._options = {**self.sampling, "max_tokens": self.endpoint.answer_tokens}

    def ask(self, messages: Sequence[ChatMessage]) -> Answer | Trouble:
        """The answer, or why there is none for this prompt.

        Raises:
            EndpointError: there will be none for any other, either.
            BudgetSpentError, StoppedError: nobody was asked.
        """
        outcome = self._repeated(messages)
        with self._lock:
            self._answered |= isinstance(outcome, Answer)
            if isinstance(outcome, Answer):
                self._failures = 0
            elif outcome.scope != "prompt" or not self._answered:  # that others are too long says nothing of the next
                self._failures += 1
            is_hopeless = self._failures >= MOST_FAILURES
        if isinstance(outcome, Trouble) and (outcome.scope == "all" or is_hopeless):
            raise self._error(outcome)
        return outcome

    def _repeated(self, messages: Sequence[ChatMessage]) -> Answer | Trouble:
        wait_seconds, repeated = self.first_wait_seconds, 0
        while True:
            options = self._options
            outcome = self._sent(messages, options)
            if isinstance(outcome, Answer) or outcome.scope == "all":
                return outcome
            if outcome.scope == "prompt" and self._reworded(outcome, options):
                continue
            if outcome.scope == "prompt" or repeated >= self.retries or not (outcome.contact or self._answered):
                # Where nothing has ever answered the name or port is wrong, more often than the server is late.
                return outcome if outcome.contact else self._out_of_reach(outcome)
            asked_wait = outcome.wait_seconds
            if asked_wait is not None and asked_wait > LONGEST_WAIT_SECONDS:
                later = f"{outcome.reason}; it asks to wait {asked_wait:.0f} s"
                return Trouble(later, "all", fix="wait, then start the same command again: it goes on")
            pause = wait_seconds if asked_wait is None else asked_wait
            if self.stop.wait(min(pause, LONGEST_WAIT_SECONDS)):
                raise StoppedError
            wait_seconds, repeated = 2 * wait_seconds, repeated + 1

    def _sent(self, messages: Sequence[ChatMessage], options: Mapping[str, object]) -> Answer | Trouble:
        if self.stop.is_set():
            raise StoppedError
        most = most_tokens(messages, self.endpoint.answer_tokens)
        most_cost = self.budget.prices.of(most - self.endpoint.answer_tokens, self.endpoint.answer_tokens)
        self.budget.take(most, most_cost)
        spent, cost = most, most_cost
        try:
            outcome = ask_once(self.endpoint, messages, options)
            if isinstance(outcome, Answer) and outcome.tokens is not None:
                spent, cost = outcome.tokens, self.budget.prices.of_answer(outcome) or 0.0
            elif isinstance(outcome, Trouble) and not outcome.contact:
                spent, cost = 0, 0.0
        finally:
            self.budget.settle(most, spent, most_cost, cost)
        return outcome

    def _reworded(self, trouble: Trouble, sent: Mapping[str, object]) -> bool:
        """Whether the endpoint refused a field that it knows by another name, or not at all; it is changed for good."""
        with self._lock:
            options = dict(self._options)
            if "max_completion_tokens" in trouble.reason and "max_tokens" in sent:
                options["max_completion_tokens"] = options.pop("max_tokens", self.endpoint.answer_tokens)
                note = "note: the endpoint takes max_completion_tokens for max_tokens"
            elif refused := next((name for name in self.sampling if name in trouble.reason and name in sent), None):
                options.pop(refused, None)
                note = f"note: the endpoint takes no {refused} of {self.sampling[refused]}; it answers with its own"
            else:
                return False
            if options != self._options:  # else another thread was faster
                self._options = options
                self.log(note)
        return True

    def _out_of_reach(self, trouble: Trouble) -> Trouble:
        return Trouble(trouble.reason, "all", fix=trouble.fix, contact=False)

    def _error(self, trouble: Trouble) -> EndpointError:
        again = "" if trouble.scope == "all" else f"{MOST_FAILURES} prompts in a row came to nothing; the last: "
        return EndpointError(
            "The endpoint does not answer",
            where=self.endpoint.url.partition("?")[0],  # what follows may hold a key
            found=again + trouble.reason,
            expected="chat completions as the OpenAI API gives them",
            fix=f"{trouble.fix.format(**asdict(self.endpoint.names))}; what was answered so far is kept, and the same "
            "command goes on",
        )

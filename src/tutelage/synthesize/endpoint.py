"""A generator behind any OpenAI-compatible endpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tutelage.synthesize.generator import Reply, Request, Sampling, Save
from tutelage.system.chat_client import Budget, Client
from tutelage.system.chat_endpoint import Endpoint
from tutelage.system.chat_questions import Answered, Reading, ask_all

_AS_IT_IS: Reading[str] = Reading(parse=lambda text: text, reminder="", noun="reply")
"""Any reply is taken, an empty one too: whether something is in it is for the parser to say."""


@dataclass(slots=True)
class EndpointGenerator:
    """Asks several requests at once; what fails, stalls or is told to wait is repeated by the client.

    Args:
        endpoint: where to; its own limit of answer tokens is replaced by that of each request.
        budget: of all requests of this process.
        parallel: requests at once.
        retries: how often a request that came to nothing is repeated.
        log: told where the endpoint does not take a setting.
        first_wait_seconds: before the first repetition.
    """

    endpoint: Endpoint
    budget: Budget
    parallel: int = 4
    retries: int = 4
    log: Callable[[str], None] = lambda _text: None
    first_wait_seconds: float = 0.5
    _clients: dict[Sampling, Client] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The model's name there. The address is no part of it: the same model may move."""
        return self.endpoint.model

    def generate(self, requests: Sequence[Request], save: Save) -> str | None:
        """As the protocol has it.

        Raises:
            EndpointError: the endpoint does not answer; what it had answered was saved.
        """
        by_sampling: dict[Sampling, list[Request]] = defaultdict(list)
        for request in requests:
            by_sampling[request.sampling].append(request)

        def keep(answered: Answered[Request, str]) -> None:
            save(answered.question, Reply(answered.value, answered.tokens, answered.trouble))

        for sampling, group in by_sampling.items():
            ended = ask_all(self._client(sampling), group, _AS_IT_IS, keep, parallel=self.parallel)
            if ended:
                return ended
        return None

    def _client(self, sampling: Sampling) -> Client:
        """The one for a way of drawing tokens: it knows which fields the endpoint takes, and that it answered."""
        client = self._clients.get(sampling)
        if client is not None:
            client.stop.clear()
            return client
        options: dict[str, object] = {"temperature": sampling.temperature}
        if sampling.top_p != 1:
            options["top_p"] = sampling.top_p
        if sampling.presence_penalty:
            options["presence_penalty"] = sampling.presence_penalty
        self._clients[sampling] = Client(
            replace(self.endpoint, answer_tokens=sampling.max_tokens),
            self.budget,
            self.retries,
            log=self.log,
            first_wait_seconds=self.first_wait_seconds,
            sampling=options,
        )
        return self._clients[sampling]

"""What asks a model: requests go in, replies come back, wherever the model is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from tutelage.system.chat_endpoint import ChatMessage


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn, and how many at most."""

    temperature: float
    top_p: float
    presence_penalty: float
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt. `name` tells it from all others of a synthesis, as the same prompt may be asked twice.

    `messages` are empty where the model is to write the user's turn itself.
    """

    name: str
    messages: tuple[ChatMessage, ...]
    sampling: Sampling

    def key(self, generator: str) -> str:
        """By which the reply is kept: a hash of all that decides it."""
        asked = [generator, self.name, [dict(message) for message in self.messages], asdict(self.sampling)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request.

    Attributes:
        text: None where there is no reply.
        tokens: of prompt and reply, as far as they were counted.
        trouble: why there is no reply.
        is_whole: False where it was cut at its limit; True where that is not known.
    """

    text: str | None
    tokens: int
    trouble: str = ""
    is_whole: bool = True


Save = Callable[[Request, Reply], None]


class Generator(Protocol):
    """A model that replies."""

    @property
    def name(self) -> str:
        """Of the model: replies of another are not taken for its own."""

    def generate(self, requests: Sequence[Request], save: Save) -> str | None:
        """Answer requests, each handed to `save` once as soon as it is there, in any order.

        Returns:
            Why not all were answered, such as a budget that is spent; None where all were.
        """


def as_json(reply: Reply) -> dict[str, Any]:
    """A reply as it is kept."""
    return asdict(reply)

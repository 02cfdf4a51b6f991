"""What is asked of a model, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from tutelage.errors import ConfigError
from tutelage.types import TokenIds

if TYPE_CHECKING:
    import torch

EndedBy = Literal["stop_token", "stop_string", "length"]

End = tuple[int, EndedBy]
"""Of a reply: how many tokens it has, and why it ends."""

Likely = tuple[tuple[int, float], ...]
"""The most likely tokens of one step with the natural logarithms of their probabilities, the most likely first."""


class Grammar(Protocol):
    """What a reply may say, as it comes; each reply has one of its own."""

    def restrict(self, logits_V: torch.Tensor) -> None:
        """Set the logits of tokens that may not come next to minus infinity."""

    def take(self, token: int) -> None:
        """Note the token that came."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is chosen among all. The defaults take the most likely one.

    The order is that of transformers: penalties, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: logits are divided by it; 0 takes the most likely token.
        top_k: only so many of the most likely tokens stay; 0 keeps all.
        top_p: the most likely tokens stay whose probabilities add up to at least this.
        min_p: tokens stay that are at least so many times as likely as the most likely one.
        repetition_penalty: logits of tokens that the prompt or the reply has are divided by it where they are positive
            and multiplied where they are negative (Keskar et al. 2019, CTRL).
        presence_penalty: subtracted from the logits of tokens that the reply has.
        frequency_penalty: subtracted from them as often as the reply has them.
        logit_bias: added to the logits of single tokens, as pairs of an id and a number.
        seed: of the random numbers; a reply depends on this, its prompt and the number of the sample alone.

    Raises:
        ConfigError: a value out of its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = (
            ("temperature", self.temperature, self.temperature >= 0, "0 or more; 0 takes the most likely token"),
            ("top_k", self.top_k, self.top_k >= 0, "0 or more; 0 keeps all tokens"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1"),
            ("min_p", self.min_p, 0 <= self.min_p <= 1, "from 0 to 1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0; 1 changes nothing"),
            ("presence_penalty", self.presence_penalty, True, "a number"),
            ("frequency_penalty", self.frequency_penalty, True, "a number"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
        )
        for name, value, fits, expected in ranges:
            if not (math.isfinite(value) and fits):
                raise ConfigError(
                    "A sampling setting is out of its range",
                    where=name,
                    found=str(value),
                    expected=expected,
                    fix=f"set {name} to a value in that range",
                )

    @property
    def is_greedy(self) -> bool:
        """The most likely token is taken, after the penalties."""
        return self.temperature == 0.0

    @property
    def is_plain(self) -> bool:
        """Greedy, on the logits as they are."""
        return (
            self.is_greedy
            and self.repetition_penalty == 1.0
            and self.presence_penalty == self.frequency_penalty == 0.0
            and not self.logit_bias
        )


GREEDY = Sampling()


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt.

    Attributes:
        prompt: ids of the served prompt, at least one.
        max_new_tokens: where a reply that does not stop is cut.
        sampling: how tokens are chosen.
        samples: how many replies; the prompt is computed once for all of them.
        stop_strings: a reply ends before the first of them; the token that completes it is the last that is generated.
        logprobs: give the logarithm of each token's probability, before temperature and penalties.
        top_logprobs: and so many of the most likely tokens beside it.
        adapter: PEFT's name of the adapter that answers, or `PEFT_BASE` for none; None: the one that is active.
        grammar: makes what each reply is held to; None: it says what it likes.

    Raises:
        ConfigError: an empty prompt or stop string, or less than one token or reply.
    """

    prompt: TokenIds
    max_new_tokens: int
    sampling: Sampling = GREEDY
    samples: int = 1
    stop_strings: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    adapter: str | None = None
    grammar: Callable[[], Grammar] | None = None

    def __post_init__(self) -> None:
        lengths = (
            ("prompt", len(self.prompt), "ids"),
            ("max_new_tokens", self.max_new_tokens, "tokens"),
            ("samples", self.samples, "replies"),
            ("stop_strings", min(map(len, self.stop_strings), default=1), "characters in each"),
        )
        for name, count, noun in lengths:
            if count < 1:
                raise ConfigError(
                    "Nothing can be generated for this request",
                    where=name,
                    found=f"{count} {noun}",
                    expected="at least 1",
                    fix=f"give {name} at least 1",
                )


@dataclass(frozen=True, slots=True)
class Completion:
    """One reply.

    Attributes:
        request: its place among the requests, from 0.
        sample: its number among the replies to that request, from 0.
        ids: generated tokens, without the stop token.
        text: what they say, without a stop string.
        ended_by: why it ends.
        logprobs: natural logarithms of probabilities, one for each of `ids`; empty where they were not asked for.
        likely: the most likely tokens in the place of each of `ids`; empty where they were not asked for.
    """

    request: int
    sample: int
    ids: tuple[int, ...]
    text: str
    ended_by: EndedBy
    logprobs: tuple[float, ...] = ()
    likely: tuple[Likely, ...] = ()


@dataclass(frozen=True, slots=True)
class EndedReply:
    """A reply as it is measured and kept.

    Attributes:
        text: what it says, without a stop token.
        tokens: how many were generated, without a stop token.
        ended_by: why it ends.
    """

    text: str
    tokens: int
    ended_by: EndedBy

    @property
    def ended_itself(self) -> bool:
        """The model ended it; False: it was cut."""
        return self.ended_by == "stop_token"

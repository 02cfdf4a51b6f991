"""The positions of a run's model and the data: rows that are too long for it go before they are prepared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np

from tutelage.builders.dataset import Prepared
from tutelage.config import Settings
from tutelage.errors import ConfigError, DataError
from tutelage.model.configuration import CONFIG_FILE, causal_configuration
from tutelage.model.positions import may_exceed_positions, position_limit, stated_positions
from tutelage.render import Renderer
from tutelage.types import Message

TEMPLATE_TOKENS = 16
"""Room for what a template writes around a reply, such as an empty block of reasoning."""


@dataclass(frozen=True, slots=True)
class Positions:
    """How many tokens a model takes.

    Attributes:
        stated: by its configuration; None where it states nothing.
        last: the most that it computes, where that was tried and it ends; None where it goes on.
        virtual: tokens in front of every document that count towards it (`prompt.tokens`).
        try_last: tries it, for prompts that come near what is stated where rows do not.
    """

    stated: int | None
    last: int | None
    virtual: int
    try_last: Callable[[], int | None] = field(repr=False)

    def within(self, settings: Settings, *, log: Callable[[str], None] = lambda _line: None) -> Settings:
        """The settings with `pack.max_seq_length` no higher than what the model computes.

        Raises:
            ConfigError: virtual tokens leave no room for others.
        """
        if self.last is None or (available_tokens := self.last - self.virtual) >= settings.pack.max_seq_length:
            return settings
        if available_tokens < 2:
            raise ConfigError(
                "The virtual tokens leave no room for a row",
                where="prompt.tokens",
                found=str(self.virtual),
                expected=f"fewer than the model's {self.last} positions",
                fix=f"set prompt.tokens = {max(1, self.last // 8)}",
            )
        virtual_note = f", {self.virtual} of them for virtual tokens" if self.virtual else ""
        log(
            f"The model has {self.last} positions{virtual_note}: sequences are held to {available_tokens} tokens, "
            f"not to pack.max_seq_length = {settings.pack.max_seq_length}"
        )
        return settings.model_copy(
            update={"pack": settings.pack.model_copy(update={"max_seq_length": available_tokens})}
        )

    def require_room(self, settings: Settings, prepared: Prepared) -> None:
        """Every prompt that will be asked must leave room for its reply.

        Raises:
            DataError: one does not, with its address.
        """
        max_new_tokens = settings.evaluate.max_new_tokens
        lengths = [(len(prompt.ids), prompt.address) for prompt in prepared.task]
        for item in prepared.general:
            ids = prepared.renderer.serve([Message("user", item.prompt)])
            given = [item.reference] if item.reference else []
            lengths.append((len(ids) + _beyond(max_new_tokens, given, prepared.renderer), item.address))
        for question in prepared.choices:
            ids = prepared.renderer.serve(question.messages)
            lengths.append((len(ids) + _beyond(max_new_tokens, question.choices, prepared.renderer), question.address))
        longest_tokens = max((tokens for tokens, _ in lengths), default=0) + max_new_tokens + self.virtual
        last = self.try_last() if may_exceed_positions(self.stated, longest_tokens) else None
        if last is None:
            return
        available_tokens = last - self.virtual
        too_long = [(tokens, address) for tokens, address in lengths if tokens + max_new_tokens > available_tokens]
        if not too_long:
            return
        longest, address = max(too_long, key=lambda pair: pair[0])
        fix = (
            f"set evaluate.max_new_tokens = {available_tokens - longest}"
            if longest < available_tokens
            else "leave this prompt out"
        )
        raise DataError(
            "A prompt and its reply are longer than the model's positions",
            where=str(address),
            found=f"{longest} tokens and up to {max_new_tokens} new ones; "
            f"{len(too_long)} of {len(lengths)} prompts are too long",
            expected=f"at most {available_tokens} tokens together",
            fix=fix,
        )

    def question(self, prepared: Prepared) -> str | None:
        """Whether sequences longer than what the configuration states are meant; None where there are none."""
        if self.stated is None or self.last is not None:
            return None
        tokens = np.asarray(prepared.train.column("tokens"))
        too_long = np.flatnonzero(tokens + self.virtual > self.stated)
        if not len(too_long):
            return None
        first = prepared.train[int(too_long[0])]
        return (
            f"{len(too_long)} of {len(tokens)} training sequences are longer than the {self.stated} positions that the "
            f"model was made for, first {first.address} with {len(first.ids)} tokens; "
            f"pack.max_seq_length = {self.stated} "
            "leaves them out"
        )


def _beyond(max_new_tokens: int, replies: Sequence[str], renderer: Renderer) -> int:
    """By how many tokens the longest of given replies passes what a generated one may have."""
    longest = max((len(ids) for ids in renderer.tokenizer.encode(replies)), default=0)
    return max(0, longest + TEMPLATE_TOKENS - max_new_tokens)


def positions_of(settings: Settings, base: Path) -> Positions:
    """Read what the model in `base` states, and try it where rows may be longer.

    Raises:
        DataError: its configuration is not that of a causal language model.
    """
    remote = settings.model.trust_remote_code
    config = causal_configuration(base / CONFIG_FILE, trust_remote_code=remote)
    virtual = settings.prompt.tokens if settings.model.method == "prompt" else 0
    stated = stated_positions(config)
    try_last = cache(partial(position_limit, config, trust_remote_code=remote))
    beyond = may_exceed_positions(stated, settings.pack.max_seq_length + virtual)
    return Positions(stated, try_last() if beyond else None, virtual, try_last)

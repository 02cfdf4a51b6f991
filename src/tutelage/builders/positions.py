"""The positions of a run's model and the data: rows that are too long for it go before they are prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np

from tutelage.builders.dataset import Prepared
from tutelage.config import Settings
from tutelage.errors import ConfigError, DataError
from tutelage.model.configuration import CONFIG_FILE, causal_configuration
from tutelage.model.positions import comes_near, last_position, stated_positions
from tutelage.types import Message


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
        if self.last is None or (room := self.last - self.virtual) >= settings.pack.max_seq_length:
            return settings
        if room < 2:
            raise ConfigError(
                "The virtual tokens leave no room for a row",
                where="prompt.tokens",
                found=str(self.virtual),
                expected=f"fewer than the model's {self.last} positions",
                fix=f"set prompt.tokens = {max(1, self.last // 8)}",
            )
        beside = f", {self.virtual} of them for virtual tokens" if self.virtual else ""
        log(
            f"The model has {self.last} positions{beside}: sequences are held to {room} tokens, "
            f"not to pack.max_seq_length = {settings.pack.max_seq_length}"
        )
        return settings.model_copy(update={"pack": settings.pack.model_copy(update={"max_seq_length": room})})

    def require_room(self, settings: Settings, prepared: Prepared) -> None:
        """Every prompt that will be asked must leave room for its reply.

        Raises:
            DataError: one does not, with its address.
        """
        asked = settings.evaluate.max_new_tokens
        lengths = [(len(one.ids), one.address) for one in prepared.task]
        for item in prepared.general:
            ids = prepared.renderer.serve([Message("user", item.prompt)])
            lengths.append((len(ids), item.address))
        most = max((tokens for tokens, _ in lengths), default=0) + asked + self.virtual
        last = self.try_last() if comes_near(self.stated, most) else None
        if last is None:
            return
        room = last - self.virtual
        over = [(tokens, address) for tokens, address in lengths if tokens + asked > room]
        if not over:
            return
        longest, address = max(over, key=lambda pair: pair[0])
        fix = f"set evaluate.max_new_tokens = {room - longest}" if longest < room else "leave this prompt out"
        raise DataError(
            "A prompt and its reply are longer than the model's positions",
            where=str(address),
            found=f"{longest} tokens and up to {asked} new ones; {len(over)} of {len(lengths)} prompts are too long",
            expected=f"at most {room} tokens together",
            fix=fix,
        )

    def question(self, prepared: Prepared) -> str | None:
        """Whether sequences longer than what the configuration states are meant; None where there are none."""
        if self.stated is None or self.last is not None:
            return None
        tokens = np.asarray(prepared.train.column("tokens"))
        over = np.flatnonzero(tokens + self.virtual > self.stated)
        if not len(over):
            return None
        first = prepared.train[int(over[0])]
        return (
            f"{len(over)} of {len(tokens)} training sequences are longer than the {self.stated} positions that the "
            f"model was made for, first {first.address} with {len(first.ids)} tokens; "
            f"pack.max_seq_length = {self.stated} "
            "leaves them out"
        )


def positions_of(settings: Settings, base: Path) -> Positions:
    """Read what the model in `base` states, and try it where rows may be longer.

    Raises:
        DataError: its configuration is not that of a causal language model.
    """
    remote = settings.model.trust_remote_code
    config = causal_configuration(base / CONFIG_FILE, trust_remote_code=remote)
    virtual = settings.prompt.tokens if settings.model.method == "prompt" else 0
    stated = stated_positions(config)
    try_last = cache(partial(last_position, config, trust_remote_code=remote))
    beyond = comes_near(stated, settings.pack.max_seq_length + virtual)
    return Positions(stated, try_last() if beyond else None, virtual, try_last)

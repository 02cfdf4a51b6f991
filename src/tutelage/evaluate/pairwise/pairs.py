"""Replies of two models -> pairs of replies to one prompt, in the order and on the sides that they are shown in."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tutelage.errors import DataError
from tutelage.types import Message

Side = Literal["a", "b"]
KEY_DIGITS = 16
"""Of a pair's hash: 64 bits, so that two of a million pairs share a key once in ten million comparisons."""
SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Answered:
    """One prompt, as the turns before the reply, and the reply; `address` says where the two came from."""

    address: str
    prompt: tuple[Message, ...]
    reply: str


@dataclass(frozen=True, slots=True)
class Replies:
    """What one model said; `name` is what tables and pages call it."""

    name: str
    rows: tuple[Answered, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replies to one prompt. `key` is a hash of the three texts: a verdict on other texts is of another pair."""

    key: str
    address: str
    prompt: tuple[Message, ...]
    reply_a: str
    reply_b: str

    @property
    def is_identical(self) -> bool:
        """Whether both said the same: a tie that nobody needs to be asked about."""
        return self.reply_a == self.reply_b

    def shown(self, left: Side) -> tuple[str, str]:
        """The replies from left to right."""
        return (self.reply_a, self.reply_b) if left == "a" else (self.reply_b, self.reply_a)


@dataclass(frozen=True, slots=True)
class Pairing:
    """All pairs in the order in which they are asked, and the addresses of what has no partner."""

    name_a: str
    name_b: str
    pairs: tuple[Pair, ...]
    alone_a: tuple[str, ...]
    alone_b: tuple[str, ...]


def pair_replies(a: Replies, b: Replies, *, seed: int = 0) -> Pairing:
    """Join by the prompt: its roles and texts. Where one is there several times, the first goes with the first.

    Args:
        a: of the first model.
        b: of the second.
        seed: of the order, which is drawn, so that whoever stops early has seen a sample of all.

    Raises:
        DataError: they have no prompt in common.
    """
    partners: dict[str, list[Answered]] = defaultdict(list)
    for row in b.rows:
        partners[_prompt_text(row)].append(row)
    counts: dict[str, int] = defaultdict(int)
    pairs, alone_a = [], []
    for row in a.rows:
        prompt = _prompt_text(row)
        number = counts[prompt]
        counts[prompt] += 1
        if number < len(partners[prompt]):
            pairs.append(_pair(row, partners[prompt][number], prompt, number))
        else:
            alone_a.append(row.address)
    if not pairs:
        raise _nothing_in_common(a, b)
    alone_b = [row.address for prompt, rows in partners.items() for row in rows[counts[prompt] :]]
    return Pairing(a.name, b.name, in_drawn_order(pairs, seed=seed), tuple(alone_a), tuple(alone_b))


def in_drawn_order(pairs: Iterable[Pair], *, seed: int) -> tuple[Pair, ...]:
    """The pairs in the order in which they are asked."""
    return tuple(sorted(pairs, key=lambda pair: _drawn(seed, "order", pair.key)))


def left_side(pair: Pair, *, seed: int, rater: str) -> Side:
    """Whose reply a rater sees on the left: drawn for each pair and rater, and the same at every start."""
    return "a" if _drawn(seed, rater, pair.key)[0] & 1 else "b"


def other(side: Side) -> Side:
    """The one that is not this."""
    return "b" if side == "a" else "a"


def told(addresses: Sequence[str], *, most: int = 3) -> str:
    """How many there are, and the first of them by name."""
    rest = len(addresses) - most
    return f"{len(addresses)} ({', '.join(addresses[:most])}{f' and {rest} more' if rest > 0 else ''})"


def mean_length(replies: Iterable[str]) -> float:
    """Mean of their characters; 0 of none."""
    lengths = [len(reply) for reply in replies]
    return sum(lengths) / len(lengths) if lengths else 0.0


def _pair(a: Answered, b: Answered, prompt: str, number: int) -> Pair:
    digest = _digest(json.dumps([prompt, number, a.reply, b.reply])).hex()[:KEY_DIGITS]
    address = a.address if a.address == b.address else f"{a.address} | {b.address}"
    return Pair(digest, address, a.prompt, a.reply, b.reply)


def _prompt_text(row: Answered) -> str:
    return json.dumps([[message.role, message.content] for message in row.prompt])


def _drawn(seed: int, purpose: str, key: str) -> bytes:
    return _digest(json.dumps([seed, purpose, key]))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _nothing_in_common(a: Replies, b: Replies) -> DataError:
    firsts = [
        f"{replies.name} begins with {_prompt_text(replies.rows[0])[:SHOWN_CHARACTERS]}" if replies.rows else "no reply"
        for replies in (a, b)
    ]
    return DataError(
        "The two have no prompt in common, so no reply can be compared with another",
        where=f"{a.name} and {b.name}",
        found="; ".join(firsts),
        expected="the same roles and texts before the reply, system prompts included",
        fix="compare replies to the same prompts",
    )

"""Proven turns -> as few sequences as hold them all, each turn on exactly the tokens it was proven on."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tutelage.render.prompt_boundary import spelled_after
from tutelage.render.required_text import EXCERPT_CHARACTERS, Unproven
from tutelage.render.tokenizer import Tokenizer
from tutelage.types import Address, Change, Example


@dataclass(frozen=True, slots=True)
class ProvenTurn:
    """A trained turn as ids; `text` is what `reply_ids` must decode to behind the prompt."""

    message: int
    weight: float
    prompt_ids: list[int]
    reply_ids: list[int]
    text: str


def sequences(turns: Sequence[ProvenTurn]) -> Iterator[tuple[list[int], list[ProvenTurn]]]:
    """Ids and the turns that stand in them: the last turn's, if it holds all; else one more for each group left."""
    remaining = list(turns)
    while remaining:
        sequence = remaining[-1].prompt_ids + remaining[-1].reply_ids
        included: list[ProvenTurn] = []
        deferred: list[ProvenTurn] = []
        end = 0
        for turn in remaining:
            # A turn that repeats an earlier one word for word stands on the same tokens: it needs its own sequence.
            fits = len(turn.prompt_ids) >= end and _is_prefix(turn, sequence)
            (included if fits else deferred).append(turn)
            end = len(turn.prompt_ids) + len(turn.reply_ids) if fits else end
        if not included or included[-1] is not remaining[-1]:
            included, deferred = [remaining[-1]], remaining[:-1]
        yield sequence, included
        remaining = deferred


def _is_prefix(turn: ProvenTurn, sequence: list[int], *, ignored_tokens: int = 0) -> bool:
    """Whether prompt and reply stand at the beginning; `ignored_tokens` tokens of the reply's end aside."""
    end, reply_ids = len(turn.prompt_ids), turn.reply_ids[: len(turn.reply_ids) - ignored_tokens]
    return sequence[:end] == turn.prompt_ids and sequence[end : end + len(reply_ids)] == reply_ids


def split_cost(examples: Sequence[Example], turns: Sequence[ProvenTurn], appended: frozenset[int]) -> str:
    """What it costs that a row became several sequences, and why, in words; `appended` are turns with such a stop."""
    tokens = sum(len(example.ids) for example in examples)
    longest = max(len(example.ids) for example in examples)
    first_ids = examples[0].ids.tolist()
    split_off = {turn.message for example in examples[1:] for turn in example.turns}
    caused_by_stop = all(
        _is_prefix(turn, first_ids, ignored_tokens=int(turn.message in appended))
        for turn in turns
        if turn.message in split_off
    )
    cause = (
        "the stop token that is appended to a reply does not stand in the history of the next turn"
        if caused_by_stop
        else "the template writes a turn otherwise once it is history"
    )
    return f"{len(examples)} sequences of {tokens} tokens together, where the longest alone has {longest}: {cause}"


def decoding_difference(tokenizer: Tokenizer, address: Address, turn: ProvenTurn, decoded: str) -> tuple[Change, ...]:
    """A second look at ids whose plain decoding, `decoded`, is not the text that was rendered.

    Raises:
        Unproven: the two are not the same characters.
    """
    spelled = spelled_after(tokenizer, turn.prompt_ids, turn.reply_ids)
    if spelled == turn.text:
        return ()
    excerpt = slice(EXCERPT_CHARACTERS)
    difference = f"message {turn.message}: rendered {turn.text[excerpt]!r}, ids say {decoded[excerpt]!r}"
    if unicodedata.normalize("NFC", spelled) != unicodedata.normalize("NFC", turn.text):
        raise Unproven("round_trip", difference)
    return (Change(address, "text_normalised", f"{difference}: the same characters, composed otherwise"),)

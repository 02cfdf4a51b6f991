"""Proven turns -> as few sequences as hold them all, each turn on exactly the tokens it was proven on."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tutelage.render.prompt_boundary import spelled_behind
from tutelage.render.required_text import SHOWN_CHARACTERS, Unproven
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
    left = list(turns)
    while left:
        sequence = left[-1].prompt_ids + left[-1].reply_ids
        held: list[ProvenTurn] = []
        rest: list[ProvenTurn] = []
        end = 0
        for turn in left:
            # A turn that repeats an earlier one word for word stands on the same tokens: it needs its own sequence.
            fits = len(turn.prompt_ids) >= end and _stands_in(turn, sequence)
            (held if fits else rest).append(turn)
            end = len(turn.prompt_ids) + len(turn.reply_ids) if fits else end
        if not held or held[-1] is not left[-1]:
            held, rest = [left[-1]], left[:-1]
        yield sequence, held
        left = rest


def _stands_in(turn: ProvenTurn, sequence: list[int], *, less: int = 0) -> bool:
    """Whether prompt and reply stand at the beginning; `less` tokens of the reply's end aside."""
    end, said = len(turn.prompt_ids), turn.reply_ids[: len(turn.reply_ids) - less]
    return sequence[:end] == turn.prompt_ids and sequence[end : end + len(said)] == said


def cost_of(examples: Sequence[Example], turns: Sequence[ProvenTurn], appended: frozenset[int]) -> str:
    """What it costs that a row became several sequences, and why, in words; `appended` are turns with such a stop."""
    tokens = sum(len(example.ids) for example in examples)
    longest = max(len(example.ids) for example in examples)
    whole = examples[0].ids.tolist()
    apart = {turn.message for example in examples[1:] for turn in example.turns}
    by_stop = all(
        _stands_in(turn, whole, less=int(turn.message in appended)) for turn in turns if turn.message in apart
    )
    cause = (
        "the stop token that is appended to a reply does not stand in the history of the next turn"
        if by_stop
        else "the template writes a turn otherwise once it is history"
    )
    return f"{len(examples)} sequences of {tokens} tokens together, where the longest alone has {longest}: {cause}"


def said_otherwise(tokenizer: Tokenizer, address: Address, turn: ProvenTurn, spoken: str) -> tuple[Change, ...]:
    """A second look at ids whose plain decoding, `spoken`, is not the text that was rendered.

    Raises:
        Unproven: the two are not the same characters.
    """
    spelled = spelled_behind(tokenizer, turn.prompt_ids, turn.reply_ids)
    if spelled == turn.text:
        return ()
    shown = slice(SHOWN_CHARACTERS)
    both = f"message {turn.message}: rendered {turn.text[shown]!r}, ids say {spoken[shown]!r}"
    if unicodedata.normalize("NFC", spelled) != unicodedata.normalize("NFC", turn.text):
        raise Unproven("round_trip", both)
    return (Change(address, "text_normalised", f"{both}: the same characters, composed otherwise"),)

"""A row as text, before it is ids."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.render.replies import RenderedTurn
from tutelage.render.required_text import Unproven
from tutelage.render.sequences import ProvenTurn
from tutelage.render.special_tokens import Span
from tutelage.types import Change, Conversation


@dataclass(frozen=True, slots=True)
class Draft:
    """A row as text.

    Attributes:
        conversation: the row.
        turns: its trained turns.
        escaped: the special tokens in it that are to be encoded as ordinary characters.
        changes: remarks for the ledger.
        turns_over_limit: how many more turns were to be trained, and begin beyond the limit of tokens.
    """

    conversation: Conversation
    turns: tuple[RenderedTurn, ...]
    escaped: tuple[Span, ...]
    changes: tuple[Change, ...]
    turns_over_limit: int = 0

    @property
    def appended(self) -> frozenset[int]:
        """Messages whose stop token is appended, as the template writes none."""
        return frozenset(turn.message for turn in self.turns if not turn.stop_written)


def cut_to_limit(draft: Draft, turns: list[ProvenTurn], most_tokens: int | None) -> tuple[list[ProvenTurn], Change]:
    """Of a row that was not rendered to its end the turns within the limit, which is all that may be kept of it.

    Raises:
        Unproven: there are none.
    """
    assert most_tokens is not None
    kept_turns = [turn for turn in turns if len(turn.prompt_ids) + len(turn.reply_ids) <= most_tokens]
    limit = f"the limit pack.max_seq_length is {most_tokens}"
    if not kept_turns:
        raise Unproven("too_long", f"no trained turn ends within it; {limit}")
    detail = (
        f"{len(kept_turns)} of {len(turns) + draft.turns_over_limit} trained turns stay, the others end later; {limit}"
    )
    return kept_turns, Change(draft.conversation.address, "turns_cut", detail)

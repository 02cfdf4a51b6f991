"""The ids that weigh a choice: those of a reply that the template would write, behind the prompt that is served.

A choice is never encoded alone: spaces, merges and the template's own words before a reply depend on what stands before
them. The renderer writes each choice as the assistant's turn, and proves it as it proves a row that is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tutelage.errors import DataError
from tutelage.evaluate.choice_items import ChoiceItem
from tutelage.render import Renderer
from tutelage.render.prompt_boundary import decoded_after
from tutelage.types import Address, Conversation, Drop, Message, TokenIds

ANSWER_ONLY = "Answer:"
"""What the user says where the choices are weighed without the question. Source: Holtzman et al. 2021 ("Surface Form
Competition", arXiv:2104.08315), whose such prompt is how the question's own prompt ends, as in "answer:"."""


@dataclass(frozen=True, slots=True)
class WeighedReply:
    """A choice as a reply.

    Attributes:
        prompt: ids before it: the served prompt, and what the template writes before every reply.
        ids: those that hold the choice's characters; with `end`, through the stop token.
    """

    prompt: TokenIds
    ids: TokenIds


def weighed_replies(renderer: Renderer, items: Sequence[ChoiceItem]) -> list[tuple[WeighedReply, ...]]:
    """Each choice of each item behind its question.

    Raises:
        DataError: the template cannot write a choice as a reply, with the item's address.
    """
    return _replies(renderer, [(item, item.messages) for item in items])


def answer_only_replies(renderer: Renderer, items: Sequence[ChoiceItem]) -> list[tuple[WeighedReply, ...]]:
    """The same behind `ANSWER_ONLY`.

    Raises:
        DataError: as `weighed_replies`.
    """
    return _replies(renderer, [(item, (Message("user", ANSWER_ONLY),)) for item in items])


def _replies(
    renderer: Renderer, asked: Sequence[tuple[ChoiceItem, tuple[Message, ...]]]
) -> list[tuple[WeighedReply, ...]]:
    """Equal turns are rendered once: most items share their choices, or have the same neutral prompt."""
    turns = dict.fromkeys((messages, choice) for item, messages in asked for choice in item.choices)
    addresses = {(messages, choice): item.address for item, messages in asked for choice in item.choices}
    # What limits and masks the rows of training is not asked of a question.
    asking = replace(renderer, train_on="replies", turns="last", most_tokens=None, too_long="drop")
    outcomes = asking.prove(
        [
            Conversation((*messages, Message("assistant", choice)), addresses[messages, choice])
            for messages, choice in turns
        ]
    )
    whole: dict[tuple[tuple[Message, ...], str], tuple[TokenIds, TokenIds]] = {}
    for turn, outcome in zip(turns, outcomes, strict=True):
        if isinstance(outcome, Drop):
            raise _no_reply(addresses[turn], turn[1], f"{outcome.reason}: {outcome.detail}")
        example = outcome.examples[-1]
        last = example.turns[-1]
        whole[turn] = example.ids[: last.prompt_end], example.ids[last.prompt_end : last.reply_end]
    return [_cut(asking, item, [whole[messages, choice] for choice in item.choices]) for item, messages in asked]


def _cut(renderer: Renderer, item: ChoiceItem, whole: Sequence[tuple[TokenIds, TokenIds]]) -> tuple[WeighedReply, ...]:
    """The replies without what the template writes before every choice and, but where the end counts, after it."""
    places = [
        _places(renderer, item.address, choice, prompt.tolist(), reply.tolist())
        for choice, (prompt, reply) in zip(item.choices, whole, strict=True)
    ]
    # The earliest of all: of one choice a space may be a token of its own, and of another a part of its first word.
    first = min(first for first, _ in places)
    return tuple(
        WeighedReply(
            np.concatenate((prompt, reply[:first])),
            reply[first:] if item.counts_the_end else reply[first:end],
        )
        for (prompt, reply), (_, end) in zip(whole, places, strict=True)
    )


def _places(renderer: Renderer, address: Address, choice: str, prompt: list[int], reply: list[int]) -> tuple[int, int]:
    """Between which tokens of the reply the choice's characters stand: of the first one, and behind the last one."""
    texts = decoded_after(renderer.tokenizer, [(prompt, reply[:tokens]) for tokens in range(1, len(reply))])
    body = texts[-1] if texts else ""  # without the stop token, whose spelling may hold the choice
    start = body.rfind(choice)
    if start < 0:
        raise _no_reply(address, choice, f"the reply reads {body[:80]!r}")
    first = next(place for place, text in enumerate(texts) if len(text) > start)
    last = next(place for place, text in enumerate(texts) if text.startswith(body[: start + len(choice)]))
    return first, last + 1


def _no_reply(address: Address, choice: str, why: str) -> DataError:
    return DataError(
        "A choice cannot be written as a reply by the model's template",
        where=str(address),
        found=f"{choice[:80]!r}: {why}",
        expected="words that stand in the reply as they stand in the row",
        fix="change this choice, or leave the question out",
    )

"""Prompts -> replies, a portion at a time, so that what is served at once has a bound; each is kept as it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tutelage.distributed.collective_errors import collective_call
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.evaluate.reply_log import NOT_KEPT, ReplyLog
from tutelage.generate.batch_check import Batching
from tutelage.generate.replies import greedy_replies
from tutelage.generate.requests import EndedReply
from tutelage.model.out_of_memory import is_out_of_memory, release_memory
from tutelage.render import Tokenizer
from tutelage.types import TokenIds

PORTION = 512
"""Prompts that are served at once: few enough that their ids take no room to speak of, and so many that the engine,
which runs dry at the end of each portion, hardly does."""


@dataclass(frozen=True, slots=True)
class Served:
    """Prompts that are served when they are asked: how many, and what makes the ids of each."""

    count: int
    serve: Callable[[int], TokenIds]


@dataclass(frozen=True, slots=True)
class Asking:
    """How prompts are asked.

    Attributes:
        max_new_tokens: where a reply that never stops is cut.
        batch_prompts: prompts answered together.
        batching: how they may be, as it was tried on the model.
        done: called with the number of replies finished since the last call.
        log: told where memory runs out, and less is computed at once.
        process_group: processes that share the prompts; all get all replies.
        replies: those that are there are not asked for; all others are kept there.
        again: what is asked was asked before, so that only replies to asking again count as there.
        given: replies of another engine, by the bytes of a prompt's ids, which are not asked for either.
    """

    max_new_tokens: int
    batch_prompts: int
    batching: Batching
    done: Callable[[int], None] = lambda _: None
    log: Callable[[str], None] = lambda _: None
    process_group: ProcessGroup = SINGLE
    replies: ReplyLog = NOT_KEPT
    again: bool = False
    given: Mapping[bytes, EndedReply] = field(default_factory=dict)


def ask(model: Any, tokenizer: Tokenizer, prompts: Served, how: Asking) -> list[EndedReply]:
    """The reply to each prompt, in order; where memory runs out, the rest is asked of half as many at once.

    Args:
        model: attends as served (`model.attention.packed.use_generation_attention`).
        tokenizer: its stop tokens end a reply.
        prompts: what is asked.
        how: it is asked.

    Raises:
        RuntimeError, MemoryError, CollectiveError: one prompt alone cannot be answered, or served.
    """
    replies: list[EndedReply] = []
    for start in range(0, prompts.count, PORTION):
        places = range(start, min(start + PORTION, prompts.count))
        portion = collective_call(how.process_group, partial(_served, prompts, places))
        answered, how = _ask_portion(model, tokenizer, portion, how)
        replies += answered
    return replies


def _served(prompts: Served, places: Sequence[int]) -> list[TokenIds]:
    return [prompts.serve(place) for place in places]


def _ask_portion(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[TokenIds], how: Asking
) -> tuple[list[EndedReply], Asking]:
    """The replies, and how to go on: of fewer at once, where memory ran out."""
    group = how.process_group
    keys = [how.replies.key(prompt, again=how.again) for prompt in prompts]
    replies = {place: how.replies.known[key] for place, key in enumerate(keys) if key in how.replies.known}
    replies |= {at: how.given[ids] for at, ids in enumerate(map(_bytes, prompts)) if ids in how.given}
    how.done(len(range(group.rank, len(replies), group.size)))
    while waiting := [place for place in range(len(prompts)) if place not in replies]:
        batch_prompts = min(how.batch_prompts, len(waiting))
        own: dict[int, EndedReply] = {}
        answered: list[EndedReply] | None = None
        try:
            answered = greedy_replies(
                model,
                tokenizer,
                [prompts[place] for place in waiting],
                max_new_tokens=how.max_new_tokens,
                batch_prompts=batch_prompts,
                batching=how.batching,
                done=how.done,
                on_reply=partial(_keep, how.replies, keys, waiting, own),
                process_group=group,
            )
        except (RuntimeError, MemoryError) as error:
            if batch_prompts == 1 or not is_out_of_memory(error):
                raise
        if answered is not None:
            replies |= dict(zip(waiting, answered, strict=True))
            continue
        release_memory()  # behind the handler, whose error keeps what the failed pass had allocated
        for own_of_rank in group.gather(own):
            replies |= own_of_rank
        how = replace(how, batch_prompts=batch_prompts // 2)
        how.log(f"Memory ran out as prompts were answered: the rest is asked {how.batch_prompts} at once")
    return [replies[place] for place in range(len(prompts))], how


def _bytes(ids: TokenIds) -> bytes:
    return ids.tobytes()


def _keep(
    kept: ReplyLog,
    keys: Sequence[str],
    waiting: Sequence[int],
    own: dict[int, EndedReply],
    at: int,
    reply: EndedReply,
) -> None:
    """Take the reply to the prompt that is `at` this place of those that wait."""
    own[waiting[at]] = reply
    kept.add(keys[waiting[at]], reply)


def ask_again(
    model: Any, tokenizer: Tokenizer, prompts: Mapping[str, Served], how: Asking, *, most: int
) -> dict[str, dict[int, str]]:
    """Texts of the replies to some of the prompts, by set and place, asked of a quarter as many at once.

    Nothing, said, where prompts are answered one at a time: then nothing else is in a batch.

    Args:
        model: as for `ask`.
        tokenizer: as for `ask`.
        prompts: all of them, by set.
        how: they were asked.
        most: so many of them, spread evenly over all sets.
    """
    places = [(name, place) for name, served in prompts.items() for place in range(served.count)]
    chosen = [places[number * len(places) // most] for number in range(most)]
    if how.batching.kind == "alone":
        how.log("  note: the noise floor is not measured: prompts are answered one at a time")
        how.done(len(range(how.process_group.rank, most, how.process_group.size)))
        return {}
    again = Served(most, lambda number: prompts[chosen[number][0]].serve(chosen[number][1]))
    other = replace(how, batch_prompts=max(1, min(how.batch_prompts, len(places)) // 4), again=True)
    texts: dict[str, dict[int, str]] = {name: {} for name in prompts}
    for (name, place), reply in zip(chosen, ask(model, tokenizer, again, other), strict=True):
        texts[name][place] = reply.text
    return texts

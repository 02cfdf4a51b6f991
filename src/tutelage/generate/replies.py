"""Greedy replies to served prompts, as a server would give them: same ids in, the stop tokens end a reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tutelage.distributed.collective_errors import collective_call
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import TemplateError
from tutelage.generate.batch_check import Batching, batches_of, batching_of
from tutelage.generate.engine import Engine
from tutelage.generate.padded import Streamer, padded_replies
from tutelage.generate.requests import Request
from tutelage.model.attention.packed import use_generation_attention
from tutelage.render import Renderer, Tokenizer
from tutelage.render.chat_template.template import TemplateRefusal
from tutelage.types import Message, TokenIds

PROMPTS_TOGETHER = 32
"""As `evaluate.batch_prompts` has it: what fits small models on one device."""


def greedy_replies(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[TokenIds],
    *,
    max_new_tokens: int,
    batch_prompts: int,
    batching: Batching | None = None,
    done: Callable[[int], None] = lambda _: None,
    process_group: ProcessGroup = SINGLE,
) -> list[str]:
    """One reply for each prompt, in order, without its stop token; at most `max_new_tokens` long.

    Args:
        model: attends as served (`model.attention.packed.use_generation_attention`).
        tokenizer: its stop tokens end a reply.
        prompts: ids of served prompts.
        max_new_tokens: where a reply that never stops is cut.
        batch_prompts: prompts answered together.
        batching: how they are, as `answered_together` found; None: it is tried.
        done: called with the number of replies finished since the last call.
        process_group: processes that share the prompts, each with the whole model; all get all replies.

    Raises:
        MemoryError, CollectiveError: on all of several processes, as one could not answer (`collective_errors`).
    """
    model.eval()
    replies: dict[int, str] = {}
    if batching is None:
        batching = (
            answered_together(model, tokenizer, process_group=process_group)
            if batch_prompts > 1 < len(prompts)
            else Batching("alone")
        )
    rank, size = process_group.rank, process_group.size

    def answer_share() -> None:
        if batching.kind == "packed":
            replies.update(_packed(range(rank, len(prompts), size)))
            return
        for batch in batches_of(prompts, batch_prompts=batch_prompts, batching=batching.kind)[rank::size]:
            with torch.inference_mode():
                ids = padded_replies(model, tokenizer, [prompts[index] for index in batch], max_new_tokens)
            replies.update(zip(batch, tokenizer.decode_all(ids), strict=True))
            done(len(batch))

    def _packed(places: range) -> dict[int, str]:
        engine = Engine(
            model,
            tokenizer,
            head=batching.head,
            active_replies=batch_prompts,
            shares_beginnings=batching.shares_beginnings,
        )
        # The longest first: at the end, when no prompt is left to take a place, few tokens of a reply remain.
        order = sorted(places, key=lambda place: len(prompts[place]), reverse=True)
        texts: dict[int, str] = {}
        try:
            for completion in engine.generate([Request(prompts[place], max_new_tokens) for place in order]):
                texts[order[completion.request]] = completion.text
                done(1)
        finally:
            use_generation_attention(model)
        return texts

    collective_call(process_group, answer_share)
    all_replies = {
        index: reply for rank_replies in process_group.gather(replies) for index, reply in rank_replies.items()
    }
    return [all_replies[index] for index in range(len(prompts))]


def served_ids(renderer: Renderer, messages: Sequence[Message]) -> TokenIds:
    """The served prompt of a conversation, from outside of any data.

    Raises:
        TemplateError: the model's template refuses it.
    """
    try:
        return renderer.serve(messages)
    except TemplateRefusal as refusal:
        raise TemplateError(
            "The model's chat template does not accept this conversation",
            where=renderer.template.name,
            found=str(refusal),
            fix="leave out the system prompt, or begin a new conversation with a user's message",
        ) from refusal


def replies_to(
    model: Any, renderer: Renderer, conversations: Sequence[Sequence[Message]], *, max_new_tokens: int
) -> list[str]:
    """One greedy reply to each conversation, the model attending as a server would; it does so from here on.

    Raises:
        TemplateError: the model's template refuses one of them.
    """
    prompts = [served_ids(renderer, messages) for messages in conversations]
    use_generation_attention(model)
    return greedy_replies(
        model, renderer.tokenizer, prompts, max_new_tokens=max_new_tokens, batch_prompts=PROMPTS_TOGETHER
    )


@torch.inference_mode()
def streamed_reply(
    model: Any, tokenizer: Tokenizer, prompt: TokenIds, *, max_new_tokens: int, streamer: Streamer
) -> str:
    """One greedy reply, its ids handed to `streamer` as they come."""
    model.eval()
    return tokenizer.decode(padded_replies(model, tokenizer, [prompt], max_new_tokens, streamer)[0])


@torch.inference_mode()
def answered_together(model: Any, tokenizer: Tokenizer, *, process_group: ProcessGroup = SINGLE) -> Batching:
    """How this model may answer prompts together, tried on it; every process gets what the main one found.

    Args:
        model: attends as served (`model.attention.packed.use_generation_attention`), here and afterwards.
        tokenizer: its first stop token is what pads prompts, in the trial, too: a model may pass over another.
        process_group: processes that share the prompts.
    """
    model.eval()
    return process_group.gather(collective_call(process_group, lambda: batching_of(model, tokenizer)))[0]

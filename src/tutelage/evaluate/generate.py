"""Greedy replies to served prompts, as a server would give them: same ids in, the stop tokens end a reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from tutelage.distributed.collective_errors import collective_call
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import TemplateError
from tutelage.evaluate.batch_check import Together, batches_of, together
from tutelage.model.adapters.prompt_tuning import generation_inputs
from tutelage.model.attention.packed import use_generation_attention
from tutelage.render import Renderer, Tokenizer
from tutelage.render.chat_template.template import TemplateRefusal
from tutelage.types import Message, TokenIds

TRIED_STEPS = 3
"""Tokens that are generated to see which prompts may be answered together: the first of the prompts, the others of a
cache."""


PROMPTS_TOGETHER = 32
"""As `evaluate.batch_prompts` has it: what fits small models on one device."""


class Streamer(Protocol):
    """Receives ids as they are generated, the prompt's first: the interface that transformers asks for."""

    def put(self, value: torch.Tensor) -> None:
        """Take the next ids."""

    def end(self) -> None:
        """The reply is complete."""


@torch.inference_mode()
def greedy_replies(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[TokenIds],
    *,
    max_new_tokens: int,
    batch_prompts: int,
    batching: Together | None = None,
    done: Callable[[int], None] = lambda _: None,
    process_group: ProcessGroup = SINGLE,
) -> list[str]:
    """One reply for each prompt, in order, without its stop token; at most `max_new_tokens` long.

    Args:
        model: attends as served (`model.attention.packed.use_generation_attention`).
        tokenizer: its stop tokens end a reply.
        prompts: ids of served prompts.
        max_new_tokens: where a reply that never stops is cut.
        batch_prompts: prompts generated together, longest first so that a batch holds like lengths.
        batching: prompts may be, as `answered_together` found; None: it is tried.
        done: called with the number of replies finished since the last call.
        process_group: processes that share the batches of prompts, each with the whole model; all get all replies.

    Raises:
        MemoryError, CollectiveError: on all of several processes, as one could not answer (`collective_errors`).
    """
    model.eval()
    replies: dict[int, str] = {}
    if batching is None:
        batching = (
            answered_together(model, tokenizer, process_group=process_group)
            if batch_prompts > 1 < len(prompts)
            else "padded"
        )
    batches = batches_of(prompts, batch_prompts=batch_prompts, batching=batching)

    def answer_share() -> None:
        for batch in batches[process_group.rank :: process_group.size]:
            ids = _generate(model, tokenizer, [prompts[index] for index in batch], max_new_tokens, None)
            for index, reply in zip(batch, ids, strict=True):
                replies[index] = tokenizer.decode(reply)
            done(len(batch))

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
    return tokenizer.decode(_generate(model, tokenizer, [prompt], max_new_tokens, streamer)[0])


@torch.inference_mode()
def answered_together(model: Any, tokenizer: Tokenizer, *, process_group: ProcessGroup = SINGLE) -> Together:
    """Which prompts this model may answer together, tried on it; every process gets what the main one found.

    Args:
        model: attends as served (`model.attention.packed.use_generation_attention`).
        tokenizer: its first stop token is what pads prompts, in the trial, too: a model may pass over another.
        process_group: processes that share the prompts.
    """
    model.eval()
    vocabulary, stops = len(model.get_input_embeddings().weight), sorted(tokenizer.stop_ids)
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())

    def answer(prompts: Sequence[TokenIds]) -> Sequence[torch.Tensor]:
        output, _ = _generated(
            model, prompts, stops, max_new_tokens=TRIED_STEPS, min_new_tokens=TRIED_STEPS, output_logits=True
        )
        return list(torch.stack(output.logits, dim=1).float())

    return process_group.gather(
        collective_call(process_group, lambda: together(answer, vocabulary=vocabulary, dtype=dtype))
    )[0]


def _generate(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[TokenIds], max_new_tokens: int, streamer: Streamer | None
) -> list[list[int]]:
    stops = sorted(tokenizer.stop_ids)
    output, start = _generated(model, prompts, stops, max_new_tokens=max_new_tokens, streamer=streamer)
    return [_until_stop(sequence[start:].tolist(), tokenizer.stop_ids) for sequence in output.sequences]


def _generated(
    model: Any, prompts: Sequence[TokenIds], stops: list[int], *, streamer: Streamer | None = None, **settings: Any
) -> tuple[Any, int]:
    """What transformers generates, and where replies begin in its `sequences`."""
    from peft import PeftModel
    from transformers import GenerationConfig

    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), stops[0], dtype=torch.long, device=model.device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # padded on the left, so that every reply starts at the same column
        ids[row, width - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, width - len(prompt) :] = 1
    generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=stops[0],
        use_cache=True,
        return_dict_in_generate=True,
        **settings,
    )
    # PEFT's own generate computes logits for the whole prompt; the model it wraps, which holds the adapter's layers
    # too, computes them for the last position only.
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    model_inputs = generation_inputs(model, ids, mask)
    output = inner.generate(
        **model_inputs,
        generation_config=generation_config,
        streamer=streamer,
        synced_gpus=False,  # each process may generate something else: its model is whole here
    )
    return output, width if "input_ids" in model_inputs else 0  # from embeddings, generate returns new ids only


def _until_stop(ids: list[int], stop_ids: frozenset[int]) -> list[int]:
    for position, token in enumerate(ids):
        if token in stop_ids:
            return ids[:position]
    return ids

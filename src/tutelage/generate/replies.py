"""Greedy replies to served prompts, as a server would give them: same ids in, the stop tokens end a reply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from tutelage.distributed.collective_errors import collective_call
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import ConfigError, TemplateError
from tutelage.generate.batch_check import Batching, batches_of, batching_of
from tutelage.generate.engine import Engine
from tutelage.generate.padded import padded_replies
from tutelage.generate.requests import GREEDY, EndedReply, Request, Sampling
from tutelage.model.attention.packed import use_generation_attention
from tutelage.render import Renderer, Tokenizer
from tutelage.render.chat_template.template import TemplateRefusal
from tutelage.types import Message, TokenIds

PROMPTS_TOGETHER = 32
"""As `evaluate.batch_prompts` has it: what fits small models on one device."""

OnReply = Callable[[int, EndedReply], None]
"""Called with the place of a prompt and its reply, as each ends."""
Served = TypeVar("Served")


def greedy_replies(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[TokenIds],
    *,
    max_new_tokens: int,
    batch_prompts: int,
    batching: Batching | None = None,
    done: Callable[[int], None] = lambda _: None,
    on_reply: OnReply = lambda _place, _reply: None,
    process_group: ProcessGroup = SINGLE,
) -> list[EndedReply]:
    """One reply for each prompt, in order, with what ended it; at most `max_new_tokens` long.

    Args:
        model: attends as served (`model.attention.packed.use_generation_attention`).
        tokenizer: its stop tokens end a reply.
        prompts: ids of served prompts.
        max_new_tokens: where a reply that never stops is cut.
        batch_prompts: prompts answered together.
        batching: how they are, as `answered_together` found; None: it is tried.
        done: called with the number of replies finished since the last call.
        on_reply: called with each reply of this process.
        process_group: processes that share the prompts, each with the whole model; all get all replies.

    Raises:
        MemoryError, CollectiveError: on all of several processes, as one could not answer (`collective_errors`).
    """
    model.eval()
    replies: dict[int, EndedReply] = {}
    if batching is None:
        batching = (
            answered_together(model, tokenizer, process_group=process_group)
            if batch_prompts > 1 < len(prompts)
            else Batching("alone")
        )
    rank, size = process_group.rank, process_group.size

    def answer_share() -> None:
        if batching.kind == "packed":
            engine = engine_for(model, tokenizer, batching, batch_prompts)
            answers = _by_engine(engine, prompts, range(rank, len(prompts), size), max_new_tokens)
        else:
            batches = batches_of(prompts, batch_prompts=batch_prompts, batching=batching.kind)[rank::size]
            answers = by_batches(model, tokenizer, prompts, batches, max_new_tokens)
        for place, reply in answers:
            replies[place] = reply
            on_reply(place, reply)
            done(1)

    collective_call(process_group, answer_share)
    all_replies = {
        index: reply for rank_replies in process_group.gather(replies) for index, reply in rank_replies.items()
    }
    return [all_replies[index] for index in range(len(prompts))]


def engine_for(model: Any, tokenizer: Tokenizer, batching: Batching, active_replies: int) -> Engine:
    """The engine as `batching` found it fit."""
    return Engine(
        model,
        tokenizer,
        head=batching.head,
        active_replies=active_replies,
        shares_beginnings=batching.shares_beginnings,
    )


def by_batches(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[TokenIds],
    batches: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> Iterator[tuple[int, EndedReply]]:
    """The replies to the prompts in these places, each with its place, by transformers' generate."""
    for batch in batches:
        with torch.inference_mode():
            ids = padded_replies(model, tokenizer, [prompts[place] for place in batch], max_new_tokens)
        for place, reply_ids, text in zip(batch, ids, tokenizer.decode_all(ids), strict=True):
            cut = len(reply_ids) >= max_new_tokens  # a stop token would have been one of them
            yield place, EndedReply(text, len(reply_ids), "length" if cut else "stop_token")


def _by_engine(
    engine: Engine, prompts: Sequence[TokenIds], places: Sequence[int], max_new_tokens: int
) -> Iterator[tuple[int, EndedReply]]:
    """The replies to the prompts in these places, each with its place, as they end.

    The longest begin first: at the end, when no prompt is left to take a place, few tokens of a reply remain.
    """
    order = sorted(places, key=lambda place: len(prompts[place]), reverse=True)
    for completion in engine.generate([Request(prompts[place], max_new_tokens) for place in order]):
        yield order[completion.request], EndedReply(completion.text, len(completion.ids), completion.ended_by)


def drawn_replies(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[TokenIds],
    *,
    max_new_tokens: int,
    batch_prompts: int,
    seed: int,
    done: Callable[[int], None] = lambda _: None,
) -> tuple[list[list[int]], bool]:
    """Ids of a reply to each prompt, without a stop token, and whether they were drawn, at temperature 1.

    Where the engine does not fit the model nothing can be drawn: they are its likeliest replies then.

    Args:
        model: attends as served (`model.attention.packed.use_generation_attention`).
        tokenizer: its stop tokens end a reply.
        prompts: ids of served prompts.
        max_new_tokens: where a reply is cut.
        batch_prompts: replies that grow together.
        seed: of the random numbers; a reply depends on it and its prompt alone.
        done: called with the number of replies finished since the last call.
    """
    model.eval()
    batching = answered_together(model, tokenizer)
    replies: list[list[int]] = [[] for _ in prompts]
    if batching.kind == "packed":
        engine = engine_for(model, tokenizer, batching, batch_prompts)
        sampling = Sampling(temperature=1.0, seed=seed)
        for completion in engine.generate([Request(prompt, max_new_tokens, sampling) for prompt in prompts]):
            replies[completion.request] = list(completion.ids)
            done(1)
        return replies, True
    for batch in batches_of(prompts, batch_prompts=batch_prompts, batching=batching.kind):
        with torch.inference_mode():
            ids = padded_replies(model, tokenizer, [prompts[index] for index in batch], max_new_tokens)
        for index, reply in zip(batch, ids, strict=True):
            replies[index] = reply
        done(len(batch))
    return replies, False


def served_ids(
    renderer: Renderer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    arguments: Mapping[str, Any] = MappingProxyType({}),
) -> TokenIds:
    """The served prompt of a conversation, from outside of any data.

    Args:
        renderer: of the model.
        messages: all turns so far.
        tools: on offer.
        arguments: of the template, as a row has them.

    Raises:
        TemplateError: the model's template refuses it.
    """
    return _accepted(renderer, lambda: renderer.serve(messages, tools, arguments))


def served_text(renderer: Renderer, messages: Sequence[Message]) -> str:
    """What `served_ids` are the ids of.

    Raises:
        TemplateError: the model's template refuses it.
    """
    return _accepted(renderer, lambda: renderer.served_text(messages))


def _accepted(renderer: Renderer, serve: Callable[[], Served]) -> Served:
    try:
        return serve()
    except TemplateRefusal as refusal:
        raise TemplateError(
            "The model's chat template does not accept this conversation",
            where=renderer.template.name,
            found=str(refusal),
            fix="leave out the system prompt, or begin a new conversation with a user's message",
        ) from refusal


def replies_to(
    model: Any,
    renderer: Renderer,
    conversations: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    stop_strings: Sequence[str] = (),
) -> list[str]:
    """One reply to each conversation, the model attending as a server would; it does so from here on.

    Raises:
        TemplateError: the model's template refuses one of them.
        ConfigError: tokens are to be drawn, or to end at a string, and the engine does not fit the model.
    """
    prompts = [served_ids(renderer, messages) for messages in conversations]
    use_generation_attention(model)
    if sampling == GREEDY and not stop_strings:
        greedy = greedy_replies(
            model, renderer.tokenizer, prompts, max_new_tokens=max_new_tokens, batch_prompts=PROMPTS_TOGETHER
        )
        return [reply.text for reply in greedy]
    engine = _required_engine(model, renderer.tokenizer)
    requests = [Request(prompt, max_new_tokens, sampling, stop_strings=tuple(stop_strings)) for prompt in prompts]
    texts = {completion.request: completion.text for completion in engine.generate(requests)}
    return [texts[place] for place in range(len(prompts))]


def ended_replies(
    model: Any,
    renderer: Renderer,
    conversations: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    batch_prompts: int,
    sampling: Sampling | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> list[EndedReply] | None:
    """One reply to each conversation, with what ended it; None where it is to be drawn and the model does not allow it.

    Args:
        model: with or without PEFT around it; it attends as served from here on.
        renderer: serves the conversations.
        conversations: each ends with a user's message.
        max_new_tokens: where a reply is cut.
        batch_prompts: replies that grow together.
        sampling: how tokens are drawn; None takes the likeliest.
        done: called with the number of replies finished since the last call.

    Raises:
        TemplateError: the model's template refuses one of them.
    """
    prompts = [served_ids(renderer, messages) for messages in conversations]
    use_generation_attention(model)
    model.eval()
    batching = answered_together(model, renderer.tokenizer)
    if sampling is None:
        return greedy_replies(
            model,
            renderer.tokenizer,
            prompts,
            max_new_tokens=max_new_tokens,
            batch_prompts=batch_prompts,
            batching=batching,
            done=done,
        )
    if batching.kind != "packed":
        return None
    engine = engine_for(model, renderer.tokenizer, batching, batch_prompts)
    replies: dict[int, EndedReply] = {}
    for completion in engine.generate([Request(prompt, max_new_tokens, sampling) for prompt in prompts]):
        replies[completion.request] = EndedReply(completion.text, len(completion.ids), completion.ended_by)
        done(1)
    return [replies[place] for place in range(len(prompts))]


def streamed_reply(
    model: Any,
    tokenizer: Tokenizer,
    prompt: TokenIds,
    *,
    max_new_tokens: int,
    on_token: Callable[[int], None],
    sampling: Sampling = GREEDY,
) -> str:
    """One reply, each of its tokens handed to `on_token` as it comes, the stop token left out.

    Args:
        model: attends as served, here and afterwards.
        tokenizer: its stop tokens end the reply.
        prompt: ids of the served prompt.
        max_new_tokens: where a reply that never stops is cut.
        on_token: takes an id.
        sampling: how tokens are chosen.

    Raises:
        ConfigError: tokens are to be drawn, and the engine does not fit the model.
    """
    model.eval()
    if sampling == GREEDY:
        with torch.inference_mode():
            (ids,) = padded_replies(model, tokenizer, [prompt], max_new_tokens, _Stream(tokenizer, on_token))
        return tokenizer.decode(ids)
    engine = _required_engine(model, tokenizer)
    (completion,) = engine.generate(
        [Request(prompt, max_new_tokens, sampling)], lambda _place, _sample, token: on_token(token)
    )
    return completion.text


class _Stream:
    """transformers' streamer: the prompt's ids come first, and stop tokens, too."""

    def __init__(self, tokenizer: Tokenizer, on_token: Callable[[int], None]) -> None:
        self._tokenizer, self._on_token, self._prompt_seen = tokenizer, on_token, False

    def put(self, value: torch.Tensor) -> None:
        """Take the next ids."""
        if self._prompt_seen:
            for token in value.flatten().tolist():
                if token not in self._tokenizer.stop_ids:
                    self._on_token(token)
        self._prompt_seen = True

    def end(self) -> None:
        """The reply is complete."""


def likeliest_only(model: Any) -> ConfigError:
    """The error of a model that the engine does not fit, where more is asked for than its likeliest reply."""
    return ConfigError(
        "This model can only be asked for its most likely reply here",
        where="temperature, top_k, top_p, min_p, stop strings",
        found=f"a {type(model).__name__}, which keeps more of a token than its keys and values",
        expected="a model whose attention alone looks back",
        fix="leave these settings out",
    )


def _required_engine(model: Any, tokenizer: Tokenizer) -> Engine:
    batching = answered_together(model, tokenizer)
    if batching.kind != "packed":
        raise likeliest_only(model)
    return engine_for(model, tokenizer, batching, PROMPTS_TOGETHER)


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

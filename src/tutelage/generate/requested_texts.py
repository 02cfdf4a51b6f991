"""Texts of replies to requests of any kind, by the engine or, where that does not fit the model, as it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tutelage.distributed.collective_errors import collective_call
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.generate.batch_check import Batching, batches_of
from tutelage.generate.replies import answered_together, by_batches, engine_for, likeliest_only
from tutelage.generate.requests import Request
from tutelage.render import Tokenizer


def requested_texts(
    model: Any,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    *,
    batch_prompts: int,
    done: Callable[[int], None] = lambda _: None,
    process_group: ProcessGroup = SINGLE,
) -> list[str]:
    """The text of one reply to each request, in order.

    Args:
        model: attends as served.
        tokenizer: its stop tokens end a reply.
        requests: each for one reply; without log-probabilities.
        batch_prompts: replies that grow together.
        done: called with the number of replies finished since the last call.
        process_group: processes that share the requests, each with the whole model; all get all replies.

    Raises:
        ConfigError: tokens are to be drawn, and the engine does not fit the model.
        MemoryError, CollectiveError: on all of several processes, as one could not answer (`collective_errors`).
    """
    batching = answered_together(model, tokenizer, process_group=process_group)
    drawn = next((request.sampling for request in requests if not request.sampling.is_plain), None)
    if drawn is not None and batching.kind != "packed":
        raise likeliest_only(model)
    places = range(process_group.rank, len(requests), process_group.size)
    answer = _by_engine if batching.kind == "packed" else _by_batches

    def answer_share() -> dict[int, str]:
        texts: dict[int, str] = {}
        for place, text in answer(model, tokenizer, requests, places, batching, batch_prompts):
            texts[place] = text
            done(1)
        return texts

    gathered = process_group.gather(collective_call(process_group, answer_share))
    by_place = {place: text for texts in gathered for place, text in texts.items()}
    return [by_place[place] for place in range(len(requests))]


def _by_engine(
    model: Any,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    places: Sequence[int],
    batching: Batching,
    batch_prompts: int,
) -> Iterator[tuple[int, str]]:
    order = sorted(places, key=lambda place: len(requests[place].prompt), reverse=True)
    engine = engine_for(model, tokenizer, batching, batch_prompts)
    for completion in engine.generate([requests[place] for place in order]):
        yield order[completion.request], completion.text


def _by_batches(
    model: Any,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    places: Sequence[int],
    batching: Batching,
    batch_prompts: int,
) -> Iterator[tuple[int, str]]:
    """By transformers' generate, requests for as many tokens together; texts of `stop_strings` are looked for after."""
    for tokens in sorted({requests[place].max_new_tokens for place in places}):
        alike = [place for place in places if requests[place].max_new_tokens == tokens]
        prompts = [requests[place].prompt for place in alike]
        batches = batches_of(prompts, batch_prompts=batch_prompts, batching=batching.kind)
        for at, reply in by_batches(model, tokenizer, prompts, batches, tokens):
            yield alike[at], cut_at(reply.text, requests[alike[at]].stop_strings)


def cut_at(text: str, stop_strings: Sequence[str]) -> str:
    """The text before the first of these; the whole text where none is there."""
    ends = [place for stop in stop_strings if (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text

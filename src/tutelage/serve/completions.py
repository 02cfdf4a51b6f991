"""Completions of texts: whole, and as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from tutelage.generate.text_stream import TextStream
from tutelage.serve.bodies import FINISH, Head, TokenLogprob, completion_logprobs, logprobs_of, usage
from tutelage.serve.conversation import Underway
from tutelage.serve.request_fields import CompletionFields
from tutelage.serve.worker import NewToken


async def completion_body(fields: CompletionFields, underway: Underway) -> dict[str, Any]:
    """The answer to a request that asks for no stream.

    Raises:
        Problem: as of `Underway.events`.
    """
    asked, choices = underway.asked, []
    entries = await underway.all()
    for prompt, completion in entries:
        before = asked.prompts[prompt] if asked.prompts else ""
        logprobs = None
        if fields.logprobs is not None:
            logprobs = completion_logprobs(asked.model.renderer.tokenizer, logprobs_of(completion), len(before))
        choice: dict[str, Any] = {
            "index": prompt * asked.requests[prompt].samples + completion.sample,
            "text": before + completion.text,
            "logprobs": logprobs,
            "finish_reason": FINISH[completion.ended_by],
        }
        if fields.return_token_ids:
            choice |= {
                "token_ids": list(completion.ids),
                "prompt_token_ids": asked.requests[prompt].prompt.tolist(),
            }
        choices.append(choice)
    counts = usage(_prompt_tokens(underway), [completion for _, completion in entries])
    return Head("text_completion", fields.model).body(choices, usage=counts)


async def completion_chunks(fields: CompletionFields, underway: Underway) -> AsyncIterator[dict[str, Any]]:
    """The parts of a stream, in order.

    Raises:
        Problem: as of `Underway.events`.
    """
    head, asked = Head("text_completion", fields.model), underway.asked
    includes_usage = fields.stream_options is not None and fields.stream_options.include_usage
    more: dict[str, Any] = {"usage": None} if includes_usage else {}
    tokenizer = asked.model.renderer.tokenizer
    streams = [
        [TextStream(tokenizer, request.stop_strings) for _ in range(request.samples)] for request in asked.requests
    ]
    for prompt, text in enumerate(asked.prompts):
        for sample in range(len(streams[prompt])):
            yield head.body([_choice(prompt * len(streams[prompt]) + sample, text)], chunk=True, **more)
    async for told in underway.events():
        event, samples = told.event, streams[told.prompt]
        number = told.prompt * len(samples) + event.sample
        if isinstance(event, NewToken):
            choice = _choice(number, samples[event.sample].add(event.token))
            if fields.logprobs is not None and event.logprob is not None:
                entry = TokenLogprob(event.token, event.logprob, event.likely)
                choice["logprobs"] = completion_logprobs(tokenizer, [entry], 0)
            if fields.return_token_ids:
                choice["token_ids"] = [event.token]
            if choice["text"] or len(choice) > 4 or choice["logprobs"] is not None:
                yield head.body([choice], chunk=True, **more)
        else:
            choice = _choice(number, samples[event.sample].end(event.text))
            yield head.body([{**choice, "finish_reason": FINISH[event.ended_by]}], chunk=True, **more)
    if includes_usage:
        ended = [completion for _, completion in underway.completions]
        yield head.body([], chunk=True, usage=usage(_prompt_tokens(underway), ended))


def _choice(number: int, text: str) -> dict[str, Any]:
    return {"index": number, "text": text, "logprobs": None, "finish_reason": None}


def _prompt_tokens(underway: Underway) -> int:
    return sum(len(request.prompt) for request in underway.asked.requests)

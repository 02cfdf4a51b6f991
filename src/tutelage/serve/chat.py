"""Chat completions: whole, and as a stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tutelage.generate.requests import Completion
from tutelage.generate.text_stream import TextStream
from tutelage.render.call_form import CallForm
from tutelage.serve.bodies import FINISH, Finish, Head, TokenLogprob, call_body, chat_logprobs, logprobs_of, usage
from tutelage.serve.conversation import Told, Underway
from tutelage.serve.request_fields import ChatFields, NamedTool
from tutelage.serve.worker import NewToken


async def chat_body(fields: ChatFields, underway: Underway) -> dict[str, Any]:
    """The answer to a request that asks for no stream.

    Raises:
        Problem: as of `Underway.events`.
    """
    (request,), choices = underway.asked.requests, []
    entries = await underway.all()
    for _, completion in entries:
        message, finish = _message(underway, fields, completion)
        choice = {"index": completion.sample, "message": message, "logprobs": None, "finish_reason": finish}
        if fields.logprobs:
            tokenizer = underway.asked.model.renderer.tokenizer
            choice["logprobs"] = chat_logprobs(tokenizer, logprobs_of(completion))
        if fields.return_token_ids:
            choice["token_ids"] = list(completion.ids)
        choices.append(choice)
    more: dict[str, Any] = {"usage": usage(len(request.prompt), [completion for _, completion in entries])}
    if fields.return_token_ids:
        more["prompt_token_ids"] = request.prompt.tolist()
    return Head("chat.completion", fields.model).body(choices, system_fingerprint=None, **more)


def _message(underway: Underway, fields: ChatFields, completion: Completion) -> tuple[dict[str, Any], Finish]:
    """The reply as a message, calls of tools read from it where tools are on offer."""
    message: dict[str, Any] = {"role": "assistant", "content": completion.text, "refusal": None}
    finish = FINISH[completion.ended_by]
    if (form := underway.asked.call_form) is not None:
        content, calls = form.parse(completion.text, fields.tools or ())
        if calls and fields.parallel_tool_calls is False:
            calls = calls[:1]
        if calls:
            message["content"] = content or None
            message["tool_calls"] = [call_body(call, _arguments(call.arguments)) for call in calls]
            # Where the function was named, OpenAI says "stop", as measured in vLLM's pull request 25054.
            finish = "tool_calls" if finish == "stop" and not isinstance(fields.forced, NamedTool) else finish
    return message, finish


def _arguments(arguments: Any) -> str:
    return json.dumps(dict(arguments), ensure_ascii=False)


async def chat_chunks(fields: ChatFields, underway: Underway) -> AsyncIterator[dict[str, Any]]:
    """The parts of a stream, in order.

    Raises:
        Problem: as of `Underway.events`.
    """
    head, (request,) = Head("chat.completion", fields.model), underway.asked.requests
    includes_usage = fields.stream_options is not None and fields.stream_options.include_usage
    more: dict[str, Any] = {"system_fingerprint": None} | ({"usage": None} if includes_usage else {})
    streams = [_stream(underway, request.stop_strings) for _ in range(request.samples)]
    for sample in range(request.samples):
        first = {"prompt_token_ids": request.prompt.tolist()} if fields.return_token_ids else {}
        choice = _delta(sample, {"role": "assistant", "content": ""})
        yield head.body([choice], chunk=True, **more, **first)
    async for told in underway.events():
        for choice in _choices(fields, underway, streams, told):
            yield head.body([choice], chunk=True, **more)
    if includes_usage:
        ended = [completion for _, completion in underway.completions]
        yield head.body([], chunk=True, **(more | {"usage": usage(len(request.prompt), ended)}))


def _choices(fields: ChatFields, underway: Underway, streams: list[TextStream], told: Told) -> list[dict[str, Any]]:
    """What of a stream comes of one event."""
    event, tokenizer = told.event, underway.asked.model.renderer.tokenizer
    stream = streams[event.sample]
    if isinstance(event, NewToken):
        if (form := underway.asked.call_form) is not None:
            words = stream.add(event.token) if _words_are_told(form) else ""
            return [_delta(event.sample, {"content": words})] if words else []
        choice = _delta(event.sample, {"content": stream.add(event.token)})
        if fields.logprobs and event.logprob is not None:
            entry = TokenLogprob(event.token, event.logprob, event.likely)
            choice["logprobs"] = chat_logprobs(tokenizer, [entry])
        if fields.return_token_ids:
            choice["token_ids"] = [event.token]
        has_more = choice["logprobs"] is not None or fields.return_token_ids
        return [choice] if choice["delta"]["content"] or has_more else []
    message: dict[str, Any] = {"content": event.text}
    choices, finish = [], FINISH[event.ended_by]
    if underway.asked.call_form is not None:
        message, finish = _message(underway, fields, event)
    if rest := stream.end(message["content"] or "", event.text):
        choices.append(_delta(event.sample, {"content": rest}))
    for number, call in enumerate(message.get("tool_calls") or []):
        choices.append(_delta(event.sample, {"tool_calls": [{"index": number, **call}]}))
    return [*choices, {**_delta(event.sample, {}), "finish_reason": finish}]


def _stream(underway: Underway, stop_strings: Sequence[str]) -> TextStream:
    """The words of one reply; where tools are on offer, those that no call can begin with."""
    tokenizer, form = underway.asked.model.renderer.tokenizer, underway.asked.call_form
    if form is None:
        return TextStream(tokenizer, stop_strings)
    # "<" may begin an empty block of reasoning, which is no part of the words in front of a call.
    held_starts = ("<",) if form.opening else ("<", "{", "[")
    return TextStream(tokenizer, stop_strings, marker=form.opening, held_starts=held_starts)


def _words_are_told(form: CallForm) -> bool:
    """Whether words can be told from a call before the reply ends."""
    return bool(form.opening) or form.kind == "object"


def _delta(sample: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": sample, "delta": delta, "logprobs": None, "finish_reason": None}

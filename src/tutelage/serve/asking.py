"""A request's fields -> what the engine is asked, and the limits that hold for it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.builders.served_models import ServedModel
from tutelage.errors import TutelageError
from tutelage.formats.prompt import messages_from
from tutelage.formats.rawrow import has_surrogate
from tutelage.generate.replies import served_ids
from tutelage.generate.requests import Grammar, Request, Sampling
from tutelage.render.call_form import CallForm
from tutelage.serve.forced_calls import call_grammar, chosen_tools
from tutelage.serve.problems import Problem, bad_field, of_error
from tutelage.serve.request_fields import (
    MOST_PROMPTS,
    MOST_STOPS,
    ChatFields,
    CompletionFields,
    GenerationFields,
)
from tutelage.types import TokenIds

SEED_BITS = 63
NO_FORM = (
    "The chat template of '{model}' writes calls of tools in no form that could be read back, so they cannot be taken "
    "out of its replies. With 'tool_choice': 'none' its replies come as they are."
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost.

    Attributes:
        prompt_tokens: the longest prompt.
        reply_tokens: the longest reply, which is also the length where none is asked for.
        seconds: from its arrival to the end of its last reply.
        body_bytes: of its text.
    """

    prompt_tokens: int
    reply_tokens: int
    seconds: float
    body_bytes: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What the engine is asked for one request of the API.

    Attributes:
        model: who is asked.
        requests: one for each prompt.
        prompts: their texts, where they are to be said again in front of the replies.
        call_form: how calls of tools stand in replies; None where none are looked for.
    """

    model: ServedModel
    requests: tuple[Request, ...]
    prompts: tuple[str, ...] = ()
    call_form: CallForm | None = None


def chat_prompt(model: ServedModel, fields: ChatFields) -> TokenIds:
    """The served prompt, id for id as training rendered it: by the renderer of the run.

    Raises:
        Problem: a message that cannot be read, or that the template refuses.
    """
    for number, message in enumerate(fields.messages):
        if not isinstance(message.get("role"), str):
            raise bad_field(f"messages.{number}.role", f"Missing required parameter: 'messages[{number}].role'.")
    try:
        messages = messages_from(fields.messages)
        return served_ids(model.renderer, messages, fields.tools or (), fields.chat_template_kwargs or {})
    except TutelageError as error:
        raise of_error(error, "messages") from error


def chat_asked(
    model: ServedModel,
    fields: ChatFields,
    limits: Limits,
    *,
    grammar: Callable[[], Grammar] | None = None,
    of_lark: Callable[[str, str], Callable[[], Grammar]],
    call_form: Callable[[], CallForm | None] = lambda: None,
) -> Asked:
    """What a chat completion asks.

    Args:
        model: who is asked.
        fields: of the request.
        limits: that hold.
        grammar: makes what replies are held to.
        of_lark: as `GrammarMaker.of_lark`, for a call that is forced.
        call_form: how the model's template writes calls, where tools are on offer.

    Raises:
        Problem: it cannot be asked.
    """
    if fields.top_logprobs and not fields.logprobs:
        raise bad_field("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.")
    functions = None
    if fields.forced is not None:
        functions = chosen_tools(fields.tools or (), fields.forced)
    form = None
    if fields.tools and fields.tool_choice != "none" and (form := call_form()) is None:
        raise bad_field("tools", NO_FORM.format(model=model.name))
    if functions is not None and form is not None:
        text = call_grammar(form, functions, model.renderer.tokenizer, model.name)
        grammar = of_lark(text, "tool_choice")
    prompt = chat_prompt(model, fields)
    most = fields.max_completion_tokens if fields.max_completion_tokens is not None else fields.max_tokens
    request = _request(
        model, fields, limits, prompt, most=most, likely=fields.top_logprobs or 0, logprobs=bool(fields.logprobs),
        grammar=grammar,
    )  # fmt: skip
    return Asked(model, (request,), call_form=form)


def completion_asked(model: ServedModel, fields: CompletionFields, limits: Limits) -> Asked:
    """What a completion asks.

    Raises:
        Problem: it cannot be asked.
    """
    if fields.best_of is not None and fields.best_of != (fields.n or 1):
        raise bad_field("best_of", "'best_of' must be 'n': all replies are returned here.")
    if fields.echo and fields.logprobs is not None:
        raise bad_field(
            "echo", "'echo' with 'logprobs' is not supported: log-probabilities of the prompt are not kept."
        )
    texts, prompts = _prompts(model, fields)
    requests = tuple(
        _request(
            model, fields, limits, prompt, most=fields.max_tokens if fields.max_tokens is not None else 16,
            likely=fields.logprobs or 0, logprobs=fields.logprobs is not None,
        )
        for prompt in prompts
    )  # fmt: skip
    return Asked(model, requests, texts if fields.echo else ())


def _prompts(model: ServedModel, fields: CompletionFields) -> tuple[tuple[str, ...], list[TokenIds]]:
    """The texts of the prompts, and their ids; a text gets what the tokenizer itself puts around a document."""
    given = fields.prompt
    if isinstance(given, str):
        entries: Sequence[str | list[int]] = [given]
    elif isinstance(given[0], int):
        entries = [[token for token in given if isinstance(token, int)]]
    else:
        entries = [entry for entry in given if isinstance(entry, (str, list))]
    if len(entries) > MOST_PROMPTS:
        raise bad_field("prompt", f"{len(entries)} prompts in one request; at most {MOST_PROMPTS}.")
    tokenizer = model.renderer.tokenizer
    texts, ids = [], []
    for entry in entries:
        if isinstance(entry, str):
            encoded = _without_end(tokenizer.encode_document(entry), tokenizer.stop_ids) if entry else []
            encoded = encoded or [tokenizer.stop_id]
        else:
            encoded = entry
        if not encoded or not all(0 <= token < tokenizer.vocabulary_size for token in encoded):
            raise bad_field("prompt", f"A prompt is a text, or ids from 0 to {tokenizer.vocabulary_size - 1}.")
        texts.append(entry if isinstance(entry, str) else tokenizer.decode(encoded))
        ids.append(np.asarray(encoded, dtype=np.int32))
    return tuple(texts), ids


def _without_end(ids: list[int], stop_ids: frozenset[int]) -> list[int]:
    """A text that is to go on does not end: some tokenizers put a stop token behind a document."""
    return ids[:-1] if len(ids) > 1 and ids[-1] in stop_ids else ids


def _request(
    model: ServedModel,
    fields: GenerationFields,
    limits: Limits,
    prompt: TokenIds,
    *,
    most: int | None,
    likely: int,
    logprobs: bool,
    grammar: Callable[[], Grammar] | None = None,
) -> Request:
    room = limits.prompt_tokens if model.positions is None else min(limits.prompt_tokens, model.positions - 1)
    if len(prompt) > room:
        raise Problem(
            400,
            f"The prompt has {len(prompt)} tokens; at most {room} are taken here.",
            param="messages" if isinstance(fields, ChatFields) else "prompt",
            code="context_length_exceeded",
        )
    if not len(prompt):
        raise bad_field("messages", "The template makes an empty prompt of these messages.")
    if most is not None and most > limits.reply_tokens:
        raise bad_field(
            "max_tokens", f"At most {limits.reply_tokens} tokens of a reply are given here; {most} asked for."
        )
    length = limits.reply_tokens if most is None else most
    if model.positions is not None:
        length = min(length, model.positions - len(prompt))
    if len(fields.stops) > MOST_STOPS or not all(fields.stops):
        raise bad_field("stop", f"'stop' is a text or a list of at most {MOST_STOPS} texts, none of them empty.")
    try:
        return Request(
            prompt,
            length,
            _sampling(model, fields),
            samples=fields.n or 1,
            stop_strings=fields.stops,
            logprobs=logprobs,
            top_logprobs=likely,
            adapter=model.adapter,
            grammar=grammar,
        )
    except TutelageError as error:
        raise of_error(error, error.where) from error


def _sampling(model: ServedModel, fields: GenerationFields) -> Sampling:
    """A field that is null stands for its default."""
    seed = secrets.randbits(SEED_BITS) if fields.seed is None else fields.seed % 2**SEED_BITS
    return Sampling(
        temperature=1.0 if fields.temperature is None else fields.temperature,
        top_k=max(0, fields.top_k or 0),
        top_p=1.0 if fields.top_p is None else fields.top_p,
        min_p=fields.min_p or 0.0,
        repetition_penalty=1.0 if fields.repetition_penalty is None else fields.repetition_penalty,
        presence_penalty=fields.presence_penalty or 0.0,
        frequency_penalty=fields.frequency_penalty or 0.0,
        logit_bias=_logit_bias(model, fields),
        seed=seed,
    )


def _logit_bias(model: ServedModel, fields: GenerationFields) -> tuple[tuple[int, float], ...]:
    size, pairs = model.renderer.tokenizer.vocabulary_size, []
    for text, bias in (fields.logit_bias or {}).items():
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < size):
            raise bad_field("logit_bias", f"'logit_bias' has ids from 0 to {size - 1} as keys; '{text[:20]}' is none.")
        pairs.append((int(text), bias))
    return tuple(pairs)


def require_text(value: object) -> None:
    """Refuse texts that no UTF-8 can write.

    Raises:
        Problem: half of a surrogate pair stands in one.
    """
    if has_surrogate(value):
        raise Problem(
            400, "A text of the request holds half of a surrogate pair (\\ud800 to \\udfff), which is no text."
        )

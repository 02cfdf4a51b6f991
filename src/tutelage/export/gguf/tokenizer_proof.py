"""Ids in llama.cpp beside those of the trained tokenizer: hard strings, added tokens, served prompts, stops."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from typing import Any

from tutelage.errors import DataError
from tutelage.export.gguf.llama_cpp import Witness, tokenize
from tutelage.export.gguf.vocabulary import Vocabulary
from tutelage.render import Renderer
from tutelage.render.chat_template.template import TemplateRefusal
from tutelage.render.tokenizer import Tokenizer
from tutelage.types import Message

CERTAIN = 1e9
"""A bias that makes a token the next one whatever the model says."""


@dataclass(frozen=True, slots=True)
class TokenizerProof:
    """What was compared, all of it equal.

    Attributes:
        strings: hard texts.
        added_tokens: those that are one id each in llama.cpp, too.
        served_prompts: conversations whose chat request feeds the ids that training rendered.
        stops: tokens that end a reply in llama.cpp.
        notes: what could not be compared, and why.
    """

    strings: int
    added_tokens: int
    served_prompts: int
    stops: tuple[str, ...]
    notes: tuple[str, ...] = ()


def prove_tokenizer(witness: Witness, renderer: Renderer, vocabulary: Vocabulary) -> TokenizerProof:
    """Compare everything that becomes ids.

    Raises:
        DataError: llama.cpp reads a text otherwise, or does not stop where the model was trained to.
    """
    tokenizer = renderer.tokenizer
    texts = hard_strings(tokenizer, vocabulary)
    added = {
        token.content: index
        for index, token in sorted(tokenizer.fast.get_added_tokens_decoder().items())
        if index < len(vocabulary.tokens) and token.content
    }
    conversations, notes = _conversations(renderer)
    stops = sorted(tokenizer.stop_ids)
    answers = iter(
        witness.ask(
            [
                *(tokenize(text) for text in texts),
                *(tokenize(text) for text in added),
                *({"served": {"messages": _plain(messages)}} for messages in conversations),
                *({"route": "/completion", "body": _forced(stop)} for stop in stops),
            ]
        )
    )
    _require_ids(witness, texts, tokenizer.encode(texts), [answer["tokens"] for answer in islice(answers, len(texts))])
    _require_ids(
        witness, list(added), [[index] for index in added.values()],
        [answer["tokens"] for answer in islice(answers, len(added))], kind="an added token",
    )  # fmt: skip
    served = list(islice(answers, len(conversations)))
    _require_served(witness, renderer, conversations, served)
    for stop, answer in zip(stops, answers, strict=True):
        if answer["stop_type"] != "eos":
            raise DataError(
                "llama.cpp does not stop where the model was trained to stop",
                where=f"{witness.model.name}: {tokenizer.spelling(stop)!r} (id {stop})",
                found=f"it goes on after it (stop type {answer['stop_type']!r})",
                expected="the end of the reply",
                fix="train with a stop token that llama.cpp knows: <|im_end|>, <|eot_id|>, <end_of_turn>, </s>",
            )
    spelled = tuple(tokenizer.spelling(stop) for stop in stops)
    return TokenizerProof(len(texts), len(added), len(conversations), spelled, tuple(notes))


def hard_strings(tokenizer: Tokenizer, vocabulary: Vocabulary) -> list[str]:
    """60 texts; those of a tokenizer that normalizes are in its form, as llama.cpp does not."""
    table = json.loads(files("tutelage.export.gguf").joinpath("hard_strings.json").read_text(encoding="utf-8"))
    control = list(tokenizer.special_tokens) or [tokenizer.spelling(tokenizer.stop_id)]
    texts: list[str] = table["plain"] + [
        text.format(control[number % len(control)], control[(number + 1) % len(control)])
        for number, text in enumerate(table["marked"])
    ]
    if vocabulary.plain_start:  # all that is served begins with a control token
        texts = [text if text.startswith(tuple(control)) else control[0] + text for text in texts]
    normalizer = json.loads(tokenizer.fast.to_str()).get("normalizer") or {}
    if normalizer.get("type") in ("NFC", "NFD", "NFKC", "NFKD"):
        texts = [unicodedata.normalize(normalizer["type"], text) for text in texts]
    return texts


def _conversations(renderer: Renderer) -> tuple[list[list[Message]], list[str]]:
    """Those of a few that the template takes."""
    if renderer.template.uses_date:
        return [], ["the chat template prints today's date, so served prompts were not compared"]
    user, again = Message("user", "What is 7 times 8?"), Message("user", "And\n\ntwice that?")
    kinds = (
        [user],
        [Message("system", "You are brief."), user],
        [user, Message("assistant", "56."), again],
        [Message("system", "You are brief."), user, Message("assistant", "56."), again],
    )
    taken, refused = [], 0
    for messages in kinds:
        try:
            renderer.served_text(messages)
            taken.append(list(messages))
        except TemplateRefusal:
            refused += 1
    return taken, [f"the chat template refuses {refused} of {len(kinds)} test conversations"] if refused else []


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _forced(stop: int) -> dict[str, Any]:
    return {"prompt": [stop], "n_predict": 2, "logit_bias": [[stop, CERTAIN]], "temperature": -1, "cache_prompt": False}


def _require_ids(
    witness: Witness, texts: Sequence[str], trained: list[list[int]], served: list[list[int]], kind: str = "a text"
) -> None:
    differing = [place for place in range(len(texts)) if trained[place] != served[place]]
    if differing:
        place = differing[0]
        raise DataError(
            f"llama.cpp reads {kind} otherwise than the trained tokenizer",
            where=f"{witness.model.name}: {texts[place]!r}, the first of {len(differing)} of {len(texts)}",
            found=f"ids {served[place][:24]}",
            expected=f"ids {trained[place][:24]}",
            fix="serve the Hugging Face folder instead; a GGUF of this tokenizer would get other ids than were trained",
        )


def _require_served(
    witness: Witness, renderer: Renderer, conversations: Sequence[Sequence[Message]], served: Sequence[Any]
) -> None:
    for messages, ids in zip(conversations, served, strict=True):
        trained = list(renderer.serve(messages))
        if ids != trained:
            refused = ids.get("refused", "")[:200] if isinstance(ids, dict) else None
            raise DataError(
                "A chat request to llama.cpp does not feed what the model was trained on",
                where=f"{witness.model.name}: a conversation of {', '.join(message.role for message in messages)}",
                found=refused or f"ids {_around(ids, trained)}",
                expected=f"ids {_around(trained, ids)}, as the chat template renders them",
                fix="train with a template that llama.cpp renders alike, or serve the Hugging Face folder",
            )


def _around(ids: Sequence[int], other: Sequence[int]) -> str:
    """A few ids about the first place where two lists differ."""
    place = next(
        (index for index, pair in enumerate(zip(ids, other, strict=False)) if pair[0] != pair[1]),
        min(len(ids), len(other)),
    )
    first = max(place - 3, 0)
    return f"{'... ' if first else ''}{list(ids[first : place + 6])} from place {first}"

"""What came of a request, in the shapes of OpenAI's API: whole, and as the parts of a stream."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tutelage.generate.requests import Completion, EndedBy, Likely
from tutelage.generate.text_stream import UNFINISHED
from tutelage.render import Tokenizer
from tutelage.types import ToolCall

Finish = Literal["stop", "length", "tool_calls"]
FINISH: dict[EndedBy, Finish] = {"stop_token": "stop", "stop_string": "stop", "length": "length"}


@dataclass(frozen=True, slots=True)
class Head:
    """What all parts of one answer begin with.

    Attributes:
        kind: `chat.completion` or `text_completion`.
        model: as it was asked for.
    """

    kind: Literal["chat.completion", "text_completion"]
    model: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def body(self, choices: Sequence[dict[str, Any]], *, chunk: bool = False, **more: Any) -> dict[str, Any]:
        """An answer or a part of one."""
        is_chat = self.kind == "chat.completion"
        return {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{self.id}",
            "object": f"{self.kind}.chunk" if is_chat and chunk else self.kind,
            "created": self.created,
            "model": self.model,
            "choices": list(choices),
            **more,
        }


def usage(prompt_tokens: int, completions: Sequence[Completion]) -> dict[str, Any]:
    """Tokens of the prompts and of the replies, their stop tokens included."""
    generated = sum(len(completion.ids) + (completion.ended_by == "stop_token") for completion in completions)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": generated,
        "total_tokens": prompt_tokens + generated,
    }


def call_body(call: ToolCall, arguments: str) -> dict[str, Any]:
    """A call of a tool."""
    call_id = call.id or f"call_{uuid.uuid4().hex[:24]}"
    return {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of a reply, its log-probability, and those of the most likely ones in its place."""

    token: int
    logprob: float
    likely: Likely


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """`logprobs` of a chat completion's choice."""
    return {
        "content": [
            {
                **_entry(tokenizer, entry.token, entry.logprob),
                "top_logprobs": [_entry(tokenizer, token, logprob) for token, logprob in entry.likely],
            }
            for entry in tokens
        ],
        "refusal": None,
    }


def _entry(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    text = tokenizer.spelling(token)
    # A token that is a part of a letter has no text of its own, and its bytes are the tokenizer's secret.
    return {"token": text, "logprob": logprob, "bytes": None if UNFINISHED in text else list(text.encode("utf-8"))}


def completion_logprobs(tokenizer: Tokenizer, tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """`logprobs` of a completion's choice; `offset` is where its text begins."""
    texts = [tokenizer.spelling(entry.token) for entry in tokens]
    offsets = [offset + sum(map(len, texts[:number])) for number in range(len(texts))]
    return {
        "tokens": texts,
        "token_logprobs": [entry.logprob for entry in tokens],
        "top_logprobs": [_by_text(tokenizer, entry.likely) for entry in tokens],
        "text_offset": offsets,
    }


def _by_text(tokenizer: Tokenizer, likely: Likely) -> dict[str, float]:
    """Log-probabilities by the texts of tokens; by their ids, as vLLM has it, where texts say too little."""
    texts = [tokenizer.spelling(token) for token, _ in likely]
    return {
        f"token_id:{token}" if UNFINISHED in text or texts.count(text) > 1 else text: logprob
        for text, (token, logprob) in zip(texts, likely, strict=True)
    }


def logprobs_of(completion: Completion) -> list[TokenLogprob]:
    """Those of a whole reply."""
    likely = completion.likely or ((),) * len(completion.ids)
    return [
        TokenLogprob(token, logprob, step)
        for token, logprob, step in zip(completion.ids, completion.logprobs, likely, strict=True)
    ]

"""Replies by a model's own forward over the whole text so far, without a cache: the witness of `tutelage.generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tutelage.model.architecture import native_inputs
from tutelage.types import TokenIds


@dataclass(frozen=True)
class LetterTokenizer:
    """Every id is one character, and none ends a reply unless `stop_ids` has it."""

    stop_ids: frozenset[int] = frozenset()

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(0x4E00 + token) for token in ids)


def own_logits(model: Any, prompt: TokenIds, reply: Sequence[int]) -> torch.Tensor:
    """[T, V] in fp32: what the model says in place of each token of a reply."""
    ids = torch.tensor([[*prompt.tolist(), *reply[:-1]]])
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids, **native_inputs(model, {})).logits[0, len(prompt) - 1 :]
    return logits.float()


def own_choices(model: Any, prompt: TokenIds, reply: Sequence[int]) -> list[int]:
    """The most likely token in place of each token of a reply: those themselves where the reply is greedy."""
    choices: list[int] = own_logits(model, prompt, reply).argmax(1).tolist()
    return choices


def own_reply(model: Any, prompt: TokenIds, tokens: int, stops: Sequence[int] = ()) -> list[int]:
    """The most likely token after the most likely token, up to a stop token, which is left out."""
    reply: list[int] = []
    for _ in range(tokens):
        token = own_choices(model, prompt, [*reply, 0])[-1]
        if token in stops:
            break
        reply.append(token)
    return reply


def random_prompts(lengths: Sequence[int], *, vocabulary: int, beginning: int = 0, seed: int = 0) -> list[TokenIds]:
    """Prompts of these lengths, the first `beginning` tokens of which are the same."""
    random = np.random.default_rng(seed)
    begun = random.integers(0, vocabulary, beginning)
    return [
        np.concatenate([begun, random.integers(0, vocabulary, length - beginning)]).astype(np.int32)
        for length in lengths
    ]

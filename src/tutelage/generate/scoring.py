"""How likely a model finds given texts after given prompts: what multiple choice and comparisons rest on.

Texts that continue one prompt share it: the prompt is computed once, as the beginning of all of them.

Shape legend: R = tokens of a packed row, N = tokens that are scored, D = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from tutelage.errors import ConfigError
from tutelage.model.adapters.prompt_tuning import decoder_inputs
from tutelage.model.architecture import (
    Architecture,
    bare_model,
    dummy_token_inputs,
    native_inputs,
    use_training_attention,
)
from tutelage.model.layers import decoder_of
from tutelage.model.loss import CHUNK_POSITIONS
from tutelage.model.output_head import forward_logits, head_of, product_logits
from tutelage.types import TokenIds

ROW_TOKENS = 1024
"""Tokens of a row, unless one prompt with its text has more."""


@dataclass(frozen=True, slots=True)
class GivenText:
    """A text after a prompt.

    Attributes:
        prompt: ids, at least one.
        text: ids, at least one.

    Raises:
        ConfigError: one of them is empty.
    """

    prompt: TokenIds
    text: TokenIds

    def __post_init__(self) -> None:
        if not (len(self.prompt) and len(self.text)):
            raise ConfigError(
                "A text can only be scored after a prompt, and only if it has tokens",
                where="GivenText",
                found=f"{len(self.prompt)} tokens of prompt, {len(self.text)} of text",
                expected="at least one of each",
                fix="begin the prompt with the token that the model's texts begin with",
            )


@dataclass(frozen=True, slots=True)
class Score:
    """What a model says of a text.

    Attributes:
        logprobs: the natural logarithm of each token's probability after those before it.
        is_likeliest: every token is the most likely one, so that a greedy reply would begin with this text.
    """

    logprobs: tuple[float, ...]
    is_likeliest: bool

    @property
    def total(self) -> float:
        """The logarithm of the probability of the whole text."""
        return float(sum(self.logprobs))


def score(
    model: Any,
    texts: Sequence[GivenText],
    architecture: Architecture,
    *,
    row_tokens: int = ROW_TOKENS,
    done: Callable[[int], None] = lambda _: None,
) -> list[Score]:
    """The score of each text, in order.

    Args:
        model: a causal language model, with or without PEFT around it; it attends as it trains from here on.
        texts: those that continue one prompt are best named one after the other.
        architecture: what was tried on the model (`model.architecture.architecture_of`).
        row_tokens: tokens that are computed together.
        done: called with the number of texts finished since the last call.

    Raises:
        RuntimeError, MemoryError: memory runs out (`model.out_of_memory`).
    """
    model.eval()
    use_training_attention(model, architecture.attention)
    scores: list[Score] = []
    with torch.inference_mode():
        for row in text_rows(texts, architecture, row_tokens):
            logprobs_N, likeliest_N = _scored(model, row, architecture)
            start = 0
            for tokens in row.text_tokens:
                span = slice(start, start + tokens)
                scores.append(Score(tuple(logprobs_N[span].tolist()), bool(likeliest_N[span].all())))
                start += tokens
            done(len(row.text_tokens))
    return scores


@dataclass(slots=True)
class TextRow:
    """A packed row under way: its stretches, and for each token that is scored the place of the token before it.

    `text_tokens` has the tokens of each text that are scored, in their order: N in all.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    stretches: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    predecessors: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    text_tokens: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], position: int, parent: int) -> int:
        """Lay down a stretch; returns its number."""
        self.ids += ids
        self.positions += range(position, position + len(ids))
        self.stretches.append(len(ids))
        self.parents.append(parent)
        return len(self.stretches) - 1

    def add_family(self, prompt: Sequence[int], texts: Sequence[Sequence[int]]) -> None:
        """Lay down a prompt and behind it each text, of which the last token is only looked at."""
        number = self.add(prompt, 0, -1)
        last = len(self.ids) - 1
        for text in texts:
            first = len(self.ids)
            if len(text) > 1:
                self.add(text[:-1], len(prompt), number)
            self.predecessors += [last, *range(first, first + len(text) - 1)]
            self.labels += text
            self.text_tokens.append(len(text))


def text_rows(texts: Sequence[GivenText], architecture: Architecture, row_tokens: int) -> Iterator[TextRow]:
    """Rows of whole families: a prompt with texts that continue it, or with one where beginnings cannot be shared."""
    row = TextRow()
    for prompt, replies in _families(texts, architecture, row_tokens):
        tokens = len(prompt) + sum(len(reply) - 1 for reply in replies)
        if row.ids and (len(row.ids) + tokens > row_tokens or not architecture.documents_isolated):
            yield row
            row = TextRow()
        if architecture.shares_prefixes:
            row.add_family(prompt, replies)
        else:
            (reply,) = replies
            row.add([*prompt, *reply[:-1]], 0, -1)
            first = len(row.ids) - len(reply)
            row.predecessors += range(first, first + len(reply))
            row.labels += reply
            row.text_tokens.append(len(reply))
    if row.ids:
        yield row


def _families(
    texts: Sequence[GivenText], architecture: Architecture, row_tokens: int
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Prompts, each with the texts that continue it, so many that they fit into a row."""
    for _, group in groupby(texts, key=lambda text: text.prompt.tobytes()):
        replies: list[list[int]] = []
        tokens = 0
        for text in group:
            prompt, reply = text.prompt.tolist(), text.text.tolist()
            if replies and (not architecture.shares_prefixes or len(prompt) + tokens + len(reply) > row_tokens):
                yield prompt, replies
                replies, tokens = [], 0
            replies.append(reply)
            tokens += len(reply)
        yield prompt, replies


def _scored(model: Any, row: TextRow, architecture: Architecture) -> tuple[torch.Tensor, torch.Tensor]:
    """[N] of each token that is scored: the logarithm of its probability, and whether it is the most likely one."""
    device = model.get_input_embeddings().weight.device
    labels_N = torch.tensor(row.labels, device=device)
    logprobs: list[torch.Tensor] = []
    likeliest: list[torch.Tensor] = []
    start = 0
    for logits_CV in _logits(model, row, architecture, device):
        labels_C1 = labels_N[start : start + len(logits_CV), None]
        logprobs.append(logits_CV.gather(1, labels_C1)[:, 0] - logits_CV.logsumexp(1))
        likeliest.append(logits_CV.argmax(1) == labels_C1[:, 0])
        start += len(logits_CV)
    return torch.cat(logprobs), torch.cat(likeliest)


def _logits(model: Any, row: TextRow, architecture: Architecture, device: torch.device) -> Iterator[torch.Tensor]:
    """Chunks of [N, V] in fp32: what predicts each token that is scored."""
    if architecture.head == "whole":
        ids_R = torch.tensor(row.ids, device=device)
        logits_RV = model(input_ids=ids_R[None], **native_inputs(bare_model(model), {})).logits[0].float()
        # from behind: virtual tokens may stand before them
        yield logits_RV[torch.tensor(row.predecessors, device=device) - len(ids_R)]
        return
    for hidden_CD in row_states(model, row, architecture).split(CHUNK_POSITIONS[device.type]):
        yield state_logits(model, hidden_CD, architecture)


def row_states(model: Any, row: TextRow, architecture: Architecture) -> torch.Tensor:
    """[N, D]: the last hidden states that predict the tokens of a row that are scored.

    Args:
        model: attends as it trains, in evaluation mode.
        row: of `text_rows`.
        architecture: its head is not "whole".
    """
    device = model.get_input_embeddings().weight.device
    ids_R, positions_R = torch.tensor([row.ids, row.positions], device=device)
    parents = tuple(row.parents) if any(parent >= 0 for parent in row.parents) else ()
    fed = decoder_inputs(model, ids_R, positions_R, tuple(row.stretches), parents)
    decoder = decoder_of(model)
    if architecture.attention == "own":
        alone = {name: value for name, value in fed.inputs.items() if name in ("input_ids", "inputs_embeds")}
        hidden_RD = decoder(**native_inputs(decoder, alone))[0][0]
    else:
        hidden_RD = decoder(**fed.inputs, use_cache=False)[0][0]
    hidden_ND: torch.Tensor = hidden_RD[fed.places(torch.tensor(row.predecessors, device=device))]
    return hidden_ND


def state_logits(model: Any, hidden_CD: torch.Tensor, architecture: Architecture) -> torch.Tensor:
    """[C, V] in fp32 of hidden states; `architecture` has another head than "whole"."""
    if architecture.head == "product":
        return product_logits(head_of(model), hidden_CD)
    token = dummy_token_inputs(hidden_CD.device) if architecture.attention == "documents" else {}
    base_model = bare_model(model)
    return forward_logits(base_model, hidden_CD, native_inputs(base_model, token)).float()

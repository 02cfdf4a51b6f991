"""How far a trained model has moved from its base: the KL divergence of their next tokens, over the base's own replies.

The forward KL on the prompts of the new task is the best known predictor of what a model forgets; on general prompts it
is what training did to the rest (Shenfeld, Pari and Agrawal 2025, "RL's Razor", arXiv:2509.04259). The base speaks
before training; its last hidden states are kept, from which its whole distribution over the vocabulary comes again, so
that the two models need never be in memory together.

Shape legend: N = tokens of replies, C = a chunk of them, D = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tutelage.evaluate.means import ratio_interval
from tutelage.evaluate.statistics import Interval
from tutelage.generate.scoring import ROW_TOKENS, GivenText, row_states, state_logits, text_rows
from tutelage.model.architecture import Architecture, use_training_attention
from tutelage.model.loss import CHUNK_POSITIONS
from tutelage.model.output_head import Head, head_of, product_logits

Done = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ReplyStates:
    """What a model's distribution at each token of some replies can be made of again.

    Attributes:
        hidden_ND: last hidden states that predict the tokens of the replies, in their order, in main memory.
        head: what makes logits of them; None: that of the model they are compared with, where it was not trained.
    """

    hidden_ND: torch.Tensor
    head: Head | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL(base || tuned), in nats a token, over whole vocabularies.

    Attributes:
        sums: of each reply, over its tokens.
        tokens: of each reply.
        noise: the same of the base and itself, computed in rows of another length; None where that was not measured.
    """

    sums: tuple[float, ...]
    tokens: tuple[int, ...]
    noise: float | None = None

    @property
    def mean(self) -> float:
        """Over all tokens."""
        return sum(self.sums) / sum(self.tokens)

    @property
    def interval(self) -> Interval | None:
        """95 % of the mean, with prompts as what was drawn; None of one reply, which says nothing of others."""
        if len(self.sums) < 2:
            return None
        interval = ratio_interval(self.sums, self.tokens)
        return replace(interval, low=max(0.0, interval.low))  # no divergence is below 0


def can_be_compared(architecture: Architecture, *, head_is_trained: bool) -> bool:
    """Whether logits can be made of hidden states that were kept, once the model is another one."""
    return architecture.head == "product" or (architecture.head == "own" and not head_is_trained)


def reply_states(
    model: Any,
    replies: Sequence[GivenText],
    architecture: Architecture,
    *,
    keeps_head: bool,
    row_tokens: int = ROW_TOKENS,
    done: Done = lambda _: None,
) -> ReplyStates:
    """The states of a model at the tokens of replies; the model attends as it trains from here on.

    Args:
        model: with or without PEFT around it.
        replies: each after its prompt.
        architecture: what was tried on the model; see `can_be_compared`.
        keeps_head: copy the output head, as training will change it.
        row_tokens: tokens that are computed together.
        done: called with the number of replies finished since the last call.

    Raises:
        RuntimeError, MemoryError: memory runs out (`model.out_of_memory`).
    """
    model.eval()
    use_training_attention(model, architecture.attention)
    states: list[torch.Tensor] = []
    with torch.inference_mode():
        for row in text_rows(replies, architecture, row_tokens):
            states.append(row_states(model, row, architecture).cpu())
            done(len(row.text_tokens))
        head = _copied(head_of(model)) if keeps_head else None
        return ReplyStates(torch.cat(states), head)


def divergence(
    model: Any,
    replies: Sequence[GivenText],
    base: ReplyStates,
    architecture: Architecture,
    *,
    row_tokens: int = ROW_TOKENS,
    done: Done = lambda _: None,
) -> Divergence:
    """KL(base || model) at every token of the replies; the model attends as it trains from here on.

    Args:
        model: with or without PEFT around it.
        replies: those of `base`, in the same order.
        base: of the model that they are compared with.
        architecture: what was tried on the model.
        row_tokens: tokens that are computed together.
        done: called with the number of replies finished since the last call.

    Raises:
        RuntimeError, MemoryError: memory runs out (`model.out_of_memory`).
    """
    model.eval()
    use_training_attention(model, architecture.attention)
    device = model.get_input_embeddings().weight.device
    sums: list[float] = []
    tokens: list[int] = []
    start = 0
    with torch.inference_mode():
        for row in text_rows(replies, architecture, row_tokens):
            hidden_ND = row_states(model, row, architecture)
            base_ND = base.hidden_ND[start : start + len(hidden_ND)].to(device)
            start += len(hidden_ND)
            kl_N = torch.cat(
                [
                    _kl(_base_logits(model, base, base_CD, architecture), state_logits(model, hidden_CD, architecture))
                    for base_CD, hidden_CD in zip(
                        base_ND.split(CHUNK_POSITIONS[device.type]),
                        hidden_ND.split(CHUNK_POSITIONS[device.type]),
                        strict=True,
                    )
                ]
            )
            sums += [float(part.sum()) for part in kl_N.split(row.text_tokens)]
            tokens += row.text_tokens
            done(len(row.text_tokens))
    assert start == len(base.hidden_ND), "the replies are those of the states"
    return Divergence(tuple(sums), tuple(tokens))


def with_noise(measured: Divergence, noise: Divergence) -> Divergence:
    """The same, with what the base shows of itself."""
    return replace(measured, noise=noise.mean)


def _base_logits(model: Any, base: ReplyStates, base_CD: torch.Tensor, architecture: Architecture) -> torch.Tensor:
    if base.head is None:
        return state_logits(model, base_CD, architecture)
    return product_logits(base.head, base_CD)


def _kl(base_CV: torch.Tensor, tuned_CV: torch.Tensor) -> torch.Tensor:
    """[C]: the sum over the vocabulary of p_base (log p_base - log p_tuned), from logits."""
    base_logprobs_CV = base_CV.log_softmax(1)
    differences_CV = base_logprobs_CV - tuned_CV.log_softmax(1)
    # Where the base gives a token no probability at all, its logarithm is minus infinity and its share 0.
    return (base_logprobs_CV.exp() * differences_CV.masked_fill(base_logprobs_CV == float("-inf"), 0.0)).sum(1)


def _copied(head: Head) -> Head:
    bias_V = None if head.bias_V is None else head.bias_V.detach().clone()
    return replace(head, weight_VD=head.weight_VD.detach().clone(), bias_V=bias_V)

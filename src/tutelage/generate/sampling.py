"""The choice of the next token, each reply with random numbers of its own.

Shape legend: S = replies, V = vocabulary, U = tokens that a reply or its prompt has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tutelage.generate.requests import Grammar, Likely, Sampling
from tutelage.types import TokenIds

ARGMAX_BLOCK = 256
"""Logits of which the largest is sought first."""

LIKELY_TOKENS = 256
"""So many of the most likely tokens are sorted first for top-p; all of them only where these are not enough."""


@dataclass(slots=True)
class Choice:
    """How one reply's tokens are chosen, and what that depends on.

    Args:
        sampling: the settings.
        sample: number of the reply among those to its request.
        prompt: ids.
        generated: ids so far.
        grammar: what the reply is held to, its stop token, too.
    """

    sampling: Sampling
    sample: int
    prompt: TokenIds
    generated: list[int] = field(default_factory=list)
    grammar: Grammar | None = None
    _random: np.random.Generator | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the most likely token is taken as the logits have it."""
        return self.sampling.is_plain and self.grammar is None

    def take(self, token: int) -> None:
        """Note a token of the reply."""
        self.generated.append(token)
        if self.grammar is not None:
            self.grammar.take(token)

    def token(self, logits_V: torch.Tensor) -> int:
        """The next token.

        Args:
            logits_V: in fp32; they are changed.
        """
        self._penalize(logits_V)
        if self.grammar is not None:
            self.grammar.restrict(logits_V)
        if self.sampling.is_greedy:
            return int(logits_V.argmax())
        # The largest becomes 0 before the division, which could otherwise pass the range of fp32.
        probabilities_V = _kept(logits_V.sub_(logits_V.max()).div_(self.sampling.temperature), self.sampling)
        if self._random is None:
            self._random = np.random.default_rng([self.sampling.seed, self.sample])
        # One number for each token and no other: what a reply draws does not depend on the size of the vocabulary.
        cumulative_V = probabilities_V.cumsum(0, dtype=torch.float64)
        place = torch.searchsorted(cumulative_V, self._random.random() * float(cumulative_V[-1]), right=True)
        return min(int(place), int(probabilities_V.nonzero()[-1]))

    def _penalize(self, logits_V: torch.Tensor) -> None:
        sampling = self.sampling
        if sampling.repetition_penalty != 1.0:
            seen_U = torch.from_numpy(np.union1d(self.prompt, np.asarray(self.generated, dtype=np.int64)))
            seen_U = seen_U[seen_U < len(logits_V)].long().to(logits_V.device)
            values_U = logits_V[seen_U]
            penalty = sampling.repetition_penalty
            logits_V[seen_U] = torch.where(values_U > 0, values_U / penalty, values_U * penalty)
        if sampling.presence_penalty != 0.0 and self.generated:
            logits_V[torch.tensor(sorted(set(self.generated)), device=logits_V.device)] -= sampling.presence_penalty
        if sampling.frequency_penalty != 0.0 and self.generated:
            counts = Counter(self.generated)
            counts_U = torch.tensor(list(counts.values()), dtype=logits_V.dtype, device=logits_V.device)
            logits_V[torch.tensor(list(counts), device=logits_V.device)] -= sampling.frequency_penalty * counts_U
        for token, bias in sampling.logit_bias:
            if token < len(logits_V):
                logits_V[token] += bias


def next_tokens(logits_SV: torch.Tensor, choices: Sequence[Choice]) -> list[int]:
    """The next token of each reply.

    Args:
        logits_SV: in fp32.
        choices: of the replies.
    """
    tokens: list[int] = likeliest(logits_SV).tolist()
    for number, choice in enumerate(choices):
        if not choice.is_plain:
            tokens[number] = choice.token(logits_SV[number].clone())
    return tokens


def likeliest(logits_SV: torch.Tensor) -> torch.Tensor:
    """[S]: the place of the largest logit, the first where several are; a NaN is the largest of all.

    As `argmax`, by way of the largest of each block: torch 2.13 takes 6 ms of a core to find the
    places of the largest of [60, 49,152], and 0.7 ms to find what they are.
    """
    replies, vocabulary = logits_SV.shape
    blocks = vocabulary // ARGMAX_BLOCK
    if blocks < 2:
        return logits_SV.argmax(dim=1)
    whole_SBL = logits_SV[:, : blocks * ARGMAX_BLOCK].unflatten(1, (blocks, ARGMAX_BLOCK))
    block_S = whole_SBL.amax(dim=2).argmax(dim=1)
    rows_S = torch.arange(replies, device=logits_SV.device)
    place_S: torch.Tensor = block_S * ARGMAX_BLOCK + whole_SBL[rows_S, block_S].argmax(dim=1)
    if blocks * ARGMAX_BLOCK == vocabulary:
        return place_S
    last_S = blocks * ARGMAX_BLOCK + logits_SV[:, blocks * ARGMAX_BLOCK :].argmax(dim=1)
    values_S2 = torch.stack([logits_SV[rows_S, place_S], logits_SV[rows_S, last_S]], dim=1)
    return torch.where(values_S2.argmax(dim=1) == 0, place_S, last_S)


def token_logprobs(logits_SV: torch.Tensor, tokens: Sequence[int]) -> list[float]:
    """The natural logarithm of each token's probability."""
    chosen_S1 = torch.tensor(tokens, dtype=torch.long, device=logits_SV.device)[:, None]
    logprobs_S: torch.Tensor = logits_SV.gather(1, chosen_S1)[:, 0] - logits_SV.logsumexp(dim=1)
    values: list[float] = logprobs_S.tolist()
    return values


def likely_tokens(logits_V: torch.Tensor, count: int) -> Likely:
    """So many of the most likely tokens."""
    values, ids = (logits_V - logits_V.logsumexp(dim=0)).topk(min(count, len(logits_V)))
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))


def _kept(logits_V: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """[V]: probabilities of the tokens that top-k, top-p and min-p leave, 0 for the others.

    Tokens that are as likely as the last one that stays, stay. The sum is below 1 where top-p or min-p removed some.
    """
    if 0 < sampling.top_k < len(logits_V):
        least = logits_V.topk(sampling.top_k).values[-1]
        logits_V.masked_fill_(logits_V < least, float("-inf"))
    probabilities_V = torch.softmax(logits_V, 0)
    if sampling.top_p < 1.0:
        probabilities_V.masked_fill_(probabilities_V < _least_of_nucleus(probabilities_V, sampling.top_p), 0.0)
    if sampling.min_p > 0.0:
        probabilities_V.masked_fill_(probabilities_V < sampling.min_p * probabilities_V.max(), 0.0)
    return probabilities_V


def _least_of_nucleus(probabilities_V: torch.Tensor, top_p: float) -> torch.Tensor:
    """The smallest probability among the fewest tokens whose probabilities add up to `top_p` (Holtzman et al. 2020)."""
    for count in (min(LIKELY_TOKENS, len(probabilities_V)), len(probabilities_V)):
        likely = probabilities_V.topk(count).values
        enough = likely.cumsum(0) >= top_p
        if bool(enough[-1]):
            return likely[int(enough.int().argmax())]
    return likely[-1]  # rounding keeps the sum of all below top_p

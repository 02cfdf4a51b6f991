"""What a run's own model says to the prompts that an export is compared on, and how much of a difference is noise.

The reference is computed in fp32. The noise is what the same model loses in the precision that is exported: its
weights moved as far as rounding moves them, its products in that precision, and rows of another length.

Shape legend: K = tokens that are compared, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tutelage.export.expected_tensors import adapted_layers, rounded_by_chance
from tutelage.export.fresh_process import compared
from tutelage.generate.batch_check import batches_of
from tutelage.generate.padded import padded_replies
from tutelage.generate.replies import answered_together, engine_for
from tutelage.generate.requests import Request
from tutelage.model.adapters.prompt_tuning import has_prompt
from tutelage.model.attention.packed import use_generation_attention
from tutelage.render import Tokenizer
from tutelage.types import TokenIds

NEW_TOKENS = 32
"""Of a reply: models that differ part ways in its first tokens."""
LOGITS_BYTES = 1 << 29
"""What the logits of the reference may take on disk."""
MORE_TOKENS = 37
"""What is put behind a row to change its shape: what is before it does not see it."""
PROMPTS_TOGETHER = 16

Done = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two models at the same tokens.

    Attributes:
        kl: KL(reference || other), nats a token.
        logit: the largest difference of two logits.
        gap: the largest change of how far the two best logits lie apart.
    """

    kl: float
    logit: float
    gap: float


@dataclass(frozen=True, slots=True)
class Reference:
    """What the run's own model says.

    Attributes:
        prompts: ids of each.
        replies: its likeliest reply to each, without the stop token.
        logits: [K, V] of each, that predict the first tokens of its reply, or its end.
        gaps: of each, how far the two best logits lie apart at every token of its reply and its end.
        together: how many prompts may be answered together; 1 where padding would change the replies.
    """

    prompts: list[TokenIds]
    replies: list[list[int]]
    logits: list[torch.Tensor]
    gaps: list[list[float]]
    together: int


@torch.inference_mode()
def reference_of(model: Any, tokenizer: Tokenizer, prompts: Sequence[TokenIds], *, done: Done) -> Reference:
    """Ask the run's model, in fp32; it attends as served from here on."""
    use_generation_attention(model)
    model.eval()
    replies, together = _replies(model, tokenizer, prompts, done)
    width = model.get_output_embeddings().weight.shape[0]
    kept = max(2, min(NEW_TOKENS + 1, LOGITS_BYTES // (4 * width * max(len(prompts), 1))))
    logits, gaps = [], []
    for prompt, reply in zip(prompts, replies, strict=True):
        found = _logits(model, prompt, reply)
        best = found.topk(2, dim=-1).values
        gaps.append((best[:, 0] - best[:, 1]).tolist())
        logits.append(found[:kept].contiguous())
        done(1)
    # PEFT's generate puts virtual tokens left of the padding: replies would depend on what else is in their batch.
    return Reference(list(prompts), replies, logits, gaps, 1 if has_prompt(model) else together)


def _replies(model: Any, tokenizer: Tokenizer, prompts: Sequence[TokenIds], done: Done) -> tuple[list[list[int]], int]:
    batching = answered_together(model, tokenizer)
    replies: list[list[int]] = [[] for _ in prompts]
    together = 1 if batching.kind == "alone" else PROMPTS_TOGETHER
    if batching.kind == "packed":
        engine = engine_for(model, tokenizer, batching, PROMPTS_TOGETHER)
        for completion in engine.generate([Request(prompt, NEW_TOKENS) for prompt in prompts]):
            replies[completion.request] = list(completion.ids)
            done(1)
        return replies, together
    for batch in batches_of(prompts, batch_prompts=together, batching=batching.kind):
        ids = padded_replies(model, tokenizer, [prompts[place] for place in batch], NEW_TOKENS)
        for place, reply in zip(batch, ids, strict=True):
            replies[place] = reply
        done(len(batch))
    return replies, together


def _logits(model: Any, prompt: TokenIds, reply: Sequence[int], *, more: int = 0) -> torch.Tensor:
    """[reply + 1, V] in fp32 and main memory: what is predicted at each token of the reply, and behind it."""
    ids = [*prompt.tolist(), *reply]
    row = torch.tensor([[*ids, *np.resize(ids, more).tolist()]], device=model.device)
    logits = model(input_ids=row).logits[0]
    first = logits.shape[0] - more - len(reply) - 1  # virtual tokens stand in front
    found: torch.Tensor = logits[first : first + len(reply) + 1].float().cpu()
    return found


@torch.inference_mode()
def difference_from(model: Any, reference: Reference, *, more: int = 0, done: Done = lambda _: None) -> Difference:
    """How far `model` is from the reference; `more` tokens stand behind each row."""
    kl, tokens, logit, gap = 0.0, 0, 0.0, 0.0
    for prompt, reply, expected in zip(reference.prompts, reference.replies, reference.logits, strict=True):
        part = compared(expected, _logits(model, prompt, reply[: len(expected) - 1], more=more))
        kl, tokens = kl + part["kl"], tokens + part["tokens"]
        logit, gap = max(logit, part["logit_difference"]), max(gap, part["gap_difference"])
        done(1)
    return Difference(kl / max(tokens, 1), logit, gap)


@torch.no_grad()
def noise_in(model: Any, reference: Reference, dtype: torch.dtype, *, merged: bool, done: Done) -> Difference:
    """What of a difference is noise in `dtype`; the model computes in it from here on.

    Args:
        model: the one that the reference is of.
        reference: from it.
        dtype: of the export.
        merged: weights with a pair are rounded once more than those of the run.
        done: told of each prompt.
    """
    for number, layer in enumerate(adapted_layers(model) if merged else []):
        for parameter in layer.get_base_layer().parameters(recurse=False):
            if parameter.is_floating_point() and parameter.ndim > 1:
                parameter.data = rounded_by_chance(parameter.data, dtype, seed=number)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.compute_dtype = dtype
    return difference_from(model, reference, more=MORE_TOKENS, done=done)

"""Whether a model really keeps the documents of a packed row apart, asked of the model itself.

Attention goes through `model.attention`, but some models also mix tokens elsewhere: convolutions, linear attention and
state-space layers run over the whole row. No list of architectures is trusted; the model is tried.
"""

from __future__ import annotations

from typing import Any

import torch

from tutelage.model.layers import decoder_of

FIRST_TOKENS, SECOND_TOKENS = 8, 5
ID_STEP, OTHER_ID_STEP = 13, 29
"""Two sets of ids for the first document, spread over the vocabulary."""

EXPERT_SHARE = 1e-2
"""Where tokens are sorted to experts, other tokens in the first document change the shapes of products, and with them
their rounding; differences up to this share of the largest value are taken for that. Source: our choice, about the
rounding of bf16 over a few layers."""

WIDE_ROUNDING, NARROW_ROUNDING = 1e-4, 0.05
"""Largest difference, as a share of the norm, that is taken for rounding, in fp32 and in 16 bits. Source: our choice;
16-bit numbers have 3 significant digits, a few layers lose one of them, and what is left out by mistake is larger."""


@torch.no_grad()  # not inference_mode: some models keep a state, and could not train with what that leaves
def documents_stay_apart(model: Any) -> bool:
    """Whether the second document of a row is computed alike whatever the first one says, and as it is alone.

    The shapes are the same whatever the first one says, so the numbers must be the same to the last bit; only models
    with experts get some room, as the note above says. Alone it may differ by rounding; a model that counts positions
    over the whole row, whatever it is told, differs by more.

    Args:
        model: a causal language model after `model.attention.isolate_documents`; its training mode is left as it was.
    """
    trained, vocabulary_size = model.training, len(model.get_input_embeddings().weight)
    model.eval()
    try:
        one, other = (_second_hidden(model, step, vocabulary_size) for step in (ID_STEP, OTHER_ID_STEP))
        alone = _second_hidden(model, None, vocabulary_size)
    finally:
        model.train(trained)
    if not torch.equal(one, other) and not (
        _has_experts(model) and float((one - other).abs().max()) <= EXPERT_SHARE * float(one.abs().max())
    ):
        return False
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return equal_but_for_rounding(one, alone, dtype)


def equal_but_for_rounding(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether two results of the same numbers, computed in `dtype`, differ by rounding alone."""
    if found.shape != expected.shape or not bool(torch.isfinite(expected).all()):
        return False
    difference = torch.linalg.vector_norm(found.float() - expected.float())
    share = WIDE_ROUNDING if torch.finfo(dtype).bits >= 32 else NARROW_ROUNDING
    return bool(difference <= share * torch.linalg.vector_norm(expected.float()))


def _second_hidden(model: Any, step: int | None, vocabulary_size: int) -> torch.Tensor:
    """Hidden states of the second document, fp32 [SECOND_TOKENS, width].

    The first one's ids go in `step`s; None leaves it out.
    """
    first = [] if step is None else [(1 + place * step) % vocabulary_size for place in range(FIRST_TOKENS)]
    second = [(2 + place) % vocabulary_size for place in range(SECOND_TOKENS)]
    device = next(model.parameters()).device
    hidden = decoder_of(model)(
        input_ids=torch.tensor([first + second], device=device),
        position_ids=torch.tensor([[*range(len(first)), *range(SECOND_TOKENS)]], device=device),
        document_tokens=(len(first), SECOND_TOKENS) if first else (SECOND_TOKENS,),
        use_cache=False,
    )[0]
    found: torch.Tensor = hidden[0, len(first) :].float()
    return found


def _has_experts(model: Any) -> bool:
    return any("expert" in name for name, _ in model.named_modules())

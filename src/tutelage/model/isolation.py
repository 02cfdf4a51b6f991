"""Whether a model really keeps the documents of a packed row apart, asked of the model itself.

Attention goes through `model.attention`, but some models also mix tokens elsewhere: convolutions, linear attention and
state-space layers run over the whole row. No list of architectures is trusted; the model is tried.
"""

from __future__ import annotations

from typing import Any

import torch

FIRST_TOKENS, SECOND_TOKENS = 8, 5
ID_STEP, OTHER_ID_STEP = 13, 29
"""Two sets of ids for the first document, spread over the vocabulary."""

EXPERT_SHARE = 1e-2
"""Where tokens are sorted to experts, other tokens in the first document change the shapes of products, and with them
their rounding; differences up to this share of the largest value are taken for that. Source: our choice, about the
rounding of bf16 over a few layers."""


@torch.inference_mode()
def documents_stay_apart(model: Any) -> bool:
    """Whether the second document of a row is computed alike whatever the first one says.

    The shapes are the same both times, so the numbers must be the same to the last bit; only models with experts get
    some room, as the note above says.

    Args:
        model: a causal language model after `model.attention.isolate_documents`; its training mode is left as it was.
    """
    trained, vocabulary_size = model.training, len(model.get_input_embeddings().weight)
    model.eval()
    try:
        one, other = (_second_hidden(model, step, vocabulary_size) for step in (ID_STEP, OTHER_ID_STEP))
    finally:
        model.train(trained)
    if torch.equal(one, other):
        return True
    return _has_experts(model) and float((one - other).abs().max()) <= EXPERT_SHARE * float(one.abs().max())


def _second_hidden(model: Any, step: int, vocabulary_size: int) -> torch.Tensor:
    """Hidden states of the second document, fp32 [SECOND_TOKENS, width], where the first one's ids go in `step`s."""
    first = [(1 + place * step) % vocabulary_size for place in range(FIRST_TOKENS)]
    second = [(2 + place) % vocabulary_size for place in range(SECOND_TOKENS)]
    device = next(model.parameters()).device
    hidden = model.get_decoder()(
        input_ids=torch.tensor([first + second], device=device),
        position_ids=torch.tensor([[*range(FIRST_TOKENS), *range(SECOND_TOKENS)]], device=device),
        document_tokens=(FIRST_TOKENS, SECOND_TOKENS),
        use_cache=False,
    ).last_hidden_state
    found: torch.Tensor = hidden[0, FIRST_TOKENS:].float()
    return found


def _has_experts(model: Any) -> bool:
    return any("expert" in name for name, _ in model.named_modules())

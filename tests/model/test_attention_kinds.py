"""What layers ask of attention (windows, chunks, caps, sinks, two widths), packed, beside the model's own forward."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tutelage.model.architecture import architecture_of
from tutelage.model.loss import row_loss
from tutelage.pack import pack_rows
from tutelage.types import Example

Documents = Callable[..., list[Example]]
PlainLoss = Callable[[Any, Sequence[Example]], torch.Tensor]

WINDOW, CHUNK = 6, 5
LENGTHS = (7, 31, 12, 2, 20, 9)
SHARED = 17
"""Tokens that all documents begin with in rows of shared beginnings: more than a window and a chunk."""

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
ALTERNATING = ["sliding_attention", "full_attention"]
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("gemma2", {"sliding_window": WINDOW, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0}),
    "gemma3": (
        "gemma3_text",
        {"sliding_window": WINDOW, "query_pre_attn_scalar": 8, "layer_types": ALTERNATING},
    ),
    "gpt-oss": (
        "gpt_oss",
        {"sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2, "layer_types": ALTERNATING},
    ),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "cohere2": ("cohere2", {"sliding_window": WINDOW, "layer_types": ALTERNATING}),
    "window in the mask alone": (
        "qwen2_moe",
        {
            "sliding_window": WINDOW,
            "use_sliding_window": True,
            "max_window_layers": 0,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "llama4": (
        "llama4_text",
        {
            "attention_chunk_size": CHUNK,
            "layer_types": ["chunked_attention", "full_attention"],
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
        },
    ),
    "modernbert": (
        "modernbert-decoder",
        {"local_attention": 2 * WINDOW, "layer_types": ALTERNATING, "bos_token_id": 1},
    ),
    "deepseek v3": (
        "deepseek_v3",
        {
            "num_key_value_heads": 4,
            "q_lora_rank": None,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "topk_group": 1,
            "n_group": 1,
        },
    ),
}


def made(name: str, more: dict[str, Any]) -> Any:
    """A random model of a kind, its matrices large enough for attention to be anything but even."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **(SIZES | more)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def norm_of_gradients(model: Any) -> float:
    """Of all parameters together; those are forgotten."""
    squares = sum(
        float(parameter.grad.double().square().sum()) for parameter in model.parameters() if parameter.grad is not None
    )
    model.zero_grad()
    return math.sqrt(squares)


def beginning_alike(examples: Sequence[Example]) -> list[Example]:
    """The same documents behind `SHARED` tokens that are not trained."""
    shared = np.arange(2, 2 + SHARED, dtype=np.int32)
    return [
        replace(
            example,
            ids=np.concatenate([shared, example.ids]),
            weights=np.concatenate([np.zeros(SHARED, np.float32), example.weights]),
        )
        for example in examples
    ]


@pytest.mark.parametrize("shared", [False, True], ids=["packed", "shared beginning"])
@pytest.mark.parametrize("kind", KINDS)
def test_r4_r9_loss_and_gradient_are_those_of_the_models_own_attention(
    kind: str, shared: bool, documents: Documents, plain_loss: PlainLoss
) -> None:
    model, examples = made(*KINDS[kind]), documents(LENGTHS, vocabulary=96)
    if shared:
        examples = beginning_alike(examples)
    expected = plain_loss(model, examples)
    expected.backward()
    expected_norm = norm_of_gradients(model)

    architecture = architecture_of(model)
    rows = pack_rows(examples, row_tokens=200, share_prefixes=shared)
    losses = [row_loss(model, row, architecture=architecture)[0] for row in rows]
    torch.stack(losses).sum().backward()

    assert architecture.documents_isolated
    assert len(rows) == 1
    assert bool(rows[0].parents) == shared
    assert torch.stack(losses).sum().item() == pytest.approx(expected.item(), rel=1e-5)
    assert norm_of_gradients(model) == pytest.approx(expected_norm, rel=1e-5)

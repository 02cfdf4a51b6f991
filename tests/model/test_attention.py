"""Attention inside documents equals transformers' eager attention of each document alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import eager_attention_forward

from tutelage.model.attention import NAME, attend_as_served, document_attention, isolate_documents

DOCUMENTS = (5, 1, 9, 3)
HEADS, GROUPS, WIDTH = 4, 2, 8


def tensors(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(4)
    query = torch.randn(1, HEADS, tokens, WIDTH, generator=random)
    key = torch.randn(1, GROUPS, tokens, WIDTH, generator=random)
    value = torch.randn(1, GROUPS, tokens, WIDTH, generator=random)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def eager(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    tokens = query.shape[2]
    mask = torch.full((tokens, tokens), float("-inf")).triu(1)[None, None]
    module: Any = SimpleNamespace(num_key_value_groups=HEADS // GROUPS, training=False)
    return eager_attention_forward(module, query, key, value, mask, scaling=scaling)[0]


@pytest.mark.parametrize("scaling", [WIDTH**-0.5, 0.11])
def test_each_document_attends_as_if_alone(scaling: float) -> None:
    query, key, value = tensors(sum(DOCUMENTS))

    found, weights = document_attention(
        torch.nn.Identity(), query, key, value, None, document_tokens=DOCUMENTS, scaling=scaling
    )

    assert weights is None
    assert found.shape == (1, sum(DOCUMENTS), HEADS, WIDTH)
    start = 0
    for tokens in DOCUMENTS:
        piece = slice(start, start + tokens)
        expected = eager(query[:, :, piece], key[:, :, piece], value[:, :, piece], scaling)
        torch.testing.assert_close(found[:, piece], expected, rtol=1e-5, atol=1e-6)
        start += tokens


def test_short_bf16_documents_are_computed_wide() -> None:
    query, key, value = tensors(sum(DOCUMENTS), torch.bfloat16)

    found, _ = document_attention(torch.nn.Identity(), query, key, value, None, document_tokens=DOCUMENTS)
    wide, _ = document_attention(
        torch.nn.Identity(), query.float(), key.float(), value.float(), None, document_tokens=DOCUMENTS
    )

    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, wide.to(torch.bfloat16), rtol=0.0, atol=0.0)


def test_long_bf16_documents_stay_close_to_fp32() -> None:
    query, key, value = tensors(1030, torch.bfloat16)

    found, _ = document_attention(torch.nn.Identity(), query, key, value, None, document_tokens=(1030,))
    wide, _ = document_attention(
        torch.nn.Identity(), query.float(), key.float(), value.float(), None, document_tokens=(1030,)
    )

    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wide, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_mask": torch.zeros(1, 1, 18, 18)}, "no mask"),
        ({"softcap": 50.0}, "caps its attention scores"),
        ({"sliding_window": 8}, "window of 8"),
    ],
)
def test_what_it_does_not_compute_is_refused(change: dict[str, Any], words: str) -> None:
    query, key, value = tensors(sum(DOCUMENTS))
    given: dict[str, Any] = {"attention_mask": None, "document_tokens": DOCUMENTS} | change

    with pytest.raises(ValueError, match=words):
        document_attention(torch.nn.Identity(), query, key, value, **given)


def test_two_rows_at_once_are_refused() -> None:
    query, key, value = (one.repeat(2, 1, 1, 1) for one in tensors(4))

    with pytest.raises(ValueError, match="one packed row"):
        document_attention(torch.nn.Identity(), query, key, value, None, document_tokens=(4,))


def test_attention_sinks_are_refused() -> None:
    """gpt-oss hands its sinks over as `s_aux`: an attention that leaves them out is another model."""
    query, key, value = tensors(sum(DOCUMENTS))

    with pytest.raises(ValueError, match=r"s_aux|sink"):
        document_attention(
            torch.nn.Identity(), query, key, value, None, document_tokens=DOCUMENTS, s_aux=torch.zeros(HEADS)
        )


def test_a_window_as_long_as_the_longest_document_is_no_window() -> None:
    query, key, value = tensors(sum(DOCUMENTS))
    plain, _ = document_attention(torch.nn.Identity(), query, key, value, None, document_tokens=DOCUMENTS)

    windowed, _ = document_attention(
        torch.nn.Identity(), query, key, value, None, document_tokens=DOCUMENTS, sliding_window=9
    )

    assert torch.equal(plain, windowed)


def test_models_switch_between_training_and_serving(tiny_model: Any) -> None:
    isolate_documents(tiny_model)
    assert tiny_model.config._attn_implementation == NAME
    ids = torch.arange(6)[None]
    packed = tiny_model(input_ids=ids, document_tokens=(6,), use_cache=False).logits

    attend_as_served(tiny_model)
    assert tiny_model.config._attn_implementation == "sdpa"
    served = tiny_model(input_ids=ids).logits

    torch.testing.assert_close(packed, served, rtol=1e-5, atol=1e-5)

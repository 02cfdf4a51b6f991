"""The model is asked whether it keeps documents apart: attention alone does, a convolution over the row does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM, MixtralConfig, MixtralForCausalLM, Phi3Config, Phi3ForCausalLM

from tests.support.tiny_kinds import tiny_kind
from tutelage.model.attention import isolation_check as isolation
from tutelage.model.attention.isolation_check import (
    MaxLengths,
    documents_are_isolated,
    equal_but_for_rounding,
    prefixes_can_be_shared,
    rounding_noise,
)
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.layers import decoder_of
from tutelage.model.precision import cast_model

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_attention_alone_keeps_documents_apart(tiny_model: Any, precision: Any) -> None:
    cast_model(tiny_model, precision)
    use_packed_attention(tiny_model)
    tiny_model.train()

    assert documents_are_isolated(tiny_model)
    assert tiny_model.training, "the mode must be left as it was"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_convolution_over_the_row_does_not(precision: Any) -> None:
    torch.manual_seed(0)
    model = Lfm2ForCausalLM(Lfm2Config(**SMALL, full_attn_idxs=[1]))
    cast_model(model, precision)
    use_packed_attention(model)

    assert not documents_are_isolated(model)


def test_experts_are_no_leak() -> None:
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2))
    use_packed_attention(model)

    assert documents_are_isolated(model)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_r8_queries_scaled_by_their_place_in_the_row_keep_documents_in_rows_of_their_own(precision: Any) -> None:
    """Llama 4 does so in layers without positions, by steps of `floor_scale` tokens of the row."""
    model = tiny_kind("llama4_text")
    for layer in model.model.layers:
        layer.self_attn.floor_scale = 64
    cast_model(model, precision)
    use_packed_attention(model)

    assert documents_are_isolated(model, MaxLengths(row_tokens=60, document_tokens=20)), "rows within the first step"
    assert not documents_are_isolated(model, MaxLengths(row_tokens=200, document_tokens=20))


def test_r8_a_turn_by_the_longest_document_of_the_row_keeps_documents_in_rows_of_their_own() -> None:
    """Phi-3 turns all of a row by other angles where one document is longer than what it was first trained on."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 32}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "partial_rotary_factor": 1.0, "factor": 16.0}
    torch.manual_seed(0)
    model = Phi3ForCausalLM(Phi3Config(**SMALL, rope_parameters=rope, original_max_position_embeddings=32))
    use_packed_attention(model)

    assert documents_are_isolated(model, MaxLengths(row_tokens=200, document_tokens=20))
    assert not documents_are_isolated(model, MaxLengths(row_tokens=200, document_tokens=100))


def test_r8_a_row_that_is_too_long_for_the_memory_is_tried_at_half_its_length(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_packed_attention(tiny_model)
    computed, tried = isolation._hidden, []

    def short_of_memory(model: Any, segments: Any, **named: Any) -> torch.Tensor:
        if len(segments) > 2:
            tried.append(sum(map(len, segments)))
            if tried[-1] > 100:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return computed(model, segments, **named)

    monkeypatch.setattr(isolation, "_hidden", short_of_memory)

    assert documents_are_isolated(tiny_model, MaxLengths(row_tokens=310, document_tokens=50))
    assert tried == [310, 160, 85]


def test_r8_a_model_without_parents_of_documents_shares_no_beginning(tiny_model: Any) -> None:
    use_packed_attention(tiny_model)
    assert prefixes_can_be_shared(tiny_model)

    def forget(_module: Any, given: Any, named: dict[str, Any]) -> Any:
        return given, {name: one for name, one in named.items() if name != "parents"}

    tiny_model.model.layers[1].self_attn.register_forward_pre_hook(forget, with_kwargs=True)

    assert documents_are_isolated(tiny_model)
    assert not prefixes_can_be_shared(tiny_model)


NOISE_ROW = torch.arange(1, 13)[None]


def followed_by_others(model: Any, change: float) -> None:
    """What a decoder says of a row that others follow is changed by this share, as another order of sums would."""
    decoder = decoder_of(model)

    def forward(*, input_ids: torch.Tensor, **arguments: Any) -> Any:
        output = type(decoder).forward(decoder, input_ids=input_ids, **arguments)
        return (output[0] * (1 + change),) if input_ids.shape[1] > NOISE_ROW.shape[1] else output

    decoder.forward = forward


@pytest.mark.parametrize(
    ("change", "low", "high"), [(0.0, 0.0, 0.01), (0.06, 0.05, 0.07), (0.3, 0.0, 0.0)], ids=["none", "some", "all"]
)
def test_noise_is_what_a_row_differs_by_in_front_of_others(
    tiny_model: Any, change: float, low: float, high: float
) -> None:
    tiny_model.bfloat16()
    followed_by_others(tiny_model, change)
    assert low <= rounding_noise(tiny_model.eval(), NOISE_ROW) <= high


def test_in_fp32_nothing_is_taken_for_noise(tiny_model: Any) -> None:
    followed_by_others(tiny_model, 0.06)
    assert rounding_noise(tiny_model.eval(), NOISE_ROW) == 0.0


def test_a_model_that_refuses_has_no_noise(tiny_model: Any) -> None:
    def forward(*, input_ids: torch.Tensor, **_: Any) -> Any:
        raise ValueError(f"not {input_ids.shape[1]} tokens")

    decoder_of(tiny_model.bfloat16()).forward = forward
    assert rounding_noise(tiny_model.eval(), NOISE_ROW) == 0.0


def test_a_state_of_the_model_is_left_for_one_row() -> None:
    """RecurrentGemma keeps one of as many rows as it saw last, and fails with another number of rows."""
    torch.manual_seed(0)
    model = tiny_kind("recurrent_gemma").bfloat16().eval()
    rounding_noise(model, NOISE_ROW)
    with torch.no_grad():
        assert model(input_ids=NOISE_ROW, use_cache=False).logits.shape[:2] == NOISE_ROW.shape


@pytest.mark.parametrize(
    ("dtype", "share", "noise", "equal"),
    [
        (torch.bfloat16, 0.04, 0.0, True),
        (torch.bfloat16, 0.06, 0.0, False),
        (torch.bfloat16, 0.06, 0.035, True),
        (torch.bfloat16, 0.08, 0.035, False),
        (torch.float32, 0.06, 0.035, False),
    ],
)
def test_the_limit_of_rounding_follows_the_noise_in_16_bits(
    dtype: torch.dtype, share: float, noise: float, equal: bool
) -> None:
    expected = torch.ones(8)
    assert equal_but_for_rounding(expected * (1 + share), expected, dtype, noise) == equal

"""The model is asked whether it keeps documents apart: attention alone does, a convolution over the row does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Lfm2Config, Lfm2ForCausalLM, MixtralConfig, MixtralForCausalLM

from tutelage.model.attention import isolate_documents
from tutelage.model.isolation import documents_stay_apart
from tutelage.model.load import compute_in

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
    compute_in(tiny_model, precision)
    isolate_documents(tiny_model)
    tiny_model.train()

    assert documents_stay_apart(tiny_model)
    assert tiny_model.training, "the mode must be left as it was"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_convolution_over_the_row_does_not(precision: Any) -> None:
    torch.manual_seed(0)
    model = Lfm2ForCausalLM(Lfm2Config(**SMALL, full_attn_idxs=[1]))
    compute_in(model, precision)
    isolate_documents(model)

    assert not documents_stay_apart(model)


def test_experts_are_no_leak() -> None:
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2))
    isolate_documents(model)

    assert documents_stay_apart(model)

"""LoRA in one function gives PEFT's numbers, and stays PEFT's layer for all that PEFT does with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from tutelage.model.fused.lora_linear import FusedLoraLinear
from tutelage.model.fused.norm_and_mlp import reduce_saved_activations
from tutelage.model.precision import DTYPES

IDS = torch.arange(40)[None] * 7 % 416


def adapted(dtype: str = "fp32", *, started: bool = True, **settings: Any) -> Any:
    """A tiny model with adapters that do something, unless they have only started."""
    torch.manual_seed(3)
    shape = LlamaConfig(
        vocab_size=416, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attention_bias=True,
    )  # fmt: skip
    given = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | settings
    model = get_peft_model(LlamaForCausalLM(shape), LoraConfig(**given))
    if started:
        stir(model)
    return model.to(DTYPES[dtype])


def stir(model: Any) -> None:
    with torch.no_grad():
        for name, one in model.named_parameters():
            if "lora_B" in name:
                one.normal_(std=0.2)


def learned(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.train()
    torch.manual_seed(8)
    logits = model(input_ids=IDS).logits
    logits.float().pow(2).mean().backward()
    return logits.detach(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def off(found: torch.Tensor, right: torch.Tensor) -> float:
    """The norm of the difference by the norm of what is right."""
    return float(torch.linalg.vector_norm(found.double() - right.double()) / torch.linalg.vector_norm(right.double()))


def lean_layers(model: Any) -> list[FusedLoraLinear]:
    return [module for module in model.modules() if isinstance(module, FusedLoraLinear)]


KINDS: list[dict[str, Any]] = [
    {}, {"use_rslora": True}, {"lora_bias": True}, {"lora_dropout": 0.2}, {"use_dora": True},
]  # fmt: skip


@pytest.mark.parametrize("settings", KINDS)
def test_outputs_and_gradients_are_those_of_peft(settings: dict[str, Any]) -> None:
    plain, lean = adapted(**settings), adapted(**settings)
    names = set(lean.state_dict())
    reduce_saved_activations(lean)

    assert len(lean_layers(lean)) == 14
    assert set(lean.state_dict()) == names
    (expected, gradients), (found, lean_gradients) = learned(plain), learned(lean)
    assert off(found, expected) <= 1e-5
    assert lean_gradients.keys() == gradients.keys()
    assert all("lora_" in name for name in gradients)
    for name, gradient in gradients.items():
        # Attention hardly depends on a bias of its keys: the gradient of one is little more than rounding.
        assert off(lean_gradients[name], gradient) <= (1e-4 if name.endswith(".bias") else 1e-5), name


@pytest.mark.parametrize("settings", KINDS[:2])
def test_in_bf16_it_rounds_no_worse_than_peft(settings: dict[str, Any]) -> None:
    exact, plain, lean = (adapted(one, **settings) for one in ("bf16", "bf16", "bf16"))
    reduce_saved_activations(lean)
    right, theirs, ours = learned(exact.float())[1], learned(plain)[1], learned(lean)[1]
    ends = [torch.cat([one[name].flatten().float() for name in right]) for one in (right, theirs, ours)]
    assert off(ends[2], ends[0]) <= 1.25 * off(ends[1], ends[0])


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_step_0_is_the_base_bit_for_bit(dtype: str) -> None:
    model = adapted(dtype, started=False)
    with model.disable_adapter():
        base = model.train()(input_ids=IDS).logits
    reduce_saved_activations(model)
    assert torch.equal(model(input_ids=IDS).logits, base)


def test_what_is_measured_is_rounded_as_peft_rounds_it() -> None:
    plain, lean = adapted("bf16"), adapted("bf16")
    reduce_saved_activations(lean)
    with torch.no_grad():
        assert torch.equal(lean(input_ids=IDS).logits, plain(input_ids=IDS).logits)


def test_peft_switches_adds_saves_and_merges_as_before(tmp_path: Path) -> None:
    plain, lean = adapted(), adapted()
    reduce_saved_activations(lean)
    with torch.enable_grad(), plain.disable_adapter(), lean.disable_adapter():
        torch.testing.assert_close(lean(input_ids=IDS).logits, plain(input_ids=IDS).logits)
    with torch.no_grad():
        for one in (plain, lean):
            torch.manual_seed(4)
            one.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
            one.set_adapter("other")
            stir(one)
        torch.testing.assert_close(lean(input_ids=IDS).logits, plain(input_ids=IDS).logits)
        for one in (plain, lean):
            one.set_adapter("default")
        lean.save_pretrained(tmp_path)
        opened = PeftModel.from_pretrained(adapted().unload(), str(tmp_path))
        torch.testing.assert_close(opened(input_ids=IDS).logits, plain(input_ids=IDS).logits)
        merged = lean.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=IDS).logits, plain(input_ids=IDS).logits, rtol=1e-4, atol=1e-5)
    assert not lean_layers(merged)


def test_a_base_that_learns_too_keeps_its_gradient() -> None:
    model = adapted()
    model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight.requires_grad_()
    reduce_saved_activations(model)
    _, gradients = learned(model)
    assert any("base_layer" in name for name in gradients)

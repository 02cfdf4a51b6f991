"""Weights of 4 bits: which are, which are not, and how they are counted."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from tutelage import config
from tutelage.errors import ConfigError, DataError, DependencyError
from tutelage.model import quantization as quantise
from tutelage.model.adapters.lora import add_lora
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.load import load
from tutelage.model.loss import row_loss
from tutelage.model.precision import cast_model
from tutelage.model.quantization import four_bit, parameter_count, stored_bytes
from tutelage.pack import pack_rows
from tutelage.report.console.progress import Screen
from tutelage.train.run import run

IDS = torch.arange(3, 40)[None]


@pytest.fixture
def quantised(tiny_model_folder: Path) -> Any:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra qlora)")
    return load(tiny_model_folder, quantization=four_bit(cast_model=torch.float32, double_quantization=True))


def test_linear_layers_are_quantised_and_head_norms_and_embeddings_are_not(quantised: Any) -> None:
    model, _ = quantised

    for name, one in model.named_parameters():
        assert (one.dtype == torch.uint8) == ("_proj" in name), name
    assert type(model.get_output_embeddings()) is torch.nn.Linear


@pytest.mark.parametrize("double", [True, False])
def test_a_weight_counts_once_and_takes_what_the_paper_says(tiny_model_folder: Path, double: bool) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra qlora)")
    plain, loaded = load(tiny_model_folder)
    model, record = load(tiny_model_folder, quantization=four_bit(cast_model=torch.float32, double_quantization=double))

    assert record.parameters == loaded.parameters == sum(parameter.numel() for parameter in plain.parameters())
    weight = model.model.layers[0].mlp.up_proj.weight
    count = parameter_count(weight)
    assert count == 128 * 64
    # QLoRA, section 3: 4 bits a weight, a 32-bit scale for each 64 of them; doubled, 8 bits for each 64, and 32 bits
    # for each 256 of those. Lookup tables of 16 and of 256 numbers come on top, and an offset.
    scales = (count // 64) * (1 if double else 4) + (4 * max(1, count // 64 // 256) if double else 0)
    tables = 16 * 4 + (256 * 4 + 4 if double else 0)
    assert stored_bytes(weight) == pytest.approx(count // 2 + scales + tables, abs=8)


def test_casting_leaves_four_bits_alone(quantised: Any) -> None:
    model, _ = quantised
    before = {name: one.data.clone() for name, one in model.named_parameters() if not one.is_floating_point()}

    cast_model(model, "bf16")

    for name, one in model.named_parameters():
        assert torch.equal(one, before[name]) if name in before else one.dtype == torch.bfloat16, name


def test_the_adapter_starts_at_the_quantised_base_exactly(quantised: Any) -> None:
    model, _ = quantised
    base = model(input_ids=IDS).logits

    adapted, record = add_lora(model, rank=4, alpha=8, dropout=0.0, targets="all-linear")

    assert torch.equal(adapted(input_ids=IDS).logits, base)
    assert record.method == "qlora"


def test_gradients_are_those_of_the_widened_weights(quantised: Any, tiny_model: Any, documents: Any) -> None:
    """A plain model with the dequantised weights gives the same loss and the same gradients of the adapter."""
    from bitsandbytes.functional import dequantize_4bit

    model, _ = quantised
    with torch.no_grad():
        for name, one in model.named_parameters():
            if not one.is_floating_point():
                tiny_model.get_parameter(name).copy_(dequantize_4bit(one.data, one.quant_state))
    (row,) = pack_rows(documents((20, 30)), row_tokens=64)
    found = []
    for each in (model, tiny_model):
        torch.manual_seed(4)
        adapted, _ = add_lora(each, rank=4, alpha=8, dropout=0.0, targets="all-linear")
        use_packed_attention(adapted)
        loss, _ = row_loss(adapted, row)
        loss.backward()
        found.append((loss, {n: one.grad for n, one in adapted.named_parameters() if one.requires_grad}))
    torch.testing.assert_close(found[0][0], found[1][0])
    for name, value in found[1][1].items():
        torch.testing.assert_close(found[0][1][name], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("repacks", [True, False])
def test_evaluating_changes_neither_weights_nor_what_is_learned(quantised: Any, repacks: bool) -> None:
    """As on a processor for which bitsandbytes repacks, whatever this one is."""
    model, _ = quantised
    layers = [module for module in model.modules() if type(module).__name__ == "Linear4bit"]
    for layer in layers:
        setattr(layer, quantise.REPACKS, repacks)
    before = {name: one.data.clone() for name, one in model.named_parameters()}

    assert quantise.keep_quantized(model) == (len(layers) if repacks else 0)
    model.eval()
    with torch.no_grad():
        measured = model(input_ids=IDS).logits
    embedded = model.get_input_embeddings()(IDS).detach().requires_grad_()
    model(inputs_embeds=embedded).logits.sum().backward()

    assert len(layers) == 14
    assert all(torch.equal(one, before[name]) for name, one in model.named_parameters())
    assert embedded.grad is not None
    assert torch.equal(model(input_ids=IDS).logits, measured)


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise.importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(DependencyError, match="bitsandbytes") as caught:
        four_bit(cast_model=torch.float32, double_quantization=True)

    assert caught.value.fix == "pip install 'tutelage[qlora]'"


def in_four_bits(model: Any, folder: Path) -> Any:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra qlora)")
    model.save_pretrained(folder)
    return load(folder, quantization=four_bit(cast_model=torch.float32, double_quantization=True))[0]


def test_r14_what_came_into_four_bits_is_counted(quantised: Any) -> None:
    model, _ = quantised
    _, record = add_lora(model, rank=4, alpha=8, dropout=0.0, targets="all-linear")

    layers = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
    assert record.four_bit == quantise.quantized_count(model) == layers
    assert quantise.check_quantized_share(model) == ()


def test_r14_experts_that_stay_whole_are_a_question(tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    (question,) = quantise.check_quantized_share(in_four_bits(MixtralForCausalLM(config), tmp_path))

    attention, experts, router = 2 * 64 * 64 + 2 * 64 * 32, 4 * 3 * 64 * 64, 4 * 64
    assert question.startswith("Is this meant?")
    assert f"{attention / (attention + experts + router):.1%} of the weights" in question
    assert "mlp.experts.gate_up_proj" in question
    assert "three dimensions" in question


def test_r14_nothing_in_four_bits_is_an_error_whose_advice_works(tmp_path: Path) -> None:
    model = in_four_bits(GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4)), tmp_path)
    for name, one in list(model.named_modules()):  # a model of which bitsandbytes takes nothing
        if type(one).__name__ == "Linear4bit":
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, torch.nn.Linear(32, 32))

    with pytest.raises(ConfigError, match="Nothing of this model came into 4 bits") as caught:
        quantise.check_quantized_share(model)
    assert caught.value.fix == 'set model.method = "lora"'


def test_r24_a_checkpoint_of_4_bits_trains_by_the_advice_alone(
    tiny_recipe: Callable[[Path], Path], tiny_model_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra qlora)")
    stored = tmp_path / "stored"
    shutil.copytree(tiny_model_folder, stored)
    asked = four_bit(cast_model=torch.float32, double_quantization=False)
    load(tiny_model_folder, quantization=asked)[0].save_pretrained(stored)
    settings = (
        f"model.name={stored}",
        "evaluate.before=false",
        "evaluate.general=[]",
        "evaluate.task=[]",
        "data.validation=[]",
    )
    recipe, screen = tiny_recipe(tmp_path / "home"), Screen(Console(file=io.StringIO()))

    for method in ("full", "lora"):
        with pytest.raises(DataError, match="stored in 4 bits") as caught:
            run(config.load(recipe, (*settings, f"model.method={method}")), screen, resume=False)
        assert str(caught.value.fix).startswith('set model.method = "qlora"')

    assert run(config.load(recipe, (*settings, "model.method=qlora", "train.max_steps=1")), screen, resume=False)

"""The dial: exact at its ends, the sum that plain torch and PEFT make between them, and all back afterwards."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from tutelage.errors import ConfigError
from tutelage.model.adapters.adapter_set import add_adapter, attach_adapter
from tutelage.model.adapters.lora import add_lora
from tutelage.model.adapters.prompt_tuning import add_prompt
from tutelage.model.interpolation import adapter_at, interpolated, weights_at

IDS = torch.arange(3, 40)[None]
VALUES = (0.0, 0.25, 0.5, 1.0, 1.5)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    answer: torch.Tensor = model.eval()(input_ids=IDS).logits
    return answer


@torch.no_grad()
def disturb(parameters: Any, *, seed: int = 1) -> None:
    torch.manual_seed(seed)
    for parameter in parameters:
        parameter.add_(torch.randn_like(parameter) * 0.05)


def state_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal_states(model: Any, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.fixture
def saved(tiny_model_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A writer of adapters of the tiny model with random weights, in a folder each."""

    def save(name: str, *, seed: int = 1, **chosen: Any) -> Path:
        base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
        given: dict[str, Any] = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"} | chosen
        adapted, _ = add_lora(base, **given)
        disturb((parameter for parameter in adapted.parameters() if parameter.requires_grad), seed=seed)
        adapted.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def opened(tiny_model_folder: Path) -> Callable[[Path], Any]:
    """The tiny model with an adapter beside it."""
    return lambda folder: attach_adapter(AutoModelForCausalLM.from_pretrained(tiny_model_folder), folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whole_weights_are_those_of_plain_torch(tiny_model_folder: Path, dtype: torch.dtype) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=dtype)
    tuned = copy.deepcopy(base)
    disturb(tuned.parameters())
    own = state_of(tuned)

    for value in VALUES:
        by_hand = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=dtype)
        start = base.state_dict()
        mixed = {name: start[name].float() + value * (own[name].float() - start[name].float()) for name in own}
        by_hand.load_state_dict({name: tensor.to(dtype) for name, tensor in mixed.items()})
        expected = {0.0: base, 1.0: tuned}.get(value, by_hand)
        with weights_at(tuned, base, value) as model:
            assert torch.equal(logits(model), logits(expected)), value
            assert model.lm_head.weight is model.model.embed_tokens.weight, "tied as before"
            assert torch.equal(model.lm_head.weight, expected.lm_head.weight), "a tied tensor moves once"
        assert equal_states(tuned, own)


def test_a_tensor_between_is_rounded_once() -> None:
    base, tuned = torch.tensor([1.0, 256.0]).bfloat16(), torch.tensor([1.0078125, 258.0]).bfloat16()

    assert interpolated(base, tuned, 0.5).tolist() == [1.0, 256.0], "ties go to even, from 1.00390625 and 257"
    assert interpolated(base, tuned, 0.75).tolist() == [1.0078125, 258.0]
    assert interpolated(base, tuned, 1.0) is not tuned


@pytest.mark.parametrize("rslora", [False, True])
def test_pairs_are_those_of_peft_with_another_alpha(
    saved: Callable[..., Path], opened: Callable[[Path], Any], tiny_model: Any, rslora: bool
) -> None:
    folder = saved("one", rslora=rslora)
    model = opened(folder)
    own, tuned_logits = state_of(model), logits(model)

    for value in VALUES:
        by_hand = opened(folder)
        for layer in (module for module in by_hand.modules() if isinstance(module, LoraLayer)):
            layer.set_scale("default", value)
        with adapter_at(model, value):
            assert torch.equal(logits(model), logits(by_hand)), value
        assert torch.equal(logits(model), tuned_logits)
    with adapter_at(model, 0.0):
        assert torch.equal(logits(model), logits(tiny_model)), "the base bit for bit"
    assert equal_states(model, own)


def merged_between(base: Any, adapted: Any, value: float) -> Any:
    """The base with the merged weights that plain torch puts between it and the adapter's."""
    merged, start = adapted.merge_and_unload().state_dict(), base.state_dict()
    base.load_state_dict({name: start[name] + value * (merged[name] - start[name]) for name in start})
    return base


@pytest.mark.parametrize(
    "chosen",
    [{}, {"dora": True}, {"modules_to_save": ["embed_tokens"]}, {"modules_to_save": ["norm"], "dora": True}],
    ids=["pairs", "dora", "tied embedding", "norm and dora"],
)
def test_every_kind_is_between_the_merged_weights(
    saved: Callable[..., Path], opened: Callable[[Path], Any], tiny_model_folder: Path, chosen: dict[str, Any]
) -> None:
    folder = saved("one", **chosen)
    model = opened(folder)
    own, tuned_logits = state_of(model), logits(model)

    for value in (0.25, 0.5, 1.5):
        base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
        expected = logits(merged_between(base, opened(folder), value))
        with adapter_at(model, value):
            torch.testing.assert_close(logits(model), expected, atol=2e-4, rtol=0)
        assert (expected - tuned_logits).abs().max() > 0.01
        assert torch.equal(logits(model), tuned_logits)
    with adapter_at(model, 0.0):
        assert torch.equal(logits(model), logits(AutoModelForCausalLM.from_pretrained(tiny_model_folder)))
    assert equal_states(model, own)


@pytest.mark.parametrize("whole", [[], ["norm"]])
def test_an_adapter_that_was_trained_on_goes_back_to_the_one_it_began_with(
    saved: Callable[..., Path], opened: Callable[[Path], Any], whole: list[str]
) -> None:
    first, second = (saved(name, seed=seed, modules_to_save=whole) for name, seed in (("first", 1), ("second", 2)))
    model = opened(second)
    add_adapter(model, first, slot="start")
    start, tuned = opened(first), opened(second)
    merged_start, merged_tuned = (copy.deepcopy(one).merge_and_unload() for one in (start, tuned))

    with adapter_at(model, 0.0, start_slot="start"):
        assert torch.equal(logits(model), logits(start))
    for value in (0.5, 1.5):
        with (
            weights_at(merged_tuned, merged_start, value) as expected,
            adapter_at(model, value, start_slot="start"),
        ):
            torch.testing.assert_close(logits(model), logits(expected), atol=2e-4, rtol=0)
    assert torch.equal(logits(model), logits(tuned))
    assert torch.equal(logits(tuned), logits(opened(second)))


def test_what_fails_inside_leaves_the_model_as_it_was(
    saved: Callable[..., Path], opened: Callable[[Path], Any], tiny_model_folder: Path
) -> None:
    adapted = opened(saved("one", dora=True, modules_to_save=["norm"]))
    base = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    whole = copy.deepcopy(base)
    disturb(whole.parameters())
    for model, at in ((adapted, lambda: adapter_at(adapted, 0.5)), (whole, lambda: weights_at(whole, base, 0.5))):
        own, before = state_of(model), logits(model)
        with pytest.raises(RuntimeError, match="on the way"), at():
            raise RuntimeError("on the way")
        assert equal_states(model, own)
        assert torch.equal(logits(model), before)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (qlora)")
def test_pairs_beside_weights_in_4_bits(saved: Callable[..., Path], tiny_model_folder: Path) -> None:
    from tutelage.model.load import load
    from tutelage.model.quantization import four_bit

    def quantized() -> Any:
        return load(tiny_model_folder, quantization=four_bit(cast_model=torch.float32, double_quantization=True))[0]

    folder = saved("one")
    model, by_hand = attach_adapter(quantized(), folder), attach_adapter(quantized(), folder)
    for layer in (module for module in by_hand.modules() if isinstance(module, LoraLayer)):
        layer.set_scale("default", 0.5)

    with adapter_at(model, 0.5):
        assert torch.equal(logits(model), logits(by_hand))
    with adapter_at(model, 0.0):
        assert torch.equal(logits(model), logits(quantized()))


def test_what_has_nothing_between_is_refused(
    saved: Callable[..., Path], opened: Callable[[Path], Any], tiny_model_folder: Path
) -> None:
    def refused(model: Any, says: str, **given: Any) -> None:
        with pytest.raises(ConfigError) as caught, adapter_at(model, 0.5, **given):
            pass
        assert says in str(caught.value.found)
        assert caught.value.fix

    prompted, _ = add_prompt(AutoModelForCausalLM.from_pretrained(tiny_model_folder), tokens=2)
    refused(prompted, "virtual tokens")
    dora = opened(saved("dora", dora=True))
    add_adapter(dora, saved("start", dora=True, seed=3), slot="start")
    refused(dora, "magnitudes", start_slot="start")
    biased = opened(saved("one"))
    biased.peft_config["default"].bias = "lora_only"
    refused(biased, "bias = lora_only")
    biased.peft_config["default"].bias, biased.peft_config["default"].trainable_token_indices = "none", [3]
    refused(biased, "rows of tokens")


@pytest.mark.parametrize("value", [-0.1, 2.1, float("nan"), float("inf")])
def test_values_off_the_dial_are_refused(tiny_model: Any, value: float) -> None:
    with pytest.raises(ConfigError, match="does not go there"), weights_at(tiny_model, tiny_model, value):
        pass


def test_another_model_is_no_base(tiny_model: Any) -> None:
    other = copy.deepcopy(tiny_model)
    other.resize_token_embeddings(420, mean_resizing=False)

    with pytest.raises(ConfigError) as caught, weights_at(other, tiny_model, 0.5):
        pass
    assert "does not have in this shape" in str(caught.value.found)

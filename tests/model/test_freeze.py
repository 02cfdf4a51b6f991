"""Freezing by pattern: whole parts of names, tied weights under both names, nothing silently missed."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.errors import ConfigError
from tutelage.model.adapters.lora import make_all_trainable
from tutelage.model.patterns import matches


def learns(model: Any) -> set[str]:
    return {name for name, one in model.named_parameters() if one.requires_grad}


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("model.layers.1.mlp.up_proj.weight", "layers.1", True),
        ("model.layers.10.mlp.up_proj.weight", "layers.1", False),
        ("model.layers.10.mlp.up_proj.weight", "layers.1*", True),
        ("model.layers.0.mlp.up_proj.weight", "layers.0.*", True),
        ("model.layers.0.mlp.up_proj.weight", "up_proj", True),
        ("model.layers.0.mlp.up_proj.weight", "proj", False),
        ("model.layers.0.mlp.up_proj.weight", "*_proj", True),
        ("model.layers.0.input_layernorm.weight", "norm", False),
        ("model.norm.weight", "norm", True),
        ("model.norm.weight", "model.norm.weight", True),
        ("model.layers.3.mlp.up_proj.weight", "layers.[0-2]", False),
    ],
)
def test_a_pattern_is_matched_against_whole_parts(name: str, pattern: str, expected: bool) -> None:
    assert matches(name, pattern) is expected


def test_what_matches_is_frozen_and_counted(tiny_model: Any) -> None:
    model, record = make_all_trainable(tiny_model, frozen=["layers.0", "norm"])

    assert learns(model) == {
        name for name, _ in model.named_parameters() if ".layers.0." not in name and name != "model.norm.weight"
    }
    assert record.trainable == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert record.parameters == sum(parameter.numel() for parameter in model.parameters())
    frozen = record.parameters - record.trainable
    assert record.notes == (f"Frozen by model.freeze: {frozen:,} parameters in 10 tensors",)


@pytest.mark.parametrize(("asked", "other"), [("lm_head", "model.embed_tokens"), ("embed_tokens", "lm_head")])
def test_tied_weights_are_frozen_and_named_under_both_names(tiny_model: Any, asked: str, other: str) -> None:
    model, record = make_all_trainable(tiny_model, frozen=[asked])

    assert not model.lm_head.weight.requires_grad
    assert not model.get_input_embeddings().weight.requires_grad
    assert f"{other}.weight is the same weights as " in record.notes[1]
    assert len(make_all_trainable(tiny_model, frozen=["lm_head", "embed_tokens"])[1].notes) == 1


@pytest.mark.parametrize(
    ("wrong", "near"), [("embed_token", "embed_tokens"), ("layer.0.*", "layers"), ("lmhead", "lm_head")]
)
def test_a_pattern_that_matches_nothing_names_the_nearest(tiny_model: Any, wrong: str, near: str) -> None:
    with pytest.raises(ConfigError, match="matches no weight") as caught:
        make_all_trainable(tiny_model, frozen=["norm", wrong])

    assert (caught.value.where, caught.value.found) == ("model.freeze", wrong)
    assert near in str(caught.value)


def test_freezing_everything_is_an_error(tiny_model: Any) -> None:
    with pytest.raises(ConfigError, match="nothing would be trained"):
        make_all_trainable(tiny_model, frozen=["*"])

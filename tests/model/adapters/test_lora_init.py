"""LoRA that starts from data: what each kind finds, against the same computed in a plain way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from peft import EvaConfig, LoraConfig, get_eva_state_dict, get_peft_model

from tutelage.errors import ConfigError
from tutelage.model.adapters.lora import add_lora
from tutelage.model.adapters.lora_init import CalibrationData, linear_layers
from tutelage.pack import pack_rows
from tutelage.types import Example

Documents = Callable[..., list[Example]]
RANK = 4


def started(model: Any, examples: Sequence[Example], init: str, *, row_tokens: int = 64, **more: Any) -> Any:
    calibration_data = CalibrationData(pack_rows(examples, row_tokens=row_tokens), lambda _tokens: None)
    chosen = {"rank": RANK, "alpha": 2 * RANK, "dropout": 0.0, "targets": "all-linear"} | more
    return add_lora(model, init=init, calibration_data=calibration_data, **chosen)[0].get_base_model()


def inputs_of(model: Any, examples: Sequence[Example], name: str, *, trained: bool) -> torch.Tensor:
    """[T, I]: what a layer is given, each document alone through transformers' own forward."""
    seen = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _layer, given: seen.append(given[0][0]))
    with torch.no_grad():
        for example in examples:
            model(input_ids=torch.from_numpy(example.ids).long()[None])
    hook.remove()
    kept = [torch.from_numpy(example.weights != 0) | (not trained) for example in examples]
    return torch.cat([rows[keep] for rows, keep in zip(seen, kept, strict=True)])


@torch.no_grad()
def overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """The smallest cosine between two spaces, given as rows; 1: they are the same."""
    first, second = (torch.linalg.qr(one.mT.float()).Q for one in (first, second))
    return float(torch.linalg.svdvals(first.mT @ second).min())


LAYERS = ["model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"]


@pytest.mark.parametrize("row_tokens", [40, 64, 2000])
def test_eva_starts_from_the_principal_components_of_trained_tokens(
    tiny_model: Any, documents: Documents, row_tokens: int
) -> None:
    examples = documents([30] * 12)
    plain = {name: inputs_of(tiny_model, examples, name, trained=True) for name in LAYERS}

    adapted = started(tiny_model, examples, "eva", row_tokens=row_tokens)

    for name in LAYERS:
        first_KI = adapted.get_submodule(name).lora_A["default"].weight
        expected_KI = torch.linalg.svd(plain[name] - plain[name].mean(0), full_matrices=False).Vh[:RANK]
        torch.testing.assert_close(first_KI @ first_KI.T, torch.eye(RANK), atol=1e-4, rtol=0)
        assert overlap(first_KI, expected_KI) > 0.99
        assert not adapted.get_submodule(name).lora_B["default"].weight.any()
    attention = adapted.model.layers[0].self_attn
    assert torch.equal(attention.q_proj.lora_A["default"].weight, attention.v_proj.lora_A["default"].weight)


def test_eva_leaves_modules_with_the_name_of_a_pair_alone(tiny_model: Any, documents: Documents) -> None:
    tiny_model.model.norm.lora_A = torch.nn.ModuleDict()

    adapted = started(tiny_model, documents([30] * 12), "eva")

    assert adapted.get_submodule(LAYERS[0]).lora_A["default"].weight.any()


def test_eva_brings_components_up_to_date_batch_by_batch(
    tiny_model: Any, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts, and the last of them smaller than the rank: near what all inputs at once give."""
    monkeypatch.setattr("tutelage.model.adapters.lora_init.TOKENS_AT_ONCE", 50)
    examples = documents([30] * 12)
    name = LAYERS[0]
    plain = inputs_of(tiny_model, examples, name, trained=True)

    adapted = started(tiny_model, examples, "eva", row_tokens=40)

    first_KI = adapted.get_submodule(name).lora_A["default"].weight
    expected_KI = torch.linalg.svd(plain - plain.mean(0), full_matrices=False).Vh[:RANK]
    # Each time only K directions are kept, so this is near and not equal; the share of the variance is what counts.
    centred = plain - plain.mean(0)
    assert (centred @ first_KI.T).square().sum() > 0.9 * (centred @ expected_KI.T).square().sum()


def test_eva_keeps_as_much_of_the_variance_as_pefts_own_loop(tiny_model: Any, documents: Documents) -> None:
    """PEFT's, given one batch again and again, of documents of one length that are trained throughout."""
    examples = documents([30] * 8)
    for example in examples:
        example.weights[:] = 1.0
        example.weights[0] = 0.0
    ids = torch.stack([torch.from_numpy(example.ids).long() for example in examples])
    labels = ids.clone()
    labels[:, 0] = -100
    config = LoraConfig(
        r=RANK,
        target_modules=["k_proj", "down_proj"],
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=1.0, tau=0.9),
        task_type="CAUSAL_LM",
    )
    found = get_eva_state_dict(
        copy.deepcopy(tiny_model), [{"input_ids": ids, "labels": labels}], config, show_progress_bar=False
    )
    inputs = {name: inputs_of(tiny_model, examples, name, trained=True) for name in found}

    adapted = started(tiny_model, examples, "eva", targets=["k_proj", "down_proj"])

    assert len(found) == 4
    for name, by_peft_KI in found.items():
        centred = inputs[name] - inputs[name].mean(0)
        first_KI = adapted.get_submodule(name).lora_A["default"].weight
        ours, theirs = ((centred @ one.float().T).square().sum() for one in (first_KI, by_peft_KI))
        assert ours >= 0.999 * theirs
        assert theirs > 0.8 * ours


def test_eva_needs_as_many_trained_tokens_as_the_rank(tiny_model: Any, documents: Documents) -> None:
    (example,) = documents((20,))
    example.weights[:] = 0.0
    example.weights[-3:] = 1.0

    with pytest.raises(ConfigError, match="fewer than 4 trained tokens") as caught:
        started(tiny_model, [example], "eva")

    assert caught.value.where == "lora.init"


def test_corda_starts_from_the_weight_as_its_inputs_use_it(tiny_model: Any, documents: Documents) -> None:
    examples = documents((50,))
    weights = {name: tiny_model.get_submodule(name).weight.detach().clone() for name in LAYERS}
    inputs = {name: inputs_of(tiny_model, examples, name, trained=False) for name in LAYERS}

    adapted = started(tiny_model, examples, "corda")

    for name, weight_OI in weights.items():
        covariance_II = inputs[name].T @ inputs[name]
        covariance_II += 0.01 * covariance_II.diagonal().mean() * torch.eye(len(covariance_II))  # PEFT's damping
        left_OO = torch.linalg.svd(weight_OI @ covariance_II, full_matrices=False).U
        layer = adapted.get_submodule(name)
        assert overlap(layer.lora_B["default"].weight.T, left_OO[:, :RANK].T) > 0.99
        moved_OI = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        torch.testing.assert_close(layer.get_base_layer().weight + moved_OI, weight_OI, atol=1e-5, rtol=0)
        assert moved_OI.abs().max() > 0.01


def test_lora_ga_starts_along_the_gradient_of_full_training(tiny_model: Any, documents: Documents) -> None:
    """One document a row: the mean of their mean losses."""
    examples = documents((40, 50, 45))
    other = copy.deepcopy(tiny_model)
    for example in examples:
        ids = torch.from_numpy(example.ids).long()[None]
        labels = torch.where(torch.from_numpy(example.weights != 0), ids, -100)
        (other(input_ids=ids, labels=labels).loss / 3).backward()

    adapted = started(tiny_model, examples, "lora_ga", row_tokens=50)

    for name in LAYERS:
        first_KI = adapted.get_submodule(name).lora_A["default"].weight
        expected_KI = torch.linalg.svd(other.get_submodule(name).weight.grad).Vh[:RANK]
        assert overlap(first_KI, expected_KI) > 0.99
    assert all(parameter.grad is None for parameter in adapted.parameters())


@pytest.mark.parametrize("init", ["eva", "corda", "lora_ga"])
def test_every_token_that_was_looked_at_is_told_of_once(tiny_model: Any, documents: Documents, init: str) -> None:
    told: list[int] = []
    rows = pack_rows(documents((20, 30, 25)), row_tokens=50)

    add_lora(
        tiny_model,
        rank=2,
        alpha=2,
        dropout=0.0,
        targets=["q_proj"],
        init=init,
        calibration_data=CalibrationData(rows, told.append),
    )

    assert told == [len(row.ids) for row in rows]


def test_all_linear_layers_are_those_that_peft_means(tiny_model: Any) -> None:
    names = linear_layers(tiny_model)

    adapted = get_peft_model(tiny_model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))

    assert sorted(names) == sorted(adapted.targeted_module_names)
    assert len(names) == 14

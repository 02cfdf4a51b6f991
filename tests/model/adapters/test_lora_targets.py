"""Which weights get a pair: experts whatever the model is called, nothing that PEFT refuses, and advice that works."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.tiny_kinds import tiny_kind
from tutelage.errors import ConfigError
from tutelage.model.adapters.lora import add_lora
from tutelage.model.adapters.lora_init import CalibrationData
from tutelage.model.adapters.lora_targets import adapted_weight_ids, remove_adapter_layers
from tutelage.model.linear_weights import layer_matrices
from tutelage.pack import pack_rows

IDS = torch.arange(4, 24)[None]
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
MAMBA = {
    "mamba_d_ssm": 32,
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
    "head_dim": 8,
}
EXPERTS = {
    "mixtral": {"num_local_experts": 4},
    "granitemoe": {"num_local_experts": 4},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8},
    "jetmoe": {"num_local_experts": 4, "kv_channels": 8},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24},
    "glm4_moe": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "n_group": 1,
        "topk_group": 1,
        "head_dim": 8,
        "first_k_dense_replace": 1,
    },
}
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}


def tiny(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SIZES | more))).float()


@pytest.mark.parametrize("kind", EXPERTS)
def test_r15_experts_and_dense_layers_get_pairs_and_the_rest_is_named_with_its_share(kind: str) -> None:
    model = tiny(kind, **EXPERTS[kind])
    base = model(IDS).logits
    matrices = dict(layer_matrices(model))

    adapted, record = add_lora(model, **LORA)
    chosen = adapted_weight_ids(adapted)
    left = {name: one for name, one in matrices.items() if id(one) not in chosen}

    assert torch.equal(adapted(IDS).logits, base)
    assert any(matrix.ndim == 3 and id(matrix) in chosen for matrix in matrices.values())
    assert all("router" in name or ".gate." in name for name in left), left
    said = [note for note in record.notes if note.startswith("No pair beside")]
    assert len(said) == bool(left)
    if left:
        share = sum(one.numel() for one in left.values()) / sum(matrix.numel() for matrix in matrices.values())
        assert f"{share:.1%}" in said[0]
    adapted(IDS).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in adapted.parameters() if parameter.requires_grad)


def test_r15_a_pair_that_no_forward_pass_reaches_is_not_counted_as_trained() -> None:
    model = tiny("mamba", state_size=8)

    adapted, record = add_lora(model, **LORA)
    adapted(IDS).logits.square().sum().backward()

    assert all(parameter.grad is not None for parameter in adapted.parameters() if parameter.requires_grad)
    assert "mixer.dt_proj.weight" in record.notes[0]


@pytest.mark.parametrize("init", ["orthogonal", "pissa", "pissa_niter_4", "olora", "mica"])
@pytest.mark.parametrize("kind", ["mixtral", "granitemoe"])
def test_r16_an_initialisation_that_experts_cannot_have_is_refused_in_words(kind: str, init: str) -> None:
    with pytest.raises(ConfigError, match="does not fit some of the weights") as caught:
        add_lora(tiny(kind, **EXPERTS[kind]), init=init, **LORA)

    assert caught.value.where == "lora.init"
    assert caught.value.fix == 'set lora.init = "default"'
    add_lora(tiny(kind, **EXPERTS[kind]), init="default", **LORA)


def test_r16_a_start_that_is_not_the_bases_is_refused() -> None:
    """PEFT's OLoRA takes the weights of GPT-2's layers, which are stored transposed, for those of linear ones."""
    with pytest.raises(ConfigError, match="olora"):
        add_lora(tiny("gpt2", n_embd=32, n_layer=1, n_head=4), init="olora", **LORA)


@pytest.mark.parametrize("chosen", [{"dora": True}, {"dropout": 0.1}])
@pytest.mark.parametrize("kind", ["mixtral", "granitemoe"])
def test_r17_the_setting_that_experts_cannot_have_is_the_one_to_change(kind: str, chosen: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        add_lora(tiny(kind, **EXPERTS[kind]), **(LORA | chosen))

    (name,) = chosen
    assert caught.value.where == f"lora.{name}"
    assert caught.value.fix == {"dora": "set lora.dora = false", "dropout": "set lora.dropout = 0.0"}[name]


def test_r17_what_peft_refuses_is_left_out_of_all_linear_and_named() -> None:
    adapted, record = add_lora(tiny("falcon_h1", **MAMBA), **LORA)

    assert "mamba.out_proj.weight" in record.notes[0]
    assert any("lora_" in name and ".in_proj." in name for name, _ in adapted.named_parameters())


def test_r17_of_named_targets_those_that_peft_takes_are_advised_and_the_model_stays_as_it_was() -> None:
    model = tiny("falcon_h1", **MAMBA)
    names = [name for name, _ in model.named_parameters()]

    with pytest.raises(ConfigError) as caught:
        add_lora(model, **(LORA | {"targets": ["q_proj", "out_proj", "in_proj"]}))

    assert caught.value.fix == 'set lora.target_modules = ["in_proj", "q_proj"]'
    assert [name for name, _ in model.named_parameters()] == names
    _, record = add_lora(model, **(LORA | {"targets": ["in_proj", "q_proj"]}))
    assert record.trainable > 0


def test_r17_a_wrong_name_lists_the_layers_of_the_model_as_it_came() -> None:
    with pytest.raises(ConfigError) as caught:
        add_lora(tiny("mixtral", **EXPERTS["mixtral"]), **(LORA | {"targets": ["w1", "q_proj"]}))

    assert caught.value.found == "w1"
    assert str(caught.value.expected).endswith(
        "k_proj, o_proj, q_proj, v_proj, experts.down_proj, experts.gate_up_proj"
    )


def test_experts_can_be_named_as_targets() -> None:
    adapted, _ = add_lora(
        tiny("granitemoe", **EXPERTS["granitemoe"]), **(LORA | {"targets": ["experts.down_proj", "o_proj"]})
    )

    weights = {name for name, one in layer_matrices(adapted) if id(one) in adapted_weight_ids(adapted)}
    assert {name.split(".")[-1] for name in weights} == {"down_proj", "weight"}


def test_r16_eva_starts_experts_as_the_default_does_and_says_so(documents: Any) -> None:
    model = tiny("granitemoe", **EXPERTS["granitemoe"])
    rows = pack_rows(documents((20, 30, 25), vocabulary=60), row_tokens=64)

    adapted, record = add_lora(model, init="eva", calibration_data=CalibrationData(rows, lambda _tokens: None), **LORA)

    assert any("experts start as lora.init = default" in note for note in record.notes)
    (q_proj,) = (one for name, one in adapted.named_modules() if name.endswith("layers.0.self_attn.q_proj"))
    first = q_proj.lora_A["default"].weight
    torch.testing.assert_close(first @ first.T, torch.eye(4), atol=1e-4, rtol=0)


def test_r17_layers_inside_a_module_with_a_pair_of_its_own_are_put_back() -> None:
    model = tiny_kind("zamba")
    before = [name for name, _ in model.named_modules()]
    targets = ["in_proj", "mamba.x_proj_weight"]

    adapted, _ = add_lora(model, rank=2, alpha=2, dropout=0.0, targets=targets)
    remove_adapter_layers(adapted.base_model.model)

    assert [name for name, _ in model.named_modules()] == before


def test_r17_a_module_that_takes_its_input_by_name_has_no_pair_of_its_own() -> None:
    adapted, record = add_lora(tiny_kind("zamba"), rank=2, alpha=2, dropout=0.0, targets="all-linear")

    assert adapted(input_ids=IDS).logits.isfinite().all()
    assert any("mamba.x_proj_weight" in note for note in record.notes)

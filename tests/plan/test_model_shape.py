from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tutelage.errors import DataError, SourceNotFoundError
from tutelage.plan.model_shape import ModelShape, read_model_shape


def test_llama_2_7b_has_the_published_number_of_parameters(seven_b: ModelShape):
    assert seven_b.parameters == 6_738_415_616
    assert seven_b.linear_parameters == seven_b.parameters - 2 * 32000 * 4096 - (2 * 32 + 1) * 4096
    assert seven_b.largest_linear == 4096 * 11008
    assert seven_b.stored_bytes_per_parameter == 2
    assert seven_b.layers == 32


def test_llama_2_70b_has_the_published_number_of_parameters(seventy_b: ModelShape):
    assert seventy_b.parameters == 68_976_648_192


def test_no_weight_has_memory(seventy_b: ModelShape):
    assert {parameter.device.type for parameter in seventy_b.cut.parameters()} == {"meta"}


def test_counts_equal_those_of_the_model_itself(tiny_model_folder: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, local_files_only=True)
    found = read_model_shape(str(tiny_model_folder))
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.head_parameters == model.get_input_embeddings().weight.numel()
    assert found.stored_bytes_per_parameter == 4


def test_a_copy_with_fewer_layers_leaves_the_blueprint_as_it_was(small: ModelShape):
    two = small.with_layers(2)
    assert len(two.model.layers) == 2
    assert len(small.cut.model.layers) == 3
    assert small.layers == 5


def test_layers_that_differ_are_all_kept(write_config: Callable[..., Path]):
    mixed = write_config(
        architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", mlp_only_layers=[0], num_experts=4,
        num_experts_per_tok=2, moe_intermediate_size=32, decoder_sparse_step=1, head_dim=16,
    )  # fmt: skip
    found = read_model_shape(str(mixed))
    assert not found.equal_layers
    assert len(found.cut.model.layers) == 5


def test_an_encoder_is_refused_by_name(write_config: Callable[..., Path]):
    with pytest.raises(DataError, match="does not write text") as caught:
        read_model_shape(str(write_config(architectures=["BertForMaskedLM"], model_type="bert")))
    assert "BertForMaskedLM" in str(caught.value)


def test_a_model_type_that_nobody_knows_is_refused(write_config: Callable[..., Path]):
    with pytest.raises(DataError, match="cannot be read"):
        read_model_shape(str(write_config(model_type="perceptron_1957")))


def test_numbers_that_contradict_are_refused(write_config: Callable[..., Path]):
    with pytest.raises(DataError, match="configuration") as caught:
        read_model_shape(str(write_config(hidden_size=63)))
    assert "not a multiple" in str(caught.value)


def test_broken_json_is_named(tmp_path: Path):
    file = tmp_path / "config.json"
    file.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_model_shape(str(file))
    assert str(file) in str(caught.value)


def test_a_folder_without_config_says_what_it_holds(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds no config\.json") as caught:
        read_model_shape(str(tmp_path))
    assert "notes.txt" in str(caught.value)


def test_nothing_of_that_name():
    with pytest.raises(SourceNotFoundError):
        read_model_shape("no such model at all")


def test_the_configurations_here_say_where_their_numbers_come_from():
    for file in Path(__file__).parent.glob("*.json"):
        assert "table" in json.loads(file.read_text(encoding="utf-8"))["source"]

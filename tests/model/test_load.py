"""Loading: the stored precision, casting that leaves buffers alone, and errors that name the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3_5Config, Qwen3_5ForConditionalGeneration

from tests.support.tiny_kinds import tiny_config, tiny_kind
from tutelage.errors import DataError, TutelageError
from tutelage.model.gguf import convert_gguf
from tutelage.model.load import load
from tutelage.model.locate import model_folder
from tutelage.model.precision import cast_model


def test_parameters_are_cast_and_buffers_are_not(tiny_model_folder: Path) -> None:
    model, _ = load(tiny_model_folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    before = {name: one.clone() for name, one in model.named_buffers()}
    assert before, "a Llama keeps its rotary frequencies in a buffer"

    cast_model(model, "bf16")

    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    for name, one in model.named_buffers():
        assert torch.equal(one, before[name]), name


def test_tied_weights_stay_tied_after_the_cast(tiny_model_folder: Path) -> None:
    model, _ = load(tiny_model_folder)
    cast_model(model, "bf16")

    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_folder_of_something_else_is_a_data_error(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-model"}), encoding="utf-8")

    with pytest.raises(DataError, match="configuration cannot be read") as caught:
        load(folder)

    assert str(folder) in str(caught.value)


def test_damaged_weights_are_a_data_error(tiny_model_folder: Path, tmp_path: Path) -> None:
    """A download that was cut off."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(DataError, match="cannot be loaded"):
        load(folder)


def test_a_damaged_gguf_leaves_no_folder(tmp_path: Path) -> None:
    gguf = tmp_path / "broken.gguf"
    gguf.write_bytes(b"GGUF" + bytes(64))

    with pytest.raises(TutelageError):
        convert_gguf(gguf, tmp_path / "converted")

    assert [path.name for path in tmp_path.iterdir()] == ["broken.gguf"]


def changed_copy(folder: Path, target: Path, **changes: object) -> Path:
    """A model's folder with other settings in config.json."""
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    (target / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_hidden_layers": 3}, "not stored: model.layers.2."),
        ({"num_hidden_layers": 1}, "stored, and not in the model: model.layers.1."),
        ({"attention_bias": True}, "not stored: model.layers.0.self_attn.k_proj.bias"),
        ({"vocab_size": 500}, "model.embed_tokens.weight [416, 64] stored, [500, 64] by config.json"),
        ({"intermediate_size": 96}, "model.layers.0.mlp.down_proj.weight [64, 128] stored, [64, 96] by config.json"),
    ],
)
def test_b3_weights_that_are_not_those_of_the_configuration_are_named(
    tiny_model_folder: Path, tmp_path: Path, changes: dict[str, object], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = changed_copy(tiny_model_folder, tmp_path / "model", **changes)

    with pytest.raises(DataError, match="and the weights disagree") as caught:
        load(folder)

    assert named in str(caught.value.found)
    assert capfd.readouterr().err == "", "transformers' own table stays silent"


def test_b3_a_bias_that_the_model_has_no_place_for_is_named(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.self_attn.q_norm.weight"] = torch.ones(16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(DataError, match="disagree") as caught:
        load(folder)

    assert "q_norm.weight" in str(caught.value.found)


def test_r6_what_is_no_part_of_the_text_model_is_said(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    weights = load_file(folder / "model.safetensors")
    weights |= {"visual.blocks.0.weight": torch.ones(3, 5), "visual.blocks.1.weight": torch.ones(3, 5)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    _, loaded = load(folder)

    (note,) = loaded.notes
    assert "30 numbers" in note
    assert "visual.blocks (2 tensors)" in note


def test_r6_a_composite_checkpoint_trains_as_its_text_model(tmp_path: Path) -> None:
    small = tiny_config("qwen3_5_text")
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen3_5Config(text_config=small.to_dict(), vision_config=vision | {"deepstack_visual_indexes": []})
    Qwen3_5ForConditionalGeneration(config).save_pretrained(tmp_path)

    model, loaded = load(tmp_path)

    assert type(model).__name__ == "Qwen3_5ForCausalLM"
    assert "model.visual" in loaded.notes[0]


@pytest.mark.parametrize(
    ("kind", "architecture", "found"),
    [
        ("bart", "BartForConditionalGeneration", "its encoder reads what its decoder answers"),
        ("t5", "T5ForConditionalGeneration", "its encoder reads what its decoder answers"),
        ("llama", "LlamaForSequenceClassification", "generates no text"),
        ("bert", "BertForMaskedLM", "generates no text"),
        ("mistral3", "Mistral3ForConditionalGeneration", "no class of this kind that reads and writes text alone"),
    ],
)
def test_r6_one_gate_refuses_what_cannot_be_trained(tmp_path: Path, kind: str, architecture: str, found: str) -> None:
    written = AutoConfig.for_model(kind).to_dict() | {"architectures": [architecture]}
    (tmp_path / "config.json").write_text(json.dumps(written), encoding="utf-8")

    with pytest.raises(DataError, match="does not write text from text alone") as caught:
        load(tmp_path)

    assert found in str(caught.value.found)


@pytest.mark.parametrize("kind", ["mamba", "bloom"])
def test_r7_a_kind_without_pytorchs_attention_is_loaded_with_its_own(tmp_path: Path, kind: str) -> None:
    tiny_kind(kind).save_pretrained(tmp_path)

    model, _ = load(tmp_path)

    assert model.config._attn_implementation != "sdpa"


def test_r7_a_model_that_does_not_load_is_tried_once_and_its_first_error_told(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(_folder: Path, *, attn_implementation: str, **_named: object) -> None:
        asked.append(attn_implementation)
        raise ValueError(f"error number {len(asked)}")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)

    with pytest.raises(DataError, match="cannot be loaded") as caught:
        load(tiny_model_folder)

    assert asked == ["sdpa"]
    assert "error number 1" in str(caught.value.found)


def test_r24_weights_stored_in_4_bits_are_named_before_they_are_read(tiny_model_folder: Path, tmp_path: Path) -> None:
    stored_as = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    folder = changed_copy(tiny_model_folder, tmp_path / "model", quantization_config=stored_as)

    with pytest.raises(DataError, match="stored in 4 bits") as caught:
        load(folder)

    assert 'model.method = "qlora"' in str(caught.value.fix)


def test_r24_weights_stored_in_another_quantised_form_are_named(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = changed_copy(
        tiny_model_folder, tmp_path / "model", quantization_config={"quant_method": "gptq", "bits": 4}
    )

    with pytest.raises(DataError, match="quantised \\(gptq\\)"):
        load(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "wide"},
        {"hidden_size": 63},
        {"num_attention_heads": 0},
        {"rope_scaling": {"rope_type": "no such"}},
        {"hidden_act": "no such"},
        {"num_hidden_layers": -1},
        {"architectures": "LlamaForCausalLM"},
        {"dtype": "no such"},
    ],
)
def test_b19_a_configuration_that_cannot_be_is_one_sentence(
    tiny_model_folder: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(DataError):
        load(changed_copy(tiny_model_folder, tmp_path / "model", **changes))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../model.safetensors", "missing.safetensors", 7])
def test_b19_an_index_names_safetensors_in_its_folder_alone(
    tiny_model_folder: Path, tmp_path: Path, name: object
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    index = {"metadata": {}, "weight_map": {"model.norm.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    with pytest.raises(DataError, match="index of the weights names what is not read"):
        model_folder(str(folder))

"""Adapters: nothing changes at step 0, only they learn, and a saved one says the same again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.tiny_kinds import tiny_kind
from tutelage.errors import ConfigError
from tutelage.export.model_folder import save_trained
from tutelage.model.adapters.adapter_set import active_adapter, add_adapter, attach_adapter
from tutelage.model.adapters.lora import add_lora, make_all_trainable
from tutelage.model.attention.packed import use_generation_attention, use_packed_attention
from tutelage.model.load import load
from tutelage.model.loss import row_loss
from tutelage.model.precision import cast_model
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import adamw
from tutelage.pack import pack_rows
from tutelage.render import ChatTemplate, Renderer, Tokenizer

IDS = torch.arange(3, 40)[None]


def optimizer_of(model: Any) -> MasterWeights:
    return MasterWeights(model, build=adamw(weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8))


def renderer_of(folder: Path) -> Renderer:
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.template is not None
    return Renderer(tokenizer, ChatTemplate(tokenizer.template, named_tokens=tokenizer.named_tokens))


def test_at_step_0_the_output_is_the_bases(tiny_model: Any) -> None:
    base = tiny_model(input_ids=IDS).logits

    adapted, record = add_lora(tiny_model, rank=4, alpha=8, dropout=0.0, targets="all-linear")

    assert torch.equal(adapted(input_ids=IDS).logits, base)
    assert record.method == "lora"
    assert 0 < record.trainable < record.parameters


def test_only_the_adapter_has_masters(tiny_model: Any) -> None:
    adapted, record = add_lora(tiny_model, rank=4, alpha=8, dropout=0.0, targets="all-linear")

    masters = optimizer_of(adapted).masters

    assert all("lora_" in name for name in masters)
    assert sum(master.numel() for master in masters.values()) == record.trainable
    assert not any("lm_head" in name for name in masters)


def test_named_targets_are_kept_to(tiny_model: Any) -> None:
    adapted, _ = add_lora(tiny_model, rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"])

    names = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in optimizer_of(adapted).masters}

    assert names == {"q_proj", "v_proj"}


def test_an_unknown_target_is_a_config_error(tiny_model: Any) -> None:
    with pytest.raises(ConfigError, match="does not find its targets") as caught:
        add_lora(tiny_model, rank=4, alpha=8, dropout=0.0, targets=["no_such_layer"])

    assert caught.value.where == "lora.target_modules"
    assert "q_proj" in str(caught.value)


def test_one_wrong_target_among_right_ones_is_a_config_error(tiny_model: Any) -> None:
    with pytest.raises(ConfigError):
        add_lora(tiny_model, rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_porj"])


def test_full_training_learns_every_parameter(tiny_model: Any) -> None:
    tiny_model.requires_grad_(False)

    model, record = make_all_trainable(tiny_model)

    assert record.trainable == record.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_saved_adapter_says_the_same_again(
    tiny_model_folder: Path, documents: Any, tmp_path: Path, precision: Any
) -> None:
    model, loaded = load(tiny_model_folder)
    assert (loaded.device, loaded.weight_bytes) == ("cpu", 4 * loaded.parameters)
    model, _ = add_lora(model, rank=4, alpha=8, dropout=0.0, targets="all-linear")
    optimizer = optimizer_of(model)
    cast_model(model, precision)
    use_packed_attention(model)
    (row,) = pack_rows(documents((20, 30)), row_tokens=64)
    for _ in range(3):
        row_loss(model, row)[0].backward()
        optimizer.step(1e-2, max_grad_norm=1.0)
    use_generation_attention(model)
    model.eval()
    trained = model(input_ids=IDS).logits
    base = model.get_base_model()
    with model.disable_adapter():
        assert not torch.equal(base(input_ids=IDS).logits, trained)

    save_trained(model, optimizer, renderer_of(tiny_model_folder), tmp_path / "adapter", stored_as=torch.float32)
    again = attach_adapter(load(tiny_model_folder)[0], tmp_path / "adapter")
    cast_model(again, precision)
    again.eval()

    assert torch.equal(again(input_ids=IDS).logits, trained)
    assert not list(tmp_path.glob(".*"))
    assert not (tmp_path / "adapter" / "README.md").exists()
    assert (tmp_path / "adapter" / "chat_template.jinja").is_file()


def test_a_tied_head_trained_whole_answers_in_a_second_slot_as_in_the_first(tmp_path: Path) -> None:
    base = tiny_kind("llama")
    base.config.tie_word_embeddings = True
    base.tie_weights()
    base.save_pretrained(tmp_path / "base")

    def opened() -> Any:
        return AutoModelForCausalLM.from_pretrained(tmp_path / "base")

    trained, _ = add_lora(
        opened(), rank=4, alpha=8, dropout=0.0, targets="all-linear", modules_to_save=["embed_tokens"]
    )
    for name, parameter in trained.named_parameters():
        if "modules_to_save" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    trained.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(5)[None] + 5
    with torch.no_grad():
        expected = trained.eval()(ids).logits
        model = attach_adapter(opened(), tmp_path / "adapter").eval()
        add_adapter(model, tmp_path / "adapter", slot="second")
        with active_adapter(model, "second"):
            assert torch.equal(model(ids).logits, expected)
        with model.disable_adapter():
            assert not torch.equal(model(ids).logits, expected)

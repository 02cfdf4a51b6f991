"""Every kind of LoRA: the first step starts from the base, and plain PEFT opens what is saved on the original base."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tutelage.config.method import Init
from tutelage.errors import ConfigError
from tutelage.export.model_folder import save_trained
from tutelage.model.adapters.lora import add_lora
from tutelage.model.adapters.lora_init import CalibrationData
from tutelage.model.attention.packed import use_generation_attention, use_packed_attention
from tutelage.model.load import load
from tutelage.model.loss import row_loss
from tutelage.model.precision import cast_model
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import adamw
from tutelage.pack import pack_rows
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.types import Example

IDS = torch.arange(3, 40)[None]
EXACT = ("default", "gaussian", "mica", "eva")
KINDS: list[dict[str, Any]] = [
    *({"init": get_argument} for get_argument in get_args(Init) if get_argument != "loftq"),  # see test_loftq.py
    {"rslora": True},
    {"dora": True},
    {"dora": True, "rslora": True, "init": "orthogonal"},
    {"rslora": True, "init": "pissa"},
    {"targets": ["q_proj", "down_proj"], "init": "olora"},
    {"targets": ["q_proj", "down_proj"], "init": "corda"},
    {"targets": ["o_proj", "up_proj"], "init": "lora_ga", "rslora": True},
    {"targets": ["k_proj", "gate_proj", "up_proj"], "init": "eva", "dora": True},
]


def added(model: Any, *examples: Example, **kind: Any) -> Any:
    torch.manual_seed(3)
    chosen = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"} | kind
    return add_lora(
        model, calibration_data=CalibrationData(pack_rows(examples, row_tokens=64), lambda _tokens: None), **chosen
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_step_0_is_the_base_and_the_saved_adapter_opens_on_it(
    tiny_model_folder: Path, documents: Any, tmp_path: Path, kind: dict[str, Any]
) -> None:
    base_logits = load(tiny_model_folder)[0](input_ids=IDS).logits
    model, record = added(load(tiny_model_folder)[0], *documents((20, 30, 25)), **kind)
    use_generation_attention(model)
    model.eval()

    first = model(input_ids=IDS).logits
    if kind.get("init", "default") in EXACT:
        assert torch.equal(first, base_logits)
    torch.testing.assert_close(first, base_logits, atol=2e-4, rtol=0)

    optimizer = MasterWeights(model, build=adamw(weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8), shared=True)
    use_packed_attention(model)
    (row,) = pack_rows(documents((20, 30)), row_tokens=64)
    for _ in range(4):
        row_loss(model, row)[0].backward()
        optimizer.step(5e-3, max_grad_norm=1.0)
    use_generation_attention(model)
    model.eval()
    trained = model(input_ids=IDS).logits.detach()
    assert (trained - base_logits).abs().max() > 0.1
    tokenizer = Tokenizer.load(tiny_model_folder)
    renderer = Renderer(tokenizer, ChatTemplate(str(tokenizer.template), named_tokens=tokenizer.named_tokens))
    save_trained(
        model, optimizer, renderer, tmp_path / "adapter", stored_as=torch.bfloat16 if record.start else torch.float32,
        start=record.start,
    )  # fmt: skip

    plain = AutoModelForCausalLM.from_pretrained(tiny_model_folder, local_files_only=True)
    opened = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    torch.testing.assert_close(opened(input_ids=IDS).logits, trained, atol=1e-3, rtol=0)
    assert not [path for path in tmp_path.iterdir() if path.name != "adapter"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_only_what_learns_has_optimizer_state(tiny_model: Any, documents: Any, kind: dict[str, Any]) -> None:
    model, record = added(tiny_model, *documents((20, 30, 25)), **kind)
    optimizer = MasterWeights(model, build=adamw(weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8), shared=True)
    use_packed_attention(model)
    (row,) = pack_rows(documents((20, 30)), row_tokens=64)
    row_loss(model, row)[0].backward()
    optimizer.step(1e-3, max_grad_norm=1.0)

    moments = {name.partition(":")[2]: one for name, one in optimizer.state().items() if name.startswith("exp_avg:")}
    learns = {name for name, one in model.named_parameters() if one.requires_grad}
    assert set(moments) == learns
    assert all("lora_" in name for name in learns)
    assert sum(moment.numel() for moment in moments.values()) == record.trainable
    assert record.trainable_bytes == 4 * record.trainable
    if kind.get("init") == "mica":
        assert all(".lora_A." in name for name in learns)


def test_rslora_divides_by_the_root_of_the_rank(tiny_model: Any) -> None:
    model, _ = added(tiny_model, rslora=True, rank=16, alpha=8)

    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == 2.0


def test_dora_in_bf16_starts_at_the_base_within_rounding(tiny_model_folder: Path) -> None:
    base = load(tiny_model_folder)[0]
    cast_model(base, "bf16")
    expected = base(input_ids=IDS).logits
    model, _ = added(load(tiny_model_folder)[0], dora=True)
    cast_model(model, "bf16")

    torch.testing.assert_close(model(input_ids=IDS).logits, expected, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"init": "pissa", "rank": 40}, "at most 32"),
        ({"init": "lora_ga", "rank": 20}, "at most 16"),
        ({"init": "orthogonal", "rank": 5}, "even"),
    ],
)
def test_a_rank_that_cannot_be_is_a_config_error(tiny_model: Any, kind: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="initialisation") as caught:
        added(tiny_model, **kind)

    assert caught.value.where == "lora.rank"
    assert said in str(caught.value)

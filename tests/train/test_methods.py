"""Every method through a whole run: train, checkpoint, resume bit for bit, save, open again, ask."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tutelage import config
from tutelage.api.run import Run
from tutelage.builders.trained_model import open_trained_model
from tutelage.errors import DependencyError
from tutelage.model import quantization
from tutelage.model.attention.packed import use_generation_attention
from tutelage.report.console.progress import Screen
from tutelage.train.run import Finished, run

TrainTiny = Callable[..., Finished]
IDS = torch.arange(3, 40)[None]
SHORT = (
    "train.max_steps=3",
    "train.evaluate_every=2",
    "train.learning_rate=",
    "evaluate.task=",
    "evaluate.max_new_tokens=2",
)
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (extra qlora)"
)
METHODS = {
    "full": ("model.method=full", "model.precision=bf16"),
    "frozen": ("model.method=full", 'model.freeze=["embed_tokens", "layers.0.*"]', "model.precision=bf16"),
    "lora": ("model.method=lora", "lora.dropout=0.1", "model.precision=bf16"),
    "dora": ("model.method=lora", "lora.rank=4", "lora.dora=true", "model.precision=bf16"),
    "pissa": ("model.method=lora", "lora.rank=4", "lora.init=pissa_niter_4", "lora.rslora=true"),
    "olora": ("model.method=lora", "lora.rank=4", "lora.init=olora", "model.precision=bf16"),
    "mica": ("model.method=lora", "lora.rank=4", "lora.init=mica"),
    "eva": ("model.method=lora", "lora.rank=4", "lora.init=eva", "lora.dora=true", "model.precision=bf16"),
    "corda": ("model.method=lora", "lora.rank=4", "lora.init=corda", "lora.init_tokens=300"),
    "lora_ga": ("model.method=lora", "lora.rank=4", "lora.init=lora_ga", "model.precision=bf16"),
    "qlora": ("model.method=qlora", "lora.dropout=0.1", "model.precision=bf16"),
    "qdora": ("model.method=qlora", "lora.rank=4", "lora.dora=true", "qlora.double_quantization=false"),
    "qloftq": ("model.method=qlora", "lora.rank=4", "lora.init=loftq", "model.precision=bf16"),
    "qeva": ("model.method=qlora", "lora.rank=4", "lora.init=eva"),
    "prompt": ("model.method=prompt", "prompt.tokens=6", "model.precision=bf16"),
    "prompt_text": ("model.method=prompt", "prompt.tokens=6", "prompt.text=Answer in JSON."),
}
"""Both precisions are in here for adapters that change the base, for 4 bits and for virtual tokens."""
DAILY = ("full", "frozen", "lora", "dora", "pissa", "corda", "qlora", "qloftq", "prompt")
"""Of `make test`: one of each kind of state that a run keeps: whole, adapter, base that was changed, 4 bits, tokens."""


def _method(name: str) -> Any:
    marks = [pytest.mark.nightly] * (name not in DAILY) + [needs_bitsandbytes] * name.startswith("q")
    return pytest.param(name, marks=marks)


NAMES = [_method(name) for name in METHODS]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    trained = folder / "adapter" / "adapter_model.safetensors"
    return load_file(trained if trained.is_file() else folder / "model" / "model.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_resumes_bit_for_bit_and_opens_as_it_was_measured(
    train_tiny: TrainTiny,
    record_of: Any,
    stop_after: Callable[[int | None], None],
    quiet_screen: Screen,
    name: str,
) -> None:
    chosen = (*SHORT, *METHODS[name])
    whole = train_tiny(*chosen, where="whole")
    stop_after(1)
    stopped = train_tiny(*chosen, where="stopped")
    assert stopped.ended == "interrupted"
    stop_after(None)
    resumed = run(config.load(stopped.folder / "settings.toml"), quiet_screen, resume=True)

    steps, heldout = record_of(resumed.folder)
    expected_steps, expected_heldout = record_of(whole.folder)
    for key in ("loss", "gradient_norm"):
        assert [steps[one][key] for one in (1, 2, 3)] == [expected_steps[one][key] for one in (1, 2, 3)]
    assert heldout == expected_heldout
    tensors, expected_tensors = tensors_of(resumed.folder), tensors_of(whole.folder)
    assert set(tensors) == set(expected_tensors)
    assert all(torch.equal(tensors[tensor], expected_tensors[tensor]) for tensor in tensors)
    assert resumed.result["after"] == whole.result["after"]

    before, after = whole.result["before"]["heldout_loss"], whole.result["after"]["heldout_loss"]
    assert after != before
    again = Run(whole.folder).evaluate(base=False)
    saved_apart = name in (
        "pissa",
        "olora",
        "corda",
        "lora_ga",
    )  # what was computed with is residual and adapter; saved is their sum
    assert again.heldout_loss == pytest.approx(after, abs=2e-2 if saved_apart else 0, rel=0)
    base = Run(whole.folder).evaluate(base=True)
    rounded = saved_apart or name in ("dora", "eva")  # eva's is of DoRA
    started_elsewhere = name == "qloftq"  # nearer to the original than the base of 4 bits
    assert started_elsewhere or base.heldout_loss == pytest.approx(before, abs=2e-2 if rounded else 1e-4, rel=0)


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_answer_and_the_result_says_what_was_trained(
    train_tiny: TrainTiny, quiet_screen: Screen, name: str
) -> None:
    finished = train_tiny(*SHORT, *METHODS[name], "evaluate.before=false", "train.max_steps=1")

    checkpoint = finished.folder / "checkpoints" / "step-000001"
    masters, moments = load_file(checkpoint / "masters.safetensors"), load_file(checkpoint / "moments.safetensors")
    state = {key: one for key, one in moments.items() if not key.startswith("random:")}
    trainable = sum(master.numel() for master in masters.values())
    saved = json.loads((finished.folder / "result.json").read_text(encoding="utf-8"))
    assert saved["parameters"]["trainable"] == trainable
    assert saved["bytes"]["trained"] == 4 * trainable
    assert saved["bytes"]["optimizer_state"] == sum(one.nbytes for one in state.values())
    assert {key.partition(":")[2] for key in state} == set(masters), "only what learns has optimizer state"
    told = quiet_screen.console.file.getvalue().replace("\n", " ")
    assert f"{trainable:,} trained" in told

    opened = open_trained_model(str(finished.folder), tuned=True, base=True, log=lambda _: None)
    with opened.as_tuned() as tuned:
        use_generation_attention(tuned)
        said = tuned.eval()(input_ids=IDS).logits[0, -37:]
    with opened.as_base() as base:
        use_generation_attention(base)
        original = base.eval()(input_ids=IDS).logits[0, -37:]
    with opened.as_tuned() as tuned:
        assert torch.equal(tuned(input_ids=IDS).logits[0, -37:], said)
    assert not torch.equal(said, original)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("prompt_text", ("train.optimizer=adafactor", "train.neftune_alpha=5.0")),
        ("prompt", ("train.optimizer=muon", "train.residual_dropout=0.1", "train.ema_decay=0.5")),
        ("frozen", ("train.optimizer=muon", "train.neftune_alpha=5.0")),
        ("dora", ("train.optimizer=adafactor", "train.ema_decay=0.5")),
        pytest.param("qlora", ("train.optimizer=adamw_8bit", "train.residual_dropout=0.1"), marks=needs_bitsandbytes),
    ],
)
def test_methods_go_with_the_other_ways_to_optimise(
    train_tiny: TrainTiny, quiet_screen: Screen, name: str, chosen: tuple[str, ...]
) -> None:
    finished = train_tiny(*SHORT, *METHODS[name], "evaluate.general=", *chosen)

    before, after = finished.result["before"]["heldout_loss"], finished.result["after"]["heldout_loss"]
    assert after != before
    again = Run(finished.folder).evaluate(base=False)
    assert again.heldout_loss == after


@needs_bitsandbytes
def test_four_bits_count_as_weights_and_take_less_room(train_tiny: TrainTiny) -> None:
    qlora = train_tiny(*METHODS["qlora"], *SHORT, "evaluate.before=false", where="qlora").result
    lora = train_tiny(*METHODS["lora"], *SHORT, "evaluate.before=false", where="lora").result

    assert qlora["parameters"]["four_bit"] > 0
    assert qlora["parameters"] == lora["parameters"] | {"four_bit": qlora["parameters"]["four_bit"]}
    assert qlora["method"] == "qlora"
    assert qlora["bytes"]["weights"] < lora["bytes"]["weights"]


def test_without_bitsandbytes_a_qlora_run_ends_before_it_begins(
    train_tiny: TrainTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(DependencyError, match="bitsandbytes"):
        train_tiny(*METHODS["qlora"], *SHORT)

    assert not (tmp_path / "home" / "runs").exists()


def test_frozen_weights_leave_a_bf16_run_as_they_came(train_tiny: TrainTiny, tiny_model_folder: Path) -> None:
    finished = train_tiny(*METHODS["frozen"], *SHORT, "evaluate.before=false")

    before = AutoModelForCausalLM.from_pretrained(tiny_model_folder).state_dict()
    after = AutoModelForCausalLM.from_pretrained(finished.folder / "model").state_dict()
    for name, value in after.items():
        assert value.dtype == torch.float32
        frozen = "embed_tokens" in name or "lm_head" in name or ".layers.0." in name
        assert torch.equal(value, before[name]) == frozen, name


@pytest.mark.parametrize("name", ["pissa", "corda", "prompt_text"])
def test_plain_peft_opens_the_adapter_of_a_run(train_tiny: TrainTiny, tiny_model_folder: Path, name: str) -> None:
    finished = train_tiny(*METHODS[name], *SHORT, "evaluate.before=false")

    opened = open_trained_model(str(finished.folder), tuned=True, base=False, log=lambda _: None).tuned
    use_generation_attention(opened)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    plain = PeftModel.from_pretrained(plain, finished.folder / "adapter").eval()
    torch.testing.assert_close(plain(input_ids=IDS).logits, opened.eval()(input_ids=IDS).logits)

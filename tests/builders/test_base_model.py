"""A run starts from what another one trained: its adapter merged, or trained on, as the same steps by hand would."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from rich.console import Console
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tutelage import config
from tutelage.builders.base_model import start_folder, with_adapters_own
from tutelage.builders.dataset import prepare
from tutelage.builders.run_inputs import starts_of
from tutelage.builders.sampler import sampler_for
from tutelage.builders.trained_model import open_trained_model
from tutelage.errors import ConfigError, DataError, SourceNotFoundError
from tutelage.model.locate import model_folder
from tutelage.report.console.progress import Screen
from tutelage.runs.fingerprint import read_inputs
from tutelage.train.run import Finished, run

TrainTiny = Callable[..., Finished]
IDS = torch.arange(3, 40)[None]
NEW = 403
"""The id of a token that is added to the tiny model."""
SHORT = (
    "train.epochs=1",
    "train.max_steps=3",
    "train.learning_rate=5e-3",
    "train.lr_scheduler=constant",
    "train.warmup_ratio=0.0",
    "evaluate.task=",
    "evaluate.general=",
    "evaluate.before=false",
    "lora.rank=4",
    "lora.alpha=8",
)


@pytest.fixture(scope="module")
def first(tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LoRA run of three steps."""
    recipe = tiny_recipe(tmp_path_factory.mktemp("first"))
    screen = Screen(Console(file=io.StringIO(), width=200))
    return run(config.load(recipe, [*SHORT, "model.method=lora"]), screen).folder


def by_hand(model: Any, settings: config.Settings, folder: Path) -> list[float]:
    """The mean loss of each step of a plain loop: transformers' forward, document after document, torch's AdamW."""
    prepared = prepare(settings, folder)
    order = sampler_for(settings, examples=len(prepared.train), sources=())
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.peak_learning_rate, weight_decay=0.0)
    losses = []
    for _, _, chosen in order.indices():
        examples: Sequence[Any] = [prepared.train[index] for index in chosen]
        count = sum(int((example.weights != 0).sum()) for example in examples)
        total = 0.0
        for example in examples:
            ids = torch.from_numpy(example.ids).long()
            labels = torch.where(torch.from_numpy(example.weights) > 0, ids, -100)
            logits = model(input_ids=ids[None], use_cache=False).logits[0]
            loss = cross_entropy(logits[:-1], labels[1:], reduction="sum", ignore_index=-100) / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(weights, settings.train.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses


def losses_of(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "record.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def base_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_r26_an_adapter_merged_is_pefts_own_merge(first: Path, tiny_model_folder: Path) -> None:
    merged = start_folder(config.ModelSettings(name=str(first)), log=lambda _text: None)

    expected = PeftModel.from_pretrained(base_of(tiny_model_folder), first / "adapter").merge_and_unload().state_dict()
    found = load_file(merged / "model.safetensors")
    assert found
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name
    assert (merged / "chat_template.jinja").read_text() == (first / "adapter" / "chat_template.jinja").read_text()
    assert start_folder(config.ModelSettings(name=str(first / "adapter")), log=lambda _text: None) == merged


@pytest.mark.parametrize("named", ["run", "adapter"])
def test_r26_two_stages_with_a_merge_are_the_same_steps_by_hand(
    first: Path, tiny_model_folder: Path, train_tiny: TrainTiny, tmp_path: Path, named: str
) -> None:
    name = first if named == "run" else first / "adapter"
    second = train_tiny(
        *SHORT, "model.method=lora", f"model.name={name}", "lora.init=gaussian", 'lora.target_modules=["q_proj"]'
    )
    settings = config.load(second.folder / "settings.toml")

    merged = PeftModel.from_pretrained(base_of(tiny_model_folder), first / "adapter").merge_and_unload()
    pair = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights="gaussian")
    torch.manual_seed(settings.seed)
    model = get_peft_model(merged, pair)
    folder = start_folder(settings.model, log=lambda _text: None)

    assert losses_of(second.folder) == pytest.approx(by_hand(model, settings, folder), abs=1e-5)


def test_r26_an_adapter_trained_on_is_the_same_steps_by_hand(
    first: Path, tiny_model_folder: Path, train_tiny: TrainTiny
) -> None:
    second = train_tiny(*SHORT, "model.method=lora", f"model.name={first}", "model.adapter=continue", "lora.rank=16")
    settings = config.load(second.folder / "settings.toml")
    model = PeftModel.from_pretrained(base_of(tiny_model_folder), first / "adapter", is_trainable=True)

    assert settings.lora.rank == 4, "the adapter's own"
    assert losses_of(second.folder) == pytest.approx(by_hand(model, settings, tiny_model_folder), abs=1e-5)
    kept, learned = load_file(second.folder / "adapter" / "adapter_model.safetensors"), model.state_dict()
    for key, tensor in kept.items():
        torch.testing.assert_close(tensor, learned[key.replace(".weight", ".default.weight")], atol=1e-5, rtol=0)
    written = json.loads((second.folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert written["base_model_name_or_path"] == str(tiny_model_folder)


@pytest.mark.parametrize("how", ["merge", "continue"])
def test_r26_such_a_run_opens_again_as_what_it_trained_and_what_it_started_from(
    first: Path, tiny_model_folder: Path, train_tiny: TrainTiny, how: str
) -> None:
    second = train_tiny(*SHORT, "model.method=lora", f"model.name={first}", f"model.adapter={how}")
    third = train_tiny(*SHORT, "model.method=lora", f"model.name={second.folder}", f"model.adapter={how}", "name=third")
    started = PeftModel.from_pretrained(base_of(tiny_model_folder), first / "adapter").eval()

    opened = open_trained_model(str(second.folder), tuned=True, base=True, log=lambda _text: None)

    with opened.as_base() as base:
        found = base.eval()(input_ids=IDS).logits
    torch.testing.assert_close(found, started(input_ids=IDS).logits, atol=2e-4, rtol=0)
    with opened.as_tuned() as tuned:
        assert (tuned.eval()(input_ids=IDS).logits - found).abs().max() > 1e-3
    alone = open_trained_model(str(second.folder), tuned=False, base=True, log=lambda _text: None)
    with alone.as_base() as base:
        torch.testing.assert_close(base.eval()(input_ids=IDS).logits, found, atol=2e-4, rtol=0)
    assert losses_of(third.folder)[0] < losses_of(first)[0]


def test_r26_a_run_of_every_weight_is_a_start_too(train_tiny: TrainTiny, first: Path) -> None:
    whole = train_tiny(*SHORT[:-2], "model.method=full")
    second = train_tiny(*SHORT, "model.method=lora", f"model.name={whole.folder}", "name=second")
    merged = train_tiny(*SHORT[:-2], "model.method=full", f"model.name={first}", "name=merged")

    expected = model_folder(str(whole.folder / "model"))
    written = json.loads((second.folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert written["base_model_name_or_path"] == str(expected)
    assert losses_of(merged.folder)[0] < losses_of(whole.folder)[0]


def test_r26_a_prompt_is_trained_on_and_never_merged(train_tiny: TrainTiny) -> None:
    prompt = ("model.method=prompt", "prompt.tokens=5", "lora.rank=", "lora.alpha=")
    one = train_tiny(*SHORT, *prompt)
    with pytest.raises(ConfigError, match="folded into its base") as caught:
        train_tiny(*SHORT, *prompt, f"model.name={one.folder}", "name=two")
    assert caught.value.fix == 'set model.adapter = "continue"'

    two = train_tiny(*SHORT, *prompt, f"model.name={one.folder}", "model.adapter=continue", "name=two")

    old, new = (load_file(each.folder / "adapter" / "adapter_model.safetensors") for each in (one, two))
    assert {name: tensor.shape for name, tensor in old.items()} == {name: tensor.shape for name, tensor in new.items()}
    assert losses_of(two.folder)[0] < losses_of(one.folder)[0]


def test_r26_what_cannot_be_a_start_is_said_in_words(
    first: Path, train_tiny: TrainTiny, tmp_path: Path, tiny_model_folder: Path
) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("settings.toml", "inputs.json"):
        (unfinished / name).write_bytes((first / name).read_bytes())
    with pytest.raises(SourceNotFoundError, match="no trained weights yet"):
        train_tiny(*SHORT, f"model.name={unfinished}")
    with pytest.raises(ConfigError, match="does not train this adapter on") as caught:
        train_tiny(*SHORT[:-2], "model.method=full", f"model.name={first}", "model.adapter=continue")
    assert caught.value.fix == 'set model.method = "lora"'
    with pytest.raises(DataError, match="holds an adapter, not a whole model"):
        model_folder(str(first / "adapter"))
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    (nameless / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    (nameless / "adapter_model.safetensors").write_bytes((first / "adapter/adapter_model.safetensors").read_bytes())
    with pytest.raises(DataError, match="does not say which model"):
        train_tiny(*SHORT, f"model.name={nameless}")
    (nameless / "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        train_tiny(*SHORT, f"model.name={nameless}")


def test_r26_an_adapter_whose_targets_are_a_pattern_is_trained_on_and_resumed(
    train_tiny: TrainTiny, tiny_model_folder: Path, tmp_path: Path, quiet_screen: Screen
) -> None:
    pattern = LoraConfig(r=4, lora_alpha=8, target_modules=r".*\.0\..*(q|v)_proj", task_type="CAUSAL_LM")
    get_peft_model(base_of(tiny_model_folder), pattern).save_pretrained(tmp_path / "pattern")
    on = ("model.method=lora", f"model.name={tmp_path / 'pattern'}", "model.adapter=continue")

    second = train_tiny(*SHORT, *on)

    settings = config.load(second.folder / "settings.toml")
    model = PeftModel.from_pretrained(base_of(tiny_model_folder), tmp_path / "pattern", is_trainable=True)
    assert settings.lora.target_modules == ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"]
    assert losses_of(second.folder) == pytest.approx(by_hand(model, settings, tiny_model_folder), abs=1e-5)
    (second.folder / "result.json").unlink()
    assert run(settings, quiet_screen, resume=True).ended == "finished"


def test_r26_each_target_of_an_adapter_is_named_once(tmp_path: Path, tiny_model_folder: Path) -> None:
    own = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": str(tiny_model_folder)}
    named = {"target_modules": ["q_proj"], "target_parameters": ["experts.down_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(own | named), encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").touch()
    settings = config.from_mapping(
        {
            "model": {"name": str(tmp_path), "method": "lora", "adapter": "continue"},
            "data": {"train": ["rows.jsonl"]},
        },
        where="here",
    )
    assert with_adapters_own(settings).lora.target_modules == ["experts.down_proj", "q_proj"]


def test_r26_a_model_beside_a_recipe_called_settings_is_a_model(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (folder / "settings.toml").write_text("[model]\nname = 1\n", encoding="utf-8")
    assert start_folder(config.ModelSettings(name=str(folder)), log=lambda _text: None) == folder


def test_r26_the_origin_of_a_chain_of_starts_is_recorded(
    first: Path, train_tiny: TrainTiny, tiny_model_folder: Path, tmp_path: Path
) -> None:
    second = train_tiny(*SHORT, "model.method=lora", f"model.name={first}")
    whole = train_tiny(*SHORT[:-2], "model.method=full", f"model.name={second.folder / 'adapter'}", "name=whole")
    shutil.rmtree(second.folder)  # what it recorded of its start is kept in the record of the run that began from it
    last = train_tiny(*SHORT, "model.method=lora", f"model.name={whole.folder}", "name=last")

    recorded = read_inputs(last.folder)["starts"]

    names = [str(whole.folder), str(second.folder / "adapter"), str(first), str(tiny_model_folder)]
    assert [one["name"] for one in recorded] == names
    assert [one.get("used") for one in recorded] == [None, "merge", "merge", None]
    bytes_of_first = (first / "adapter" / "adapter_model.safetensors").read_bytes()
    assert recorded[2]["sha256"]["adapter_model.safetensors"] == hashlib.sha256(bytes_of_first).hexdigest()
    assert read_inputs(first)["starts"] == [{"name": str(tiny_model_folder)}]


def test_r26_an_adapter_of_another_tool_is_an_origin_and_damage_of_a_record_is_no_hindrance(
    first: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(first, tmp_path / "copied")
    (copied / "inputs.json").write_text("{", encoding="utf-8")

    for name in (copied, copied / "adapter", shutil.copytree(first / "adapter", tmp_path / "alone")):
        found = starts_of(config.ModelSettings(name=str(name), adapter="continue"), log=lambda _text: None)
        assert [one["name"] for one in found] == [str(name), str(tiny_model_folder)]
        assert found[0]["used"] == "continue"


@pytest.mark.parametrize("start_has_rows", [False, True])
def test_r26_tokens_are_added_to_a_merged_adapter_alone(
    first: Path, train_tiny: TrainTiny, tmp_path: Path, start_has_rows: bool
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "name it", "completion": "Zyxplo"}\n' * 8, encoding="utf-8")
    whole = ("model.method=lora", 'lora.modules_to_save=["embed_tokens"]')
    start = train_tiny(*SHORT, *whole, "name=rows").folder if start_has_rows else first
    asked = (*SHORT, *whole, f'data.train=["{rows}"]', 'model.add_tokens=["Zyxplo"]', f"model.name={start}", "name=on")
    with pytest.raises(ConfigError, match="cannot learn new tokens") as caught:
        train_tiny(*asked, "model.adapter=continue")
    assert caught.value.fix == 'set model.adapter = "merge"'
    assert not (tmp_path / "home" / "runs" / "on").exists()

    merged = train_tiny(*asked, "model.adapter=merge")

    settings = config.load(merged.folder / "settings.toml")
    given = load_file(start_folder(settings.model) / "model.safetensors")["model.embed_tokens.weight"]
    saved = load_file(merged.folder / "adapter" / "adapter_model.safetensors")
    learned = saved["base_model.model.model.embed_tokens.weight"]
    assert given.shape == learned.shape
    assert (learned[NEW] - given[NEW]).abs().max() > 1e-3


def test_r26_a_prompt_that_is_trained_on_gets_no_tokens(tmp_path: Path, tiny_model_folder: Path) -> None:
    own = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "base_model_name_or_path": str(tiny_model_folder)}
    (tmp_path / "adapter_config.json").write_text(json.dumps(own), encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").touch()

    with pytest.raises(ConfigError, match="cannot learn new tokens") as caught:
        start_folder(
            config.ModelSettings(name=str(tmp_path), method="prompt", adapter="continue", add_tokens=["Zyxplo"]),
            weights=False,
        )

    assert caught.value.fix == "leave model.add_tokens out"
    without = config.ModelSettings(name=str(tmp_path), method="prompt", adapter="continue")
    assert (start_folder(without, weights=False) / "tokenizer.json").is_file()

"""Several adapters on one loaded base: each answers as it does alone, and what does not fit is named."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tutelage import config
from tutelage.api.run import Run
from tutelage.builders import method as method_module
from tutelage.builders.evaluation import evaluate_adapters
from tutelage.builders.named_adapters import named_adapters
from tutelage.builders.trained_model import TrainedModel, open_trained_model
from tutelage.cli import main
from tutelage.errors import ConfigError, DataError, SourceNotFoundError
from tutelage.model.adapters.lora import add_lora
from tutelage.model.adapters.prompt_tuning import add_prompt
from tutelage.model.attention.packed import use_generation_attention
from tutelage.report.console.progress import Screen
from tutelage.train.run import run

IDS = torch.arange(3, 40)[None]
SHORT = ("train.max_steps=3", "evaluate.before=false", "evaluate.max_new_tokens=12", "model.precision=bf16")
RUNS = {
    "small": ("lora.rank=2", "lora.alpha=4", 'lora.target_modules=["q_proj"]'),
    "dora": ("lora.rank=4", "lora.dora=true", "seed=3"),
    "pissa": ("lora.rank=4", "lora.init=pissa", "lora.rslora=true"),
    "prompt": ("model.method=prompt", "prompt.tokens=3", "train.learning_rate=0.1"),
    "longer": ("model.method=prompt", "prompt.tokens=7", "train.learning_rate=0.1"),
    "whole": ("model.method=full",),
}


@pytest.fixture(scope="module")
def runs(tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of the tiny model, `tiny` among them: LoRA of rank 16."""
    folder = tmp_path_factory.mktemp("adapters")
    recipe, screen = tiny_recipe(folder), Screen(Console(file=io.StringIO()))
    for name, chosen in ({"tiny": ()} | RUNS).items():
        run(config.load(recipe, (*SHORT, f"name={name}", *chosen)), screen)
    return folder / "runs"


def opened_with(runs: Path, first: str, *others: str) -> TrainedModel:
    given = named_adapters([f"{one}={runs / one}" for one in others])
    return open_trained_model(str(runs / first), tuned=True, base=False, adapters=given, log=lambda _: None)


def logits_of(opened: TrainedModel, name: str) -> torch.Tensor:
    with opened.as_named(name) as model, torch.no_grad():
        use_generation_attention(model)
        logits: torch.Tensor = model.eval()(input_ids=IDS).logits[0, -37:]
    return logits


@pytest.mark.parametrize(("first", "others"), [("tiny", ("small", "dora", "pissa")), ("prompt", ("longer",))])
def test_each_answers_as_it_does_alone_and_the_base_is_loaded_once(
    runs: Path, monkeypatch: pytest.MonkeyPatch, first: str, others: tuple[str, ...]
) -> None:
    alone = {name: logits_of(opened_with(runs, name), "tuned") for name in (first, *others)}
    alone["base"] = logits_of(opened_with(runs, first), "base")
    loads: list[Path] = []
    original = method_module.load

    def counted(folder: Path, **given: Any) -> Any:
        loads.append(folder)
        return original(folder, **given)

    monkeypatch.setattr(method_module, "load", counted)
    opened = opened_with(runs, first, *others)

    assert opened.names == ("base", "tuned", *others)
    for name in (*others, "tuned", "base", *reversed(others), "tuned", "base"):
        assert torch.equal(logits_of(opened, name), alone[first if name == "tuned" else name]), name
    assert len(loads) == 1
    assert not any(torch.equal(one, other) for one, other in combinations(alone.values(), 2))


def test_measures_are_those_of_each_run_alone(runs: Path, quiet_screen: Screen) -> None:
    given = named_adapters([f"{one}={runs / one}" for one in ("small", "dora")])

    found = evaluate_adapters(str(runs / "tiny"), given, screen=quiet_screen)

    assert list(found) == ["base", "tuned", "small", "dora"]
    assert found["base"].metrics == Run(runs / "tiny").evaluate(base=True)
    for name, where in (("tuned", "tiny"), ("small", "small"), ("dora", "dora")):
        assert found[name].metrics == Run(runs / where).evaluate(base=False)


def test_a_plain_adapter_folder_will_do(runs: Path, tmp_path: Path, tiny_model_folder: Path) -> None:
    torch.manual_seed(5)
    made, _ = add_lora(
        AutoModelForCausalLM.from_pretrained(tiny_model_folder), rank=3, alpha=3, dropout=0.0, targets=["o_proj"]
    )
    with torch.no_grad():
        for name, one in made.named_parameters():
            if "lora_B" in name:
                one.normal_()
    made.save_pretrained(tmp_path / "made")
    given = named_adapters([f"made={tmp_path / 'made'}"])
    told: list[str] = []

    opened = open_trained_model(str(runs / "tiny"), tuned=True, base=False, adapters=given, log=told.append)

    plain = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.bfloat16)
    plain = PeftModel.from_pretrained(plain, tmp_path / "made", autocast_adapter_dtype=False).eval()
    assert torch.equal(logits_of(opened, "made"), plain(input_ids=IDS).logits[0])
    assert told == []


def other_base(**changes: int) -> Any:
    chosen = {"hidden_size": 64, "num_hidden_layers": 2} | changes
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=416, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2, **chosen)
    )


@pytest.mark.parametrize("changes", [{"hidden_size": 32}, {"num_hidden_layers": 3}, {"num_hidden_layers": 1}])
def test_an_adapter_of_another_base_is_named(runs: Path, tmp_path: Path, changes: dict[str, int]) -> None:
    made, _ = add_lora(other_base(**changes), rank=2, alpha=2, dropout=0.0, targets=["q_proj", "up_proj"])
    made.save_pretrained(tmp_path / "foreign")

    with pytest.raises(DataError, match="does not belong to this base") as caught:
        open_trained_model(
            str(runs / "tiny"),
            tuned=True,
            base=False,
            adapters=named_adapters([f"foreign={tmp_path / 'foreign'}"]),
            log=lambda _: None,
        )

    assert caught.value.where == str(tmp_path / "foreign")
    assert "2 layers and width 64" in str(caught.value)


def test_virtual_tokens_of_another_width_are_named(runs: Path, tmp_path: Path) -> None:
    made, _ = add_prompt(other_base(hidden_size=32), tokens=2)
    made.save_pretrained(tmp_path / "foreign")

    with pytest.raises(DataError, match="does not belong") as caught:
        open_trained_model(
            str(runs / "prompt"),
            tuned=True,
            base=False,
            adapters=named_adapters([f"foreign={tmp_path / 'foreign'}"]),
            log=lambda _: None,
        )

    assert "width 32, not 64" in str(caught.value.found)


@pytest.mark.parametrize(("first", "other"), [("tiny", "prompt"), ("prompt", "tiny")])
def test_two_kinds_on_one_base_are_refused(runs: Path, first: str, other: str) -> None:
    with pytest.raises(ConfigError, match="of one kind") as caught:
        opened_with(runs, first, other)

    assert "prompt tuning" in str(caught.value.found)
    assert "LoRA" in str(caught.value.found)


def test_a_full_run_has_no_base_for_adapters_and_is_none(runs: Path) -> None:
    with pytest.raises(ConfigError, match="trained all of its weights"):
        opened_with(runs, "whole", "tiny")
    with pytest.raises(ConfigError, match="has no adapter"):
        opened_with(runs, "tiny", "whole")


@pytest.mark.parametrize("given", ["runs/tiny", "=x", "a b=x", "tuned=x", "base=x", "a=", "../x=y"])
def test_a_wrong_name_is_a_config_error(given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named_adapters([given])

    assert caught.value.where == "--adapter"


def test_a_name_twice_and_an_empty_folder_are_errors(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="taken"):
        named_adapters([f"a={runs / 'tiny'}", f"a={runs / 'dora'}"])
    with pytest.raises(SourceNotFoundError, match="no adapter at"):
        named_adapters([f"a={tmp_path}"])


def test_what_an_adapter_was_trained_with_is_said(runs: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(runs / "dora", copied)
    settings = (copied / "settings.toml").read_text(encoding="utf-8")
    (copied / "settings.toml").write_text(settings.replace('method = "lora"', 'method = "qlora"'), encoding="utf-8")
    (copied / "adapter" / "chat_template.jinja").write_text("other", encoding="utf-8")
    told: list[str] = []

    open_trained_model(
        str(runs / "tiny"), tuned=True, base=False, adapters=named_adapters([f"x={copied}"]), log=told.append
    )

    assert [line.partition(";")[0] for line in told] == [
        "x was trained by qlora",
        "x was trained with another chat template",
    ]


def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str, typed: str = "") -> str:
    monkeypatch.setattr(sys, "argv", ["tutelage", *words])
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    monkeypatch.setenv("COLUMNS", "200")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert ended.value.code in (0, None), err
    return out


def test_a_chat_changes_adapters_between_requests(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question = "My sister asks for 2 lamps."
    short = ("--max-new-tokens", "12", "--system", "")

    def alone(name: str) -> str:
        return asked(monkeypatch, capsys, "chat", str(runs / name), "-p", question, *short).strip()

    expected = {name: alone(name) for name in ("tiny", "dora")}
    assert expected["tiny"] != expected["dora"]
    typed = f"/adapters\n{question}\n/reset\n/use dora\n{question}\n/use nobody\n/reset\n/use tuned\n{question}\n"
    said = asked(
        monkeypatch, capsys, "chat", str(runs / "tiny"), "--adapter", f"dora={runs / 'dora'}", *short, typed=typed
    )

    assert "base  [tuned]  dora" in said
    assert "There is no 'nobody' here." in said
    assert "base  tuned  [dora]" in said
    assert said.count(expected["tiny"]) == 2
    assert said.count(expected["dora"]) == 1
    assert said.index(expected["tiny"]) < said.index(expected["dora"]) < said.rindex(expected["tiny"])


def test_compare_asks_all_and_evaluate_has_a_column_for_each(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ("--adapter", f"dora={runs / 'dora'}")
    short = ("--compare", "-p", "Hello", "--max-new-tokens", "4")
    said = asked(monkeypatch, capsys, "chat", str(runs / "tiny"), *one, *short)
    assert all(name in said for name in ("base", "tuned", "dora"))

    table = asked(monkeypatch, capsys, "evaluate", str(runs / "tiny"), *one)
    printed = json.loads(asked(monkeypatch, capsys, "evaluate", str(runs / "tiny"), *one, "--json"))
    assert list(printed) == ["base", "tuned", "dora"]
    for measures in printed.values():
        assert f"{measures['heldout_loss']:.3f}" in table

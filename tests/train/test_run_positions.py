"""Rows and prompts that are longer than a model's positions are known before the first step."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from tutelage import config
from tutelage.builders import positions as positions_module
from tutelage.builders import row_limit
from tutelage.builders.dataset import prepare
from tutelage.builders.planning import of_recipe
from tutelage.builders.positions import positions_of
from tutelage.cli import main
from tutelage.config import Settings
from tutelage.errors import ConfigError, DataError
from tutelage.train.run import run

POSITIONS = 200


@pytest.fixture
def settings(
    tiny_recipe: Callable[[Path], Path], tiny_tokenizer_folder: Path, tmp_path: Path
) -> Callable[..., Settings]:
    """Of a run of a GPT-2 with 200 positions, which all rows of its data fit in."""
    folder = tmp_path / "gpt2"
    shutil.copytree(tiny_tokenizer_folder, folder)
    stop = json.loads((folder / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
    torch.manual_seed(0)
    small = GPT2Config(vocab_size=416, n_embd=32, n_layer=1, n_head=4, n_positions=POSITIONS, eos_token_id=stop)
    GPT2LMHeadModel(small).save_pretrained(folder)
    recipe = tiny_recipe(tmp_path / "run")

    def load(*overrides: str) -> Settings:
        return config.load(recipe, (f"model.name={folder}", *overrides))

    return load


def longer(settings: Settings) -> None:
    """Add a row that is longer than the positions to the training data."""
    path = Path(settings.data.train[0])
    row = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    row["messages"][-1]["content"] += " of the old shop" * 60
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def without_prompts(settings: Callable[..., Settings], *more: str) -> Settings:
    return settings("evaluate.task=", "evaluate.general=", "evaluate.before=false", *more)


def test_r5_rows_beyond_learned_positions_are_dropped_with_their_address(
    settings: Callable[..., Settings], quiet_screen: Any
) -> None:
    asked = without_prompts(settings, "train.max_steps=2")
    longer(asked)

    finished = run(asked, quiet_screen)

    ledger = json.loads((finished.folder / "ledger.json").read_text(encoding="utf-8"))
    assert ledger["dropped"] == {"too_long": 1}
    assert "200 positions" in quiet_screen.console.file.getvalue()


def test_r5_virtual_tokens_count_towards_positions(settings: Callable[..., Settings]) -> None:
    asked = without_prompts(settings, "model.method=prompt", "prompt.tokens=10")

    positions = positions_of(asked, Path(asked.model.name))

    assert positions.within(asked).pack.max_seq_length == POSITIONS - 10


def test_r5_virtual_tokens_that_fill_the_positions_are_refused(settings: Callable[..., Settings]) -> None:
    asked = without_prompts(settings, "model.method=prompt", "prompt.tokens=199")

    with pytest.raises(ConfigError, match="leave no room"):
        positions_of(asked, Path(asked.model.name)).within(asked)


def test_r5_prompts_leave_room_for_their_replies(settings: Callable[..., Settings]) -> None:
    asked = settings("evaluate.task=", "evaluate.max_new_tokens=190")
    positions = positions_of(asked, Path(asked.model.name))
    prepared = prepare(positions.within(asked), Path(asked.model.name))

    with pytest.raises(DataError, match="longer than the model's positions") as caught:
        positions.require_room(asked, prepared)

    assert "general.jsonl:" in str(caught.value.where)
    room = int(str(caught.value.fix).rpartition("= ")[2])
    positions.require_room(settings("evaluate.task=", f"evaluate.max_new_tokens={room}"), prepared)


def test_r5_positions_are_tried_where_a_prompt_comes_near_them(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    monkeypatch.setattr(positions_module, "position_limit", lambda *_given, **_named: tried.append(1))
    for new_tokens, times in ((1, 0), (190, 1)):
        asked = settings("evaluate.task=", "pack.max_seq_length=190", f"evaluate.max_new_tokens={new_tokens}")
        positions = positions_of(asked, Path(asked.model.name))
        positions.require_room(asked, prepare(positions.within(asked), Path(asked.model.name)))

        assert len(tried) == times


def test_r5_rows_beyond_rotary_positions_are_a_question(
    tiny_recipe: Callable[[Path], Path], tmp_path: Path, tiny_model_folder: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(written | {"max_position_embeddings": 32}), encoding="utf-8")
    asked = config.load(tiny_recipe(tmp_path / "run"), (f"model.name={folder}", "evaluate.task="))
    positions = positions_of(asked, folder)

    question = positions.question(prepare(positions.within(asked), folder))

    assert positions.within(asked) is asked
    assert "longer than the 32 positions" in str(question)
    assert "train.jsonl:" in str(question)


def test_plan_check_and_dry_run_prove_the_rows_that_training_proves(
    settings: Callable[..., Settings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = without_prompts(settings, "pack.share_prefixes=false")
    longer(asked)
    assert asked.pack.max_seq_length > POSITIONS

    plan = of_recipe(asked, memory_gb=None, probe=False, log=lambda _text: None)

    assert plan.data_volume is not None
    assert plan.data_volume.examples == 24
    recipe = str(Path(asked.data.train[0]).with_name("recipe.toml"))
    overrides = (f"model.name={asked.model.name}", "evaluate.task=", "evaluate.general=")
    monkeypatch.setenv("COLUMNS", "200")
    for command in (("check", "--json"), ("train", "--dry-run")):
        monkeypatch.setattr(sys, "argv", ["tutelage", command[0], recipe, *overrides, *command[1:]])
        with pytest.raises(SystemExit):
            main()
        out, err = capsys.readouterr()
        assert "too_long" in out
        assert "sequences are held to 200 tokens" in out + err


def test_the_virtual_tokens_of_an_adapter_count_in_check_as_they_do_in_training(
    settings: Callable[..., Settings],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = without_prompts(settings)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    own = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 30, "base_model_name_or_path": asked.model.name}
    (adapter / "adapter_config.json").write_text(json.dumps(own), encoding="utf-8")
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    recipe = str(Path(asked.data.train[0]).with_name("recipe.toml"))
    given = (f"model.name={adapter}", "model.adapter=continue", "model.method=prompt", "evaluate.task=")
    monkeypatch.setattr(sys, "argv", ["tutelage", "check", recipe, *given])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main()
    assert "sequences are held to 170 tokens" in capsys.readouterr().err


def test_where_positions_cannot_be_looked_at_it_is_said(
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, said = settings(), list[str]()
    monkeypatch.setattr(row_limit, "find_spec", lambda name: None if name == "torch" else name)

    assert row_limit.held_to_positions(asked, Path(asked.model.name), log=said.append) == (asked, None)

    assert said == ["The model's positions are not looked at, for want of torch: a run may drop more rows"]

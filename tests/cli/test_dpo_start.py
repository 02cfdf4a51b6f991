"""`--to dpo-start`: what TRL reads is what training rendered, and pairs of `prefer` go in as they are."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tests.cli.test_prefer import sampling_and_judging
from tests.support.commands import Ran
from tests.support.environments import alone, environment
from tests.support.fake_endpoint import fake_endpoint
from tutelage import config
from tutelage.api.run import Run
from tutelage.builders.base_model import start_folder
from tutelage.builders.evaluation import prepared_again
from tutelage.builders.export import dpo_start
from tutelage.builders.export.request import Exported, ExportRequest
from tutelage.builders.export.targets import export_run
from tutelage.errors import ConfigError, DataError, SaveError
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.train.run import run as train

SHORT = (
    "model.method=lora",
    "train.max_steps=2",
    "evaluate.task=",
    "evaluate.general=",
    "evaluate.divergence_prompts=0",
)
TRL = ("torch==2.13.0", "transformers==5.23.0", "trl==1.16.0")
WITH_TOOLS = """\
{%- if tools %}{{ '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] -}}
{%- for call in message['tool_calls'] or [] %}{{ '<call>' + (call['function'] | tojson) }}{% endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
"""
FINISHED_OTHERWISE = "{%- if not add_generation_prompt %}!{% endif -%}"


@pytest.fixture(scope="module")
def trained(tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the tiny model with an adapter, with 6 rows held out."""
    folder = tmp_path_factory.mktemp("trained")
    return train(config.load(tiny_recipe(folder), SHORT), Screen(Console(file=io.StringIO()))).folder


@pytest.fixture
def start(trained: Path, tmp_path: Path, quiet_screen: Screen) -> Callable[..., Exported]:
    """Exports the run to a folder of this name, compared on 2 prompts."""

    def go(name: str = "start", *, to: str = "dpo-start", prompts: int = 2, **chosen: Any) -> Exported:
        settings = run_files.read_settings(trained)
        return export_run(
            to, ExportRequest(trained, settings, tmp_path / name, quiet_screen, prompts=prompts, **chosen)
        )

    return go


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def turns(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def write_pairs(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The run's own rows with a rejected reply."""
    pairs = [{**row, "rejected": turns(f"I do not know, {number}.")} for number, row in enumerate(rows)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


@pytest.mark.usefixtures("proof_here")
def test_the_folder_renders_held_out_rows_as_training_did(
    start: Callable[..., Exported], trained: Path, quiet_screen: Screen
) -> None:
    exported = start()
    folder = exported.path
    assert exported.facts["proof"]["proven"]
    assert exported.facts["proof"]["template"] == 3 + 2 * 6, "two renderings of each row beside the usual ones"
    assert exported.facts["preferences"] == {"rows": 6, "to_write": 6, "left_out": {}}
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"], "the reference is no copy"
    settings = yaml.safe_load((folder / "dpo.yaml").read_text(encoding="utf-8"))
    assert settings["model_name_or_path"] == "."
    assert settings["datasets"] == [{"path": "json", "data_files": "preferences.jsonl"}]
    assert settings["max_length"] == 256
    rows, tokenizer = rows_of(folder / "preferences.jsonl"), AutoTokenizer.from_pretrained(folder)
    settings_of_run, log = run_files.read_settings(trained), quiet_screen.log
    validation = prepared_again(settings_of_run, start_folder(settings_of_run.model, log=log), log=log).validation
    assert len(rows) == len(validation) == 6
    for row, example in zip(rows, validation, strict=True):
        assert row["rejected"] is None, "TRL stops at it, and trains nothing that nobody wrote"
        served = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        finished = tokenizer.apply_chat_template(row["prompt"] + row["chosen"], return_dict=False)
        assert served == example.ids[: example.turns[0].prompt_end].tolist()
        assert finished[: len(example.ids)] == example.ids.tolist()
        assert tokenizer.decode(finished[len(example.ids) :]) == "\n"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "trl dpo --config dpo.yaml" in card
    assert "6 of 6 rows" in card


@pytest.mark.usefixtures("proof_here")
def test_tools_that_a_row_offers_go_along_as_trl_reads_them(
    trained: Path, tmp_path: Path, quiet_screen: Screen
) -> None:
    """JSON text, as `datasets` would give each tool the fields of the others; rows with calls stay out."""
    tools: list[Any] = [
        {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {"é": {}}}}},
        {"type": "function", "function": {"name": "look", "description": "Looks."}},
    ]
    asked = {"role": "user", "content": "Find it."}
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    called = [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "3"}]
    rows = [
        {"messages": [asked, *turns("I cannot.")], "tools": tools},
        {"messages": [asked, *turns("Here.")]},
        {"messages": [asked, *called, *turns("Three.")], "tools": tools},
    ]
    held_out, template = tmp_path / "held-out.jsonl", tmp_path / "tools.jinja"
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    template.write_text(WITH_TOOLS, encoding="utf-8")
    settings = run_files.read_settings(trained)
    changes = {"data": {"validation": [str(held_out)]}, "render": {"template": str(template)}}
    changed = {name: getattr(settings, name).model_copy(update=change) for name, change in changes.items()}
    request = ExportRequest(trained, settings.model_copy(update=changed), tmp_path / "start", quiet_screen, prompts=2)

    exported = export_run("dpo-start", request)

    written = rows_of(exported.path / "preferences.jsonl")
    assert [row["tools"] and json.loads(row["tools"]) for row in written] == [tools, None]
    assert exported.facts["proof"]["proven"]
    ((why, count),) = exported.facts["preferences"]["left_out"].items()
    assert ("calls" in why, count) == (True, 1)
    tokenizer = AutoTokenizer.from_pretrained(exported.path)
    validation = prepared_again(
        request.settings, start_folder(settings.model, log=quiet_screen.log), log=quiet_screen.log
    ).validation
    for row, example in zip(written, validation, strict=False):
        offered = json.loads(row["tools"]) if row["tools"] else None  # as TRL does
        served = tokenizer.apply_chat_template(
            row["prompt"], tools=offered, add_generation_prompt=True, return_dict=False
        )
        assert served == example.ids[: example.turns[0].prompt_end].tolist()
        assert ("find" in tokenizer.decode(served)) == bool(offered)
    pairs = write_pairs(tmp_path / "pairs.jsonl", written)
    again = export_run("dpo-start", replace(request, out=tmp_path / "dpo", prompts=0, preferences=pairs))
    assert rows_of(again.path / "preferences.jsonl") == rows_of(pairs)


def test_pairs_of_prefer_go_in_as_they_are(
    start: Callable[..., Exported], run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampled for the run's own rows, whose rejected replies are still to be written."""
    skeleton = start(prompts=0).path / "preferences.jsonl"
    monkeypatch.chdir(tmp_path)
    with fake_endpoint(sampling_and_judging) as fake:
        ran = run(
            *("prefer", "m", skeleton, "-o", "pairs", "--endpoint", fake.url, "--by", "judge"),
            *("--judge-endpoint", fake.url, "--judge", "judge", "--parallel", "1"),
            model=None,
        )
    assert ran.code == 0, ran.err
    pairs = rows_of(tmp_path / "pairs" / "preferences.jsonl")
    exported = start("pairs-start", prompts=0, preferences=tmp_path / "pairs" / "preferences.jsonl")
    assert len(pairs) == 6
    assert rows_of(exported.path / "preferences.jsonl") == pairs
    assert exported.facts["preferences"] == {"rows": 6, "to_write": 0, "left_out": {}}


def test_what_cannot_be_trained_as_rendered_is_left_out_and_counted(
    start: Callable[..., Exported], tmp_path: Path
) -> None:
    asked = [{"role": "user", "content": "Hello"}]
    rows = [
        {"prompt": asked, "chosen": turns("Good\u2028day."), "rejected": turns("No.")},
        {"prompt": asked, "chosen": turns("Good day."), "rejected": None},
        {"prompt": asked, "chosen": turns("No."), "rejected": turns("No.")},
        {"prompt": asked, "chosen": turns("yes " * 300), "rejected": turns("No.")},
        {"prompt": asked, "chosen": turns("<|im_end|>"), "rejected": turns("No.")},
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    exported = start(prompts=0, preferences=path)
    assert rows_of_lines(exported.path) == rows[:1]
    left_out = exported.facts["preferences"]["left_out"]
    assert sum(left_out.values()) == 4
    for reason in ("still to be written", "the same", "max_seq_length = 256", "training would drop it"):
        assert any(reason in why for why in left_out), reason


def rows_of_lines(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "preferences.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{", "no JSON"),
        ('{"prompt": []}', "no chosen, no rejected"),
        ('{"prompt": "Hi", "chosen": "a", "rejected": "b"}', 'prompt: "Hi"'),
        (
            json.dumps({"prompt": [{"role": "user", "content": "x"}], "chosen": turns("a") * 2, "rejected": None}),
            "2 turns",
        ),
        (json.dumps({"prompt": [{"role": "bot", "content": "x"}], "chosen": turns("a"), "rejected": None}), "bot"),
    ],
)
def test_a_line_that_is_no_pair_is_named(start: Callable[..., Exported], tmp_path: Path, line: str, found: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match="no row of preferences") as caught:
        start(preferences=path)
    assert caught.value.where == f"{path}:2"
    assert found in str(caught.value.found)
    assert not (tmp_path / "start").exists()


def test_no_pair_at_all_says_how_to_get_some(start: Callable[..., Exported], tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="No row can be a pair") as caught:
        start(preferences=path)
    assert "tutelage prefer" in str(caught.value.fix)
    with pytest.raises(ConfigError, match="--preferences is not read by --to hf"):
        start(to="hf", preferences=path)


def test_from_python_pairs_go_in_too(trained: Path, start: Callable[..., Exported], tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", rows_of(start(prompts=0).path / "preferences.jsonl"))
    folder = Run(trained).export(tmp_path / "dpo", to="dpo-start", prompts=0, preferences=pairs)
    assert rows_of(folder / "preferences.jsonl") == rows_of(pairs)


@pytest.mark.usefixtures("proof_here")
def test_a_template_that_writes_finished_rows_otherwise_is_refused(
    start: Callable[..., Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The served prompts are the same; DPOTrainer would train other ids."""
    fill = dpo_start.fill_whole_folder

    def damaged(request: ExportRequest, folder: Path) -> dict[str, float]:
        lost = fill(request, folder)
        template = folder / "chat_template.jinja"
        template.write_text(FINISHED_OTHERWISE + template.read_text(encoding="utf-8"), encoding="utf-8")
        return lost

    monkeypatch.setattr(dpo_start, "fill_whole_folder", damaged)
    with pytest.raises(SaveError, match="the template makes other ids"):
        start()
    assert not (tmp_path / "start").exists()


@pytest.mark.nightly
@pytest.mark.timeout(1800)  # its environment is made first
def test_trl_takes_the_folder_unchanged(
    start: Callable[..., Exported], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two steps by its own command, in an environment of its own; without a rejected reply it does not start."""
    waiting = start().path
    pairs = write_pairs(tmp_path / "pairs.jsonl", rows_of(waiting / "preferences.jsonl"))
    folder = start("ready", preferences=pairs).path
    program = environment("trl", TRL, folder=tmp_path_factory.mktemp("environments")) / "trl"
    words = [str(program), "dpo", "--config", "dpo.yaml", "--max_steps", "2", "--logging_steps", "1", "--use_cpu"]
    done = subprocess.run(words, cwd=folder, env=alone(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "'loss': '0.6931'" in done.stdout + done.stderr, "ln 2: the reference is the model that training begins with"
    before, after = (load_file(path / "model.safetensors") for path in (folder, folder / "dpo"))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(before[name].float(), after[name].float())
    refused = subprocess.run(words, cwd=waiting, env=alone(), capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "TypeError" in refused.stderr or "AttributeError" in refused.stderr, "which, the order of a set decides"
    assert not list(waiting.glob("dpo/*.safetensors"))

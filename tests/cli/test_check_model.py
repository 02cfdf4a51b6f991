"""`check` of a model alone, as a person or a program runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tutelage.cli import main

FOREIGN = "{% for m in messages %}{{ '<|turn|>' + m.role + '\\n' + m.content + '<|end_turn|>' }}{% endfor %}"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")

    def run(*words: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["tutelage", "check", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return Ran(int(caught.value.code or 0), out, err)

    return run


def test_findings_are_sentences_with_evidence(run: Callable[..., Ran], tiny_tokenizer_folder: Path) -> None:
    ran = run("--model", tiny_tokenizer_folder)
    assert ran.code == 0
    assert "replies end in <|im_end|>" in ran.out
    assert "info: A system turn is written as a turn of its own. (system_kept)" in ran.out
    assert "seen: after <|im_end|> it writes '\\n'" in ran.out
    assert "0 errors, 0 warnings" in ran.out


def test_the_json_form(run: Callable[..., Ran], tiny_tokenizer_folder: Path) -> None:
    found = json.loads(run("--model", tiny_tokenizer_folder, "--json").out)
    assert list(found) == ["model", "template", "date", "stop_tokens", "findings"]
    assert found["stop_tokens"] == ["<|im_end|>"]
    assert found["date"] == "2026-01-01"
    assert all(list(one) == ["key", "severity", "sentence", "evidence", "fix"] for one in found["findings"])
    assert "weights_not_looked_at" in {one["key"] for one in found["findings"]}


def test_weights_are_looked_at_where_they_are(run: Callable[..., Ran], tiny_model_folder: Path) -> None:
    keys = {load["key"] for load in json.loads(run("--model", tiny_model_folder, "--json").out)["findings"]}
    assert "control_tokens_trained" in keys
    assert "weights_not_looked_at" not in keys


def test_the_loss_is_measured_on_demand(run: Callable[..., Ran], tiny_model_folder: Path) -> None:
    """The tiny model was never trained: it expects no control token anywhere."""
    ran = run("--model", tiny_model_folder, "--measure-loss", "--json")
    found = {load["key"]: load for load in json.loads(ran.out)["findings"]}
    assert "nats per token" in found["control_tokens_unexpected"]["evidence"]
    assert ran.code == 1


def test_an_error_among_the_findings_ends_with_1(
    run: Callable[..., Ran], tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "foreign.jinja"
    path.write_text(FOREIGN, "utf-8")
    ran = run("--model", tiny_tokenizer_folder, "--template", path)
    assert ran.code == 1
    assert "error: The template does not belong to this checkpoint" in ran.out


def test_formats_by_name(run: Callable[..., Ran], tiny_tokenizer_folder: Path) -> None:
    assert "with the format 'chatml'" in run("--model", tiny_tokenizer_folder, "--template", "chatml").out
    ran = run("--model", tiny_tokenizer_folder, "--template", "lama2")
    assert ran.code == 1
    assert "did you mean 'llama2'?" in ran.err


def test_another_tokenizer_is_measured_by_the_models_embedding(
    run: Callable[..., Ran], tiny_model_folder: Path, tiny_tokenizer_folder: Path
) -> None:
    """The tokenizer's folder says 403 rows, the model has 416: no finding, as the model's count is what holds."""
    ran = run("--model", tiny_model_folder, "--tokenizer", tiny_tokenizer_folder, "--json")
    assert "rows_differ" not in {load["key"] for load in json.loads(ran.out)["findings"]}


def test_neither_data_nor_model_is_a_wrong_command_line(run: Callable[..., Ran]) -> None:
    ran = run()
    assert ran.code == 2
    assert "--model" in ran.err


def test_with_data_warnings_stand_above_the_books_and_change_no_status(
    run: Callable[..., Ran], tiny_tokenizer_folder: Path, tmp_path: Path
) -> None:
    rows, template = tmp_path / "rows.jsonl", tmp_path / "dated.jinja"
    said = [{"role": "user", "content": "why"}, {"role": "assistant", "content": "because"}]
    rows.write_text(json.dumps({"messages": said}), "utf-8")
    own = (tiny_tokenizer_folder / "chat_template.jinja").read_text("utf-8")
    template.write_text("{{ strftime_now('%d %b %Y') }}" + own, "utf-8")
    ran = run(rows, "--model", tiny_tokenizer_folder, "--template", template)
    assert ran.code == 0
    assert ran.out.index("warning: The prompt holds today's date") < ran.out.index("1 rows in = 1 kept")
    found = json.loads(run(rows, "--model", tiny_tokenizer_folder, "--template", template, "--json").out)
    assert [one["key"] for one in found["findings"]] == ["date_in_prompt"]


def test_weights_are_read_where_torch_cannot_be_imported(tiny_model_folder: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft', 'safetensors', 'accelerate'): sys.modules[name] = None\n"
        "from tutelage.cli import main\n"
        "main()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2] / "src")}
    command = [sys.executable, "-c", code, "check", "--model", str(tiny_model_folder), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "control_tokens_trained" in {load["key"] for load in json.loads(ran.stdout)["findings"]}

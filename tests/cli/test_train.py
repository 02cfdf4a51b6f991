"""train, evaluate, chat and report as a person types them: words, exit codes, JSON, and Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import equal

from tutelage.cli import main
from tutelage.runs.folder import read_json

Answer = tuple[int, str, str]
Tutelage = Callable[..., Answer]


@pytest.fixture
def tutelage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tutelage:
    """Runs the program in this process; returns exit code, standard output and standard error."""

    def call(*words: str, typed: str = "") -> Answer:
        monkeypatch.setattr(sys, "argv", ["tutelage", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), out, err

    return call


def run_in_process(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["tutelage", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)


@pytest.fixture(scope="module")
def home(tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipe and data, and two finished runs: runs/tiny (LoRA) and runs/whole (full)."""
    folder = tmp_path_factory.mktemp("cli") / "home"
    recipe = str(tiny_recipe(folder))
    with pytest.MonkeyPatch.context() as patch:
        run_in_process(patch, "train", recipe, "train.epochs=6")
        run_in_process(patch, "train", recipe, "name=whole", "model.method=full", "train.epochs=6")
    return folder


def test_train_ends_with_a_screen_of_figures(tutelage: Tutelage, tiny_recipe: Any, tmp_path: Path) -> None:
    code, out, err = tutelage("train", str(tiny_recipe(tmp_path)), "train.max_steps=1", "train.learning_rate=2e-4")

    assert code == 0, err
    for words in ("before", "after", "whole row exact", "valid JSON", "held-out loss", "talk to it", "report.html"):
        assert words in out


def test_train_json_is_the_result_alone(tutelage: Tutelage, tiny_recipe: Any, tmp_path: Path) -> None:
    code, out, err = tutelage("train", str(tiny_recipe(tmp_path)), "train.max_steps=1", "evaluate.task=", "--json")

    assert code == 0, err
    assert json.loads(out) == read_json(tmp_path / "runs" / "tiny" / "result.json")
    assert "Data: 30 rows in" in err


def test_dry_run_loads_and_writes_nothing(tutelage: Tutelage, tiny_recipe: Any, tmp_path: Path) -> None:
    code, out, err = tutelage("train", str(tiny_recipe(tmp_path)), "--dry-run")

    assert code == 0, err
    assert re.search(r"rows +34 in = 34 kept \+ 0 dropped", out)
    assert re.search(r"steps +12 of 8 sequences", out)
    assert "Is this meant? train.learning_rate" in out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("train.learning_rate", "Peak learning rate"), ("lora", "lora.rank"), ("all", "keep_checkpoints")],
)
def test_explain(tutelage: Tutelage, name: str, words: str) -> None:
    code, out, _ = tutelage("train", "--explain", name)

    assert code == 0
    assert words in out


def test_explain_of_a_wrong_name_names_the_right_one(tutelage: Tutelage) -> None:
    code, _, err = tutelage("train", "--explain", "train.learning_rat")

    assert code == 1
    assert "did you mean train.learning_rate?" in err


@pytest.mark.parametrize("words", [["train", "--no-such-flag"], ["no-such-command"], ["chat"], ["evaluate", "--json"]])
def test_a_wrong_command_line_ends_with_2(tutelage: Tutelage, words: list[str]) -> None:
    code, out, err = tutelage(*words)

    assert code == 2
    assert "Traceback" not in out + err


def wrong(*words: str, says: str) -> Any:
    return pytest.param(list(words), says, id=" ".join(words)[:50])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        wrong("train", "no/such/recipe.toml", says="no/such/recipe.toml"),
        wrong("train", says="No recipe given"),
        wrong("train", "RECIPE", "train.learning_rate=nan", says="train.learning_rate"),
        wrong("train", "RECIPE", "train.lr=1", says="did you mean train.learning_rate?"),
        wrong("train", "RECIPE", "model.name=nobody/no-such-model", says="nobody/no-such-model"),
        wrong("train", "RECIPE", "model.name=./nowhere", says="./nowhere"),
        wrong("train", "RECIPE", "data.train=[\"nowhere.jsonl\"]", says="nowhere.jsonl"),
        wrong("train", "RECIPE", "pack.max_seq_length=30", "--strict", says="train.jsonl:1"),
        wrong("train", "RECIPE", "--resume", "HOME/runs/tiny", says="keeps its settings"),
        wrong("train", "--resume", "no/such/run", says="is not a run"),
        wrong("train", "RECIPE", "evaluate.general=[]", "--fail-if-forgets", "0.05", says="set evaluate.general"),
        wrong("evaluate", "no/such/run", says="is not a run"),
        wrong("evaluate", "HOME/runs/tiny", "--fail-if-forgets", "0.1", "--adapter", "a=b", says="contradict"),
        wrong("chat", "no/such/run", "--prompt", "hi", says="is not a run"),
        wrong("chat", "HOME/runs/tiny", "--base", "--compare", says="contradict"),
        wrong("report", "no/such/run", says="is not a run"),
    ],
)  # fmt: skip
def test_errors_end_with_1_and_say_what_to_do(tutelage: Tutelage, home: Path, words: list[str], says: str) -> None:
    given = [word.replace("RECIPE", str(home / "recipe.toml")).replace("HOME", str(home)) for word in words]

    code, out, err = tutelage(*given, *(["name=other"] if "RECIPE" in words and "--resume" not in words else []))

    assert code == 1
    assert "error: " in err
    assert says in err
    assert "do:" in err
    assert "Traceback" not in out + err


def test_a_reply_of_no_tokens_cannot_be_asked_for(tutelage: Tutelage, home: Path) -> None:
    code, out, err = tutelage("chat", str(home / "runs" / "tiny"), "-p", "hi", "--max-new-tokens", "0")

    assert code in (1, 2)
    assert "max-new-tokens" in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("run", ["tiny", "whole"])
def test_evaluate_measures_what_the_run_measured(tutelage: Tutelage, home: Path, run: str) -> None:
    result = json.loads((home / "runs" / run / "result.json").read_text(encoding="utf-8"))
    for side, flags in (("after", []), ("before", ["--base"])):
        code, out, err = tutelage("evaluate", str(home / "runs" / run), "--json", *flags)

        assert code == 0, err
        answer = json.loads(out)
        more = {name: answer.pop(name) for name in ("uncertainty", "losses", "multiple_choice")}
        assert answer == result[side]
        assert more["uncertainty"] == result["uncertainty"], "the other side is what the run measured"
        recorded = result["losses"]["heldout"]["all"]["per_token"]
        assert more["losses"]["heldout"]["all"]["per_token"]["change"] == pytest.approx(recorded["change"])
        kept = json.loads((home / "runs" / run / "evaluation.json").read_text(encoding="utf-8"))
        assert kept["measured"] == side
        assert kept[side] == result[side]
        assert kept["uncertainty"] == more["uncertainty"]


def test_evaluate_prints_a_table(tutelage: Tutelage, home: Path) -> None:
    code, out, err = tutelage("evaluate", str(home / "runs" / "tiny"))

    assert code == 0, err
    assert "measured just now" in " ".join(out.split())
    assert "held-out loss" in out
    assert "Holm's adjustment" in out, "the run's own replies before training are the other side"
    said = " ".join(out.split())
    assert "Loss on held-out rows, nats a token:" in said
    assert "perplexity" in said
    assert "Tokens in replies, the median" in said
    assert max(map(len, out.splitlines())) <= 80


def test_what_forgets_too_much_ends_with_1_and_keeps_its_run(tutelage: Tutelage, home: Path) -> None:
    """Before training replies are plain text, after it they are JSON."""
    general = home / "plain.jsonl"
    rows = [{"prompt": f"Say {word}.", "checks": [{"kind": "plain_text"}]} for word in ("one", "two", "ten", "six")]
    general.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    recipe = (str(home / "recipe.toml"), "name=forgets", "train.epochs=6", f'evaluate.general=["{general}"]')

    code, out, err = tutelage("train", *recipe, "--fail-if-forgets", "0.05")

    assert code == 1
    assert "Forgot too much: the general set lost 100.0 points (limit 5.0 points)" in err
    assert "talk to it" in out, "the run is finished all the same"
    again = ("evaluate", str(home / "runs" / "forgets"), "--fail-if-forgets")
    code, out, err = tutelage(*again, "0.9", "--json")
    assert (code, json.loads(out)["general"], "the point is above the limit" in err) == (1, 0.0, True), err
    code, _, err = tutelage(*again, "1")
    assert (code, "Within the limit" in err) == (0, True), err


def test_report_is_written_again(tutelage: Tutelage, home: Path) -> None:
    page = home / "runs" / "tiny" / "report.html"
    page.unlink()

    code, out, err = tutelage("report", str(home / "runs" / "tiny"))
    assert code == 0, err
    assert str(page) in out.replace("\n", "")
    assert page.stat().st_size > 1000

    code, out, err = tutelage("report", str(home / "runs" / "tiny"), "--json")
    assert code == 0, err
    written = json.loads(out)
    assert written["report"] == str(page)
    assert written["result"]["name"] == "tiny"


def test_chat_answers_one_prompt(tutelage: Tutelage, home: Path) -> None:
    given = ("chat", str(home / "runs" / "tiny"), "--max-new-tokens", "12")
    code, tuned, err = tutelage(*given, "--prompt", "hi")
    assert code == 0, err
    _, base, _ = tutelage(*given, "--prompt", "hi", "--base")

    assert tuned.strip()
    assert base.strip()
    assert tuned != base
    assert "hi" not in tuned.split(), "the question is not repeated"


def test_chat_says_what_evaluation_saw(tutelage: Tutelage, home: Path) -> None:
    """The system prompt of the training rows is used without being asked for."""
    result = json.loads((home / "runs" / "whole" / "result.json").read_text(encoding="utf-8"))

    for example in result["examples"]:
        code, out, err = tutelage(
            "chat", str(home / "runs" / "whole"), "-p", example["prompt"], "--max-new-tokens", "40"
        )
        assert code == 0, err
        assert out.rstrip("\n") == example["after"]


def test_chat_reads_a_pipe_and_remembers(tutelage: Tutelage, home: Path) -> None:
    given = ("chat", str(home / "runs" / "tiny"), "--max-new-tokens", "8", "--system", "")
    code, out, err = tutelage(*given, typed="hello\n\nhello\n/reset\nhello\n/quit\nnever asked\n")

    assert code == 0, err
    replies = out.rstrip("\n").split("\n")
    assert len(replies) == 3
    assert replies[2] == replies[0], "after /reset the same question gets the same answer"


@pytest.mark.parametrize("run", ["tiny", "whole"])
def test_chat_compares_both_models(tutelage: Tutelage, home: Path, run: str) -> None:
    code, out, err = tutelage(
        "chat", str(home / "runs" / run), "--compare", "--prompt", "hello", "--max-new-tokens", "8"
    )

    assert code == 0, err
    assert "base" in out
    assert "tuned" in out
    if run == "tiny":  # the base is the run's model with its adapter switched off, then on again
        _, alone, _ = tutelage("chat", str(home / "runs" / run), "-p", "hello", "--max-new-tokens", "8")
        assert alone.split()[0] in out


def test_a_template_that_refuses_is_a_readable_error(tutelage: Tutelage, tiny_recipe: Any, tmp_path: Path) -> None:
    """Gemma's template knows no system turn: asking with one is the user's mistake, not a crash."""
    recipe = tiny_recipe(tmp_path)
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        encoding="utf-8",
    )
    for name in ("train", "validation", "task"):
        path = tmp_path / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps({"messages": row["messages"][1:]}) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
    code, _, err = tutelage("train", str(recipe), f"render.template={template}", "train.max_steps=1", "evaluate.task=")
    assert code == 0, err

    code, out, err = tutelage("chat", str(tmp_path / "runs" / "tiny"), "-p", "hi", "--system", "Be kind.")

    assert code == 1
    assert "no system turn" in err
    assert "Traceback" not in out + err


def test_evaluate_of_an_unfinished_run_says_how_to_finish(tutelage: Tutelage, home: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    settings = (home / "runs" / "tiny" / "settings.toml").read_text(encoding="utf-8")
    (tmp_path / "half" / "settings.toml").write_text(settings, encoding="utf-8")

    code, _, err = tutelage("evaluate", str(tmp_path / "half"), "--json")

    assert code == 1
    assert f"tutelage train --resume {tmp_path / 'half'}" in err.replace("\n", "")


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "record.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.mark.slow
def test_ctrl_c_then_resume_is_the_uninterrupted_run(tutelage: Tutelage, tiny_recipe: Any, tmp_path: Path) -> None:
    """A real SIGINT to a real process; then `--resume` here must write the same numbers and the same weights."""
    quick = ("train.epochs=60", "train.evaluate_every=1000", "lora.dropout=0.1", "evaluate.task=", "evaluate.general=")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    code, _, err = tutelage("train", str(tiny_recipe(whole)), *quick)
    assert code == 0, err
    expected = losses(whole / "runs" / "tiny")
    assert len(expected) == 180

    process = subprocess.Popen(
        [sys.executable, "-m", "tutelage.cli", "train", str(tiny_recipe(stopped)), *quick],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "300"},
    )
    folder = stopped / "runs" / "tiny"
    record = folder / "record.jsonl"
    deadline = time.monotonic() + 120
    while not (record.is_file() and record.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no step within two minutes"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)

    assert process.returncode == 130, out + err
    assert "SIGINT: finishing this step, then saving" in out
    assert f"Go on with: tutelage train --resume {folder}" in out.replace("\n", "")
    assert "Traceback" not in out + err
    done = len(losses(folder))
    assert 2 <= done < 180

    code, out, err = tutelage("train", "--resume", str(folder))

    assert code == 0, err
    assert losses(folder) == expected
    name = "adapter/adapter_model.safetensors"
    left, right = load_file(folder / name), load_file(whole / "runs" / "tiny" / name)
    assert set(left) == set(right)
    assert all(equal(left[key], right[key]) for key in left)

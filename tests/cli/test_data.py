"""`see` and `check` as a person or a program runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tutelage.cli import main

GOOD = [
    {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}]}
    for n in range(1, 5)
]
SPELLED = {"messages": [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "no"}]}
NO_REPLY = {"messages": [{"role": "user", "content": "anyone?"}]}


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_tokenizer_folder: Path
) -> Callable[..., Ran]:
    """Runs the program in this process, with the tiny model unless another is named."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")

    def run(*words: str | Path, model: Path | None = tiny_tokenizer_folder) -> Ran:
        extra = [] if model is None else ["--model", str(model)]
        monkeypatch.setattr(sys, "argv", ["tutelage", *map(str, words), *extra])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return Ran(int(caught.value.code or 0), out, err)

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    def write(*values: dict[str, Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), "utf-8")
        return path

    return write


class TestSee:
    def test_rows_are_shown_with_their_books(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        path = rows(*GOOD[:2], SPELLED)
        ran = run("see", path)
        assert ran.code == 0
        assert f"{path}:1: " in ran.out
        assert "<|im_start|>assistant\nanswer 2<|im_end|>" in ran.out
        assert f"{path}:3: dropped: control_token_in_text" in ran.out
        assert "3 rows read, 2 proven, 1 dropped" in ran.out

    def test_a_limit_is_kept(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        path = rows(*GOOD, *GOOD)
        assert "5 rows read, 5 proven" in run("see", path).out
        assert "2 rows read, 2 proven" in run("see", path, "-n", "2").out
        assert "8 rows read, 8 proven" in run("see", path, "--all").out

    def test_one_row_at_every_door(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        ran = run("see", rows(*GOOD), "--row", "3")
        assert ran.code == 0
        for door in ("1. the bytes", "2. formats", "3. render", "4. render", "5. pack"):
            assert door in ran.out
        assert "answer 3" in ran.out
        assert "answer 2" not in ran.out

    def test_a_dropped_row_says_why(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        ran = run("see", rows(GOOD[0], NO_REPLY, SPELLED), "--row", "2")
        assert ran.code == 0
        assert "dropped: no_reply" in ran.out
        assert "control_token" not in ran.out

    @pytest.mark.parametrize("number", ["99", "0", "-1"])
    def test_a_row_that_is_not_there(self, run: Callable[..., Ran], rows: Callable[..., Path], number: str) -> None:
        ran = run("see", rows(*GOOD), "--row", number)
        assert ran.code == 1
        assert f"error: There is no row {number}" in ran.err
        assert "4 rows" in ran.err
        assert "do:" in ran.err

    def test_the_first_row_of_a_json_document(self, run: Callable[..., Ran], tmp_path: Path) -> None:
        """`--row` counts from 1 whatever the file is, though list items are addressed from 0."""
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(GOOD), "utf-8")
        first, last = run("see", path, "--row", "1"), run("see", path, "--row", "4")
        assert "answer 1" in first.out
        assert last.code == 0
        assert "answer 4" in last.out

    def test_long_rows_are_counted(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        ran = run("see", rows(*GOOD), "--max-tokens", "10")
        assert "4 rows read, 0 proven, 4 dropped" in ran.out
        assert "too_long" in ran.out


class TestSeeAsJson:
    def test_the_shape_of_every_line(
        self, run: Callable[..., Ran], rows: Callable[..., Path], tiny_tokenizer_folder: Path
    ) -> None:
        transformers = pytest.importorskip("transformers", reason="compares with the transformers library")
        path = rows(GOOD[0], SPELLED, GOOD[1])
        ran = run("see", path, "--json")
        assert (ran.code, ran.err) == (0, "")
        first, dropped, second, summary = ran.lines
        assert list(first) == list(second) == ["address", "example", "ids", "weights", "turns"]
        assert (first["address"], first["example"]) == (f"{path}:1", 0)
        (turn,) = first["turns"]
        assert list(turn) == ["message", "prompt_end", "reply_end"]
        server = transformers.AutoTokenizer.from_pretrained(tiny_tokenizer_folder)
        said = GOOD[0]["messages"]
        prompt = server.apply_chat_template(said[:1], add_generation_prompt=True, tokenize=True)["input_ids"]
        assert turn["message"] == 1
        assert first["ids"][: turn["prompt_end"]] == prompt
        assert server.decode(first["ids"][turn["prompt_end"] : turn["reply_end"]]) == "answer 1<|im_end|>"
        trained = [index for index, weight in enumerate(first["weights"]) if weight]
        assert trained == list(range(turn["prompt_end"], turn["reply_end"]))
        assert len(first["weights"]) == len(first["ids"])
        assert list(dropped) == ["address", "dropped", "detail"]
        assert (dropped["address"], dropped["dropped"]) == (f"{path}:2", "control_token_in_text")
        assert list(summary) == ["summary"]
        books = summary["summary"]
        assert (books["rows_in"], books["rows_kept"], books["rows_dropped"]) == (3, 2, 1)
        assert books["dropped"] == {"control_token_in_text": 1}

    def test_all_rows_unless_told(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        assert len(run("see", rows(*GOOD, *GOOD), "--json").lines) == 9

    def test_a_limit_that_was_given_is_kept(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        lines = run("see", rows(*GOOD, *GOOD), "--json", "-n", "2").lines
        assert [next(iter(line)) for line in lines] == ["address", "address", "summary"]

    def test_a_row_that_was_given_is_the_only_one(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        path = rows(*GOOD)
        lines = run("see", path, "--json", "--row", "3").lines
        assert [line["address"] for line in lines if "ids" in line] == [f"{path}:3"]

    def test_unreadable_lines_are_drops(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        path = rows(*GOOD)
        with path.open("a", encoding="utf-8") as stream:
            stream.write('{"messages": [\n')
        *found, summary = run("see", path, "--json").lines
        assert [line["address"] for line in found if "dropped" in line] == [f"{path}:5"]
        assert sorted(line["address"] for line in found if "ids" in line) == [f"{path}:{n}" for n in range(1, 5)]
        assert summary["summary"]["rows_dropped"] == 1

    def test_nothing_but_drops_is_still_json(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        dropped, summary = run("see", rows(NO_REPLY), "--json").lines
        assert dropped["dropped"] == "no_reply"
        assert summary["summary"]["rows_kept"] == 0


class TestCheck:
    def test_the_books(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        path = rows(*GOOD, SPELLED, NO_REPLY)
        ran = run("check", path)
        assert ran.code == 0
        assert "6 rows in = 4 kept + 2 dropped" in ran.out
        assert "control_token_in_text" in ran.out
        assert f"{path}:6" in ran.out
        assert "4 trained, for 4 trained turns" in ran.out

    def test_as_json(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        ran = run("check", rows(*GOOD, NO_REPLY), "--json")
        (found,) = ran.lines
        assert list(found) == ["ledger", "tokens", "most_alike"]
        assert found["ledger"]["rows_in"] == found["ledger"]["rows_kept"] + found["ledger"]["rows_dropped"] == 5
        tokens = found["tokens"]
        assert (tokens["examples"], tokens["trained_turns"], tokens["trained_stops"]) == (4, 4, 4)
        assert 0 < tokens["trained_tokens"] < tokens["tokens"]
        assert tokens["median_length"] <= tokens["longest"] <= tokens["tokens"]
        assert found["most_alike"] == {}

    def test_splits_are_compared(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        train, test = rows(*GOOD[:2], name="train.jsonl"), rows(*GOOD[1:], name="test.jsonl")
        (found,) = run("check", train, test, "--json").lines
        assert found["most_alike"] == {f"{train} ~ {test}": 1.0}
        assert "near-duplicates: " in run("check", train, test).out

    def test_nothing_to_train_ends_with_1(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        ran = run("check", rows(NO_REPLY, SPELLED))
        assert ran.code == 1
        assert "2 rows in = 0 kept + 2 dropped" in ran.out

    def test_a_recipe_brings_its_files_and_settings(
        self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path, tiny_tokenizer_folder: Path
    ) -> None:
        train, test = rows(*GOOD[:3], name="train.jsonl"), rows(GOOD[3], name="test.jsonl")
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(
            f"""
            name = "mine"
            [model]
            name = {json.dumps(str(tiny_tokenizer_folder))}
            [data]
            train = [{json.dumps(str(train))}]
            [render]
            train_on = "all"
            [evaluate]
            task = [{json.dumps(str(test))}]
            """,
            "utf-8",
        )
        (found,) = run("check", recipe, "--json", model=None).lines
        assert found["ledger"]["rows_kept"] == 4
        assert found["tokens"]["tokens"] - found["tokens"]["trained_tokens"] == 4
        assert list(found["most_alike"]) == ["train ~ task"]
        (short,) = run("check", recipe, "pack.max_tokens=20", "--json", model=None).lines
        assert short["ledger"]["dropped"] == {"too_long": 4}


@pytest.mark.parametrize("command", ["see", "check"])
class TestErrors:
    def test_strict_stops_at_the_first_drop(
        self, run: Callable[..., Ran], rows: Callable[..., Path], command: str
    ) -> None:
        path = rows(GOOD[0], SPELLED, GOOD[1])
        ran = run(command, path, "--strict")
        assert ran.code == 1
        assert "error: A row was dropped and --strict is on (control_token_in_text)" in ran.err
        assert f"{path}:2" in ran.err
        assert run(command, rows(*GOOD), "--strict").code == 0

    def test_an_unknown_format(self, run: Callable[..., Ran], rows: Callable[..., Path], command: str) -> None:
        ran = run(command, rows(*GOOD), "--format", "alpacca")
        assert ran.code == 1
        assert "alpacca" in ran.err
        assert "sharegpt" in ran.err

    @pytest.mark.parametrize("columns", ["prompt", "prompt=", "=question", "prompt=a,response"])
    def test_a_column_map_that_cannot_be_read(
        self, run: Callable[..., Ran], rows: Callable[..., Path], command: str, columns: str
    ) -> None:
        ran = run(command, rows(*GOOD), "--columns", columns)
        assert ran.code == 1
        assert "A column map cannot be read" in ran.err
        assert "--columns prompt=question,response=answer" in ran.err

    @pytest.mark.parametrize("columns", ["promt=question", "promt=question,response=answer"])
    def test_a_field_that_is_not_one(
        self, run: Callable[..., Ran], rows: Callable[..., Path], command: str, columns: str
    ) -> None:
        ran = run(command, rows(*GOOD), "--columns", columns)
        assert ran.code == 1
        assert "nearest: 'prompt'" in ran.err

    def test_columns_are_mapped(self, run: Callable[..., Ran], rows: Callable[..., Path], command: str) -> None:
        path = rows({"q": "why", "a": "because"})
        assert run(command, path, "--columns", "prompt=q,response=a").code == 0
        assert run(command, path, "--columns", "prompt=q", "--columns", "response=a").code == 0

    def test_a_missing_file(self, run: Callable[..., Ran], tmp_path: Path, command: str) -> None:
        ran = run(command, tmp_path / "nowhere.jsonl")
        assert ran.code == 1
        assert "nowhere.jsonl" in ran.err
        assert "Traceback" not in ran.err

    def test_a_missing_model(self, run: Callable[..., Ran], rows: Callable[..., Path], command: str) -> None:
        ran = run(command, rows(*GOOD), model=Path("/nowhere/model"))
        assert ran.code == 1
        assert "There is no model at '/nowhere/model'" in ran.err

    def test_a_missing_template(self, run: Callable[..., Ran], rows: Callable[..., Path], command: str) -> None:
        ran = run(command, rows(*GOOD), "--template", "nowhere.jinja")
        assert ran.code == 1
        assert "The chat template is missing" in ran.err

    def test_a_template_that_does_not_parse(
        self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path, command: str
    ) -> None:
        (tmp_path / "bad.jinja").write_text("\n{% for %}", "utf-8")
        ran = run(command, rows(*GOOD), "--template", tmp_path / "bad.jinja")
        assert ran.code == 1
        assert "bad.jinja, line 2" in ran.err

    def test_a_wrong_command_line_ends_with_2(
        self, run: Callable[..., Ran], rows: Callable[..., Path], command: str
    ) -> None:
        assert run(command, rows(*GOOD), "--roww", "1").code == 2
        assert run(command, model=None).code == 2

    def test_another_tokenizer(
        self, run: Callable[..., Ran], rows: Callable[..., Path], tiny_tokenizer_folder: Path, command: str
    ) -> None:
        assert run(command, rows(*GOOD), "--tokenizer", tiny_tokenizer_folder, model=Path("nowhere/at/all")).code == 0


class TestTorchWall:
    def python(self, code: str, *words: str) -> subprocess.CompletedProcess[str]:
        source = str(Path(__file__).resolve().parents[2] / "src")
        environment = os.environ | {"PYTHONPATH": source}
        command = [sys.executable, "-c", code, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)

    def test_the_rooms_of_data_work_import_no_torch(self) -> None:
        rooms = ("formats", "render", "pack", "curate", "config", "report", "hub", "train.prepare", "cli")
        imports = ", ".join(f"tutelage.{room}" for room in rooms)
        ran = self.python(f"import {imports}; import sys; assert 'torch' not in sys.modules")
        assert ran.returncode == 0, ran.stderr

    @pytest.mark.parametrize("words", [("see",), ("see", "--row", "1"), ("see", "--json"), ("check",)])
    def test_the_commands_work_where_torch_cannot_be_imported(
        self, rows: Callable[..., Path], tiny_tokenizer_folder: Path, words: tuple[str, ...]
    ) -> None:
        code = (
            "import sys\n"
            "for name in ('torch', 'transformers', 'peft', 'safetensors', 'accelerate'): sys.modules[name] = None\n"
            "from tutelage.cli import main\n"
            "main()\n"
        )
        command, *options = words
        ran = self.python(code, command, str(rows(*GOOD)), "--model", str(tiny_tokenizer_folder), *options)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout

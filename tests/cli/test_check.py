"""`see` and `check` as a person or a program runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import GOOD, NO_REPLY, SPELLED, Ran


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
        assert list(found) == ["ledger", "tokens", "most_alike", "findings"]
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
        (short,) = run("check", recipe, "pack.max_seq_length=20", "--json", model=None).lines
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
        rooms = ("formats", "render", "pack", "curate", "config", "report", "system.hub", "builders.dataset", "cli")
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

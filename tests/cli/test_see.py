"""`see` as a person or a program runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import GOOD, NO_REPLY, SPELLED, Ran
from tutelage.formats import row_shapes

SEVERAL = ["(read,", "several", "conversations", "a", "row)"]
CHATGPT = Path(__file__).resolve().parents[1] / "formats/row_shapes/rows/chatgpt_export.jsonl"
SOURCE = Path(__file__).resolve().parents[2] / "src"


class TestSee:
    def test_rows_are_shown_with_their_books(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        path = rows(*GOOD[:2], SPELLED)
        ran = run("see", path)
        assert ran.code == 0
        assert f"{path}:1: " in ran.out
        assert "<|im_start|>assistant\n⟦answer 2<|im_end|>■⟧" in ran.out
        assert f"{path}:3: dropped: control_token_in_text" in ran.out
        assert "3 rows read, 2 proven, 1 dropped" in ran.out

    def test_a_limit_is_kept(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        path = rows(*GOOD, *GOOD)
        assert "5 rows read, 5 proven" in run("see", path).out
        assert "2 rows read, 2 proven" in run("see", path, "-n", "2").out
        assert "8 rows read, 8 proven" in run("see", path, "--all").out

    def test_formats_are_listed_without_data(self, run: Callable[..., Ran]) -> None:
        ran = run("see", "--formats")
        assert ran.code == 0
        lines = ran.out.splitlines()
        assert lines[:2] == ["auto", "alpaca"]
        assert any(line.split() == ["chatgpt_export", *["ChatGPT", "account", "export"], *SEVERAL] for line in lines)
        assert len(lines) == 6 + len(row_shapes())

    def test_trees_are_read_by_the_kept_path_or_by_all(self, run: Callable[..., Ran]) -> None:
        assert "1 rows read" in run("see", CHATGPT).out
        assert "3 rows read, 1 proven" in run("see", CHATGPT, "--tree-paths", "all").out
        refused = run("see", CHATGPT, "--tree-paths", "some")
        assert refused.code != 0
        assert "tree_paths" in refused.err

    def test_one_row_at_every_door(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        ran = run("see", rows(*GOOD), "--row", "3")
        assert ran.code == 0
        for fsdp_root in ("1. the bytes", "2. formats", "3. render", "4. render", "5. pack"):
            assert fsdp_root in ran.out
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
        ran = run("see", rows(*GOOD), "--max-seq-length", "10")
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


class TestShares:
    def test_of_each_row_and_of_all(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        ran = run("see", rows(*GOOD[:2]))
        lines = [line for line in ran.out.splitlines() if line.startswith("tokens by role: ")]
        assert len(lines) == 3
        found = [
            {name: int(count) for name, count in re.findall(r"(\w+) (\d+) \(", line.partition(": ")[2])}
            for line in lines
        ]
        assert set(found[0]) == {"user", "assistant", "template"}
        assert found[2] == {name: found[0][name] + found[1][name] for name in found[0]}
        lengths = [int(one) for one in re.findall(r": (\d+) tokens, ", ran.out)]
        assert [sum(one.values()) for one in found[:2]] == lengths
        assert f"{sum(lengths)} tokens, " in ran.out.splitlines()[-2]

    def test_more_rows_are_pointed_to(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        assert "There may be more rows" in run("see", rows(*GOOD, *GOOD)).out
        assert "There may be more rows" not in run("see", rows(*GOOD)).out


class TestSigns:
    def test_a_pipe_has_signs_and_no_colour(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        out = run("see", rows(GOOD[0])).out
        assert "\x1b" not in out
        assert out.startswith("⟦trained⟧  stop token■  context\n")

    def test_colour_has_no_signs(
        self, run: Callable[..., Ran], rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        out = run("see", rows(GOOD[0])).out
        assert "\x1b[1;32manswer 1" in out
        assert "⟦" not in out

    def test_no_color_is_heeded(
        self, run: Callable[..., Ran], rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("NO_COLOR", "1")
        out = run("see", rows(GOOD[0])).out
        assert "⟦" in out
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", out)

    def test_lines_are_not_folded(
        self, run: Callable[..., Ran], rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = rows({"messages": [{"role": "user", "content": "word " * 90}, {"role": "assistant", "content": "b"}]})
        monkeypatch.setenv("COLUMNS", "30")
        assert "word " * 90 + "<|im_end|>" in run("see", path).out

    def test_a_row_cannot_steer_the_terminal(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        said = "\x1b[2J\x07\u202e"
        path = rows({"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "b"}]})
        for options in ((), ("--tokens",), ("--row", "1")):
            out = run("see", path, *options).out
            assert "‹U+001B›" in out
            assert not set(said[:1] + said[4:]) & set(out), options

    def test_tokens_are_set_apart_with_their_ids(self, run: Callable[..., Ran], rows: Callable[..., Path]) -> None:
        path = rows(GOOD[0])
        (line, _) = run("see", path, "--json").lines
        for options in (("--tokens",), ("--tokens", "--row", "1")):
            shown = run("see", path, *options).out
            assert [int(one) for one in re.findall(r"⟨(\d+)⟩", shown)] == line["ids"], options
        assert "<|im_end|>⟨401⟩■⟧" in run("see", path, "--tokens").out

    def test_an_encoding_that_lacks_letters_is_no_failure(
        self, rows: Callable[..., Path], tiny_tokenizer_folder: Path
    ) -> None:
        path = rows({"messages": [{"role": "user", "content": "é🙂"}, {"role": "assistant", "content": "b"}]})
        command = [sys.executable, "-m", "tutelage.cli", "see", str(path), "--model", str(tiny_tokenizer_folder)]
        environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(SOURCE)}
        ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
        assert ran.returncode == 0, ran.stderr
        assert "\\xe9" in ran.stdout
        assert "[[b<|im_end|>{stop}]]" in ran.stdout


class TestPage:
    def test_a_page_is_written_and_its_size_said(
        self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path
    ) -> None:
        page = tmp_path / "rows.html"
        ran = run("see", rows(*GOOD, SPELLED, NO_REPLY), "--html", page)
        assert ran.code == 0
        size = f"{page.stat().st_size / 1024:.2f}\u00a0KiB"
        assert ran.out == f"{page}: 6 rows (4 kept, 2 dropped), {size}; open it in a browser\n"
        text = page.read_text("utf-8")
        for part in ("6 rows in = 4 kept + 2 dropped", "control_token_in_text", "no_reply", "anyone?"):
            assert part in text

    def test_limits_are_kept(self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path) -> None:
        path, page = rows(*GOOD, *GOOD), tmp_path / "rows.html"
        assert "8 rows (8 kept" in run("see", path, "--html", page).out
        assert "8 rows (8 kept" in run("see", path, "--html", page, "--all").out
        limited = run("see", path, "--html", page, "-n", "3")
        assert "3 rows (3 kept" in limited.out
        assert "There may be more rows than these 3" in limited.out

    @pytest.mark.parametrize("where", ["", "nowhere/rows.html"])
    def test_a_place_where_no_page_can_stand(
        self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path, where: str
    ) -> None:
        ran = run("see", rows(*GOOD), "--html", tmp_path / where)
        assert ran.code == 1
        assert ran.err.startswith("error: The ")
        assert "do:" in ran.err
        assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]

    @pytest.mark.parametrize(
        "options", [("--json", "--html", "a.html"), ("--row", "1", "--html", "a.html"), ("--tokens", "--json")]
    )
    def test_options_that_exclude_one_another(
        self, run: Callable[..., Ran], rows: Callable[..., Path], options: tuple[str, ...]
    ) -> None:
        ran = run("see", rows(*GOOD), *options)
        assert ran.code == 1
        assert "do not go together" in ran.err

    @pytest.mark.parametrize("options", [(), ("--json",), ("--html", "rows.html"), ("--row", "1")])
    @pytest.mark.parametrize(("name", "content"), [("rows.jsonl", ""), ("rows.jsonl", "\n\n"), ("rows.json", "[]")])
    def test_a_file_without_rows(
        self,
        run: Callable[..., Ran],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        options: tuple[str, ...],
        name: str,
        content: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / name).write_text(content, "utf-8")
        ran = run("see", name, *options)
        assert ran.code == 1
        assert name in ran.err
        assert "do:" in ran.err
        assert not (tmp_path / "rows.html").exists()

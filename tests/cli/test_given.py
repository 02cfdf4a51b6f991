"""What the command line is given: names that are no data, pages that are not ours, text that would steer a terminal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import GOOD, Ran
from tutelage.errors import command
from tutelage.report.html.offline import BEGINNING

HOSTILE = "us\x1b[31mer\x9b\u202e"


class TestPages:
    """`--html` writes a new page or over an older one of ours, and over nothing else."""

    def test_b7_the_data_is_not_written_over(self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path):
        path = rows(*GOOD)
        before = path.read_bytes()
        (tmp_path / "link.html").symlink_to(path)
        os.link(path, tmp_path / "hard.html")
        for target in (path, tmp_path / "link.html", tmp_path / "hard.html"):
            ran = run("see", path, "--html", target)
            assert ran.code == 1
            assert "A page would take the place of something that is no page of ours" in ran.err
            assert "do:       give another file" in ran.err
            assert path.read_bytes() == before
        assert (tmp_path / "link.html").is_symlink()

    @pytest.mark.parametrize(
        "content", ["", "notes", "<!DOCTYPE html>\n<html><head><title>mine</title></head></html>", f"mine\n{BEGINNING}"]
    )
    def test_b7_nor_is_any_other_file(
        self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path, content: str
    ):
        target = tmp_path / "other.html"
        target.write_text(content, "utf-8")
        assert run("see", rows(*GOOD), "--html", target).code == 1
        assert target.read_text("utf-8") == content

    def test_b7_nor_what_is_no_file(self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        long = tmp_path / ("x" * 300)
        for target in (
            "/dev/null",
            tmp_path / "pipe",
            tmp_path / "dangling",
            tmp_path,
            long,
            tmp_path / "no" / "x.html",
        ):
            ran = run("see", rows(*GOOD), "--html", target)
            assert (ran.code, ran.out) == (1, ""), target
            assert "do:" in ran.err
        assert not (tmp_path / "nowhere").exists()
        assert Path("/dev/null").is_char_device()

    def test_b7_an_older_page_of_ours_is(self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path):
        page, link = tmp_path / "rows.html", tmp_path / "link.html"
        assert run("see", rows(*GOOD[:1]), "--html", page).code == 0
        first = page.read_text("utf-8")
        assert first.startswith(BEGINNING)
        link.symlink_to(page)
        assert run("see", rows(*GOOD), "--html", link).code == 0
        assert page.read_text("utf-8") != first
        assert link.is_symlink()

    def test_b7_a_file_that_comes_while_rows_are_read_stays(
        self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        from tutelage.cli import see

        target, page_of = tmp_path / "late.html", see._title
        monkeypatch.setattr(see, "_title", lambda names: (target.write_text("mine"), page_of(names))[1])
        assert run("see", rows(*GOOD), "--html", target).code == 1
        assert target.read_text() == "mine"

    def test_b7_the_report_of_a_run_neither(self, run: Callable[..., Ran], tmp_path: Path):
        (tmp_path / "settings.toml").write_text("")
        assert run("report", tmp_path, model=None).code == 0
        assert run("report", tmp_path, model=None).code == 0
        (tmp_path / "report.html").write_text("mine")
        ran = run("report", tmp_path, model=None)
        assert ran.code == 1
        assert "move report.html away" in ran.err
        assert (tmp_path / "report.html").read_text() == "mine"


class TestNames:
    @pytest.mark.parametrize("command_name", ["see", "check"])
    @pytest.mark.parametrize("names", [("",), ("  ",), ("rows.jsonl", "")])
    def test_b25_an_empty_name(self, run: Callable[..., Ran], command_name: str, names: tuple[str, ...]):
        ran = run(command_name, *names)
        assert ran.code == 1
        assert "The name of a data file is empty" in ran.err

    @pytest.mark.parametrize(
        "words",
        [
            ("see", "caf\udce9.jsonl"),
            ("check", "caf\udce9.jsonl"),
            ("train", "x\udcff.toml"),
            ("report", "runs/\udcff"),
            ("chat", "r", "-p", "\udcff"),
        ],
    )
    def test_d10_a_word_that_is_not_utf8(self, run: Callable[..., Ran], words: tuple[str, ...]):
        ran = run(*words, model=None)
        assert ran.code == 1
        assert "A word of the command line is not text in UTF-8" in ran.err
        assert "do:       rename the file" in ran.err
        assert "$'" in ran.err

    @pytest.mark.parametrize(
        "words",
        [
            ("see", "x", "--max-seq-length", "-5"),
            ("check", "x", "--max-seq-length", "1"),
            ("see", "x", "--max-seq-length", "9" * 30),
            ("see", "x", "--limit", "9" * 30),
            ("plan", "--memory-gb", "nan"),
            ("plan", "--memory-gb", "inf"),
            ("plan", "--tokens", "9" * 30),
            ("train", "x", "--processes", "1000000"),
            ("chat", "x", "--max-new-tokens", "9" * 30),
        ],
    )
    def test_b25_numbers_out_of_range(self, run: Callable[..., Ran], words: tuple[str, ...]):
        ran = run(*words, model=None)
        assert ran.code == 2
        assert f"do:       tutelage {words[0]} --help" in ran.err

    def test_b22_a_run_named_by_a_dot(self, run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        folder = tmp_path / "mine"
        (folder / "model").mkdir(parents=True)
        (folder / "settings.toml").write_text("")
        monkeypatch.chdir(folder)
        assert run("report", ".", model=None).code == 0
        assert "<h1>mine</h1>" in (folder / "report.html").read_text("utf-8")
        monkeypatch.chdir(folder / "model")
        assert run("report", "..", model=None).code == 0

    def test_a_checkpoint_that_is_not_there_is_told_first(
        self, run: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        run_folder = tmp_path / "my run"
        (run_folder / "checkpoints" / "step-000004").mkdir(parents=True)
        (run_folder / "settings.toml").write_text(
            '[model]\nname = "nowhere/at/all"\n[data]\ntrain = ["none.jsonl"]\n[train]\n'
        )
        ran = run("train", "--resume", run_folder, "--from", "step-5", model=None)
        assert ran.code == 1
        assert "There is no checkpoint 'step-5'" in ran.err
        assert f"do:       tutelage train --resume '{run_folder}' --from step-000004" in ran.err


class TestShownText:
    def test_b23_brackets_in_paths_and_texts(self, run: Callable[..., Ran], rows: Callable[..., Path], tmp_path: Path):
        (tmp_path / "a[").mkdir()
        for name in ("a[/x].jsonl", "data[bold].jsonl"):
            path = rows(GOOD[0], {"messages": [{"role": "[/red]", "content": "[bold]"}]}, name=name)
            for words in (("see", path), ("check", path), ("see", path, "--row", "1"), ("see", path, "--tokens")):
                ran = run(*words)
                assert ran.code == 0, ran.err
                assert str(path) in ran.out
                assert "[/red]" in ran.out or "--row" in words
            ran = run("check", path, "--strict")
            assert (ran.code, str(path) in ran.err, "[/red]" in ran.err) == (1, True, True)

    def test_b24_nothing_steers_the_terminal(self, run: Callable[..., Ran], rows: Callable[..., Path]):
        said = [{"role": HOSTILE, "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}]
        shown = [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}]
        path = rows({"messages": shown, HOSTILE: 1}, {"messages": said}, {HOSTILE: 1}, name=f"r{HOSTILE}.jsonl")
        options = (("--row", "1"), ("--row", "2"), ("--tokens",), ("--json",), ("--strict",), (f"--{HOSTILE}",),
                   ("--template", HOSTILE), ("--columns", f"prompt={HOSTILE}"), ("--set", HOSTILE))  # fmt: skip
        for words in (
            ("see", path),
            ("check", path),
            ("check", path, "--json"),
            *(("see", path, *option) for option in options),
        ):
            ran = run(*words)
            for steering in ("\x1b", "\x9b", "\u202e"):
                assert steering not in ran.out + ran.err, words
        assert "‹U+001B›" in run("see", path).out

    def test_commands_are_quoted_for_a_shell(self):
        assert command("train", "--resume", Path("runs/quick")) == "tutelage train --resume runs/quick"
        assert command("train", "--resume", "runs/my run") == "tutelage train --resume 'runs/my run'"
        assert command("chat", "a\x1b\n'\\") == r"tutelage chat $'a\x1b\x0a\'\\'"
        assert command("chat", "caf\udce9") == r"tutelage chat $'caf\xe9'"

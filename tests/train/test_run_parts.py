"""The run folder, the record and stop requests."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from tutelage.errors import SaveError, SourceNotFoundError
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.metrics_log import HeldoutRecord, Recorder, StepRecord, read_record
from tutelage.system.seals import sealed_line, unsealed, unsealed_line
from tutelage.train.replay_comparison import RecordedRun, first_different_tensor
from tutelage.train.signals import stop_requests


def a_step(step: int, loss: float = 1.0) -> StepRecord:
    return StepRecord(step, 0.5, loss, 1e-4, 0.3, 100, 40, 900.0, 2.0 * step, 10**8)


def test_what_is_not_a_run_names_the_runs_beside_it(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "settings.toml").write_text("", encoding="utf-8")

    with pytest.raises(SourceNotFoundError, match="is not a run") as caught:
        run_files.existing_run_folder(str(tmp_path / "bad"))

    assert "good" in str(caught.value.found)
    assert run_files.existing_run_folder(str(tmp_path / "good")) == tmp_path / "good"


def test_json_is_whole_or_as_before(tmp_path: Path, files_at_most: Any) -> None:
    path = tmp_path / "result.json"
    run_files.write_json(path, {"one": "é"})

    with files_at_most(200), pytest.raises(SaveError, match=r"result\.json could not be written"):
        run_files.write_json(path, {"many": "x" * 5000})

    assert run_files.read_json(path) == {"one": "é"}


def test_what_stands_in_the_way_of_putting_a_result_aside_is_moved_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / run_files.RESULT).write_text("{}", encoding="utf-8")
    in_the_way = tmp_path / "finished-000012"
    in_the_way.write_text("a note", encoding="utf-8")

    with pytest.raises(SaveError, match="could not be put aside") as caught:
        run_files.move_finished_aside(tmp_path, steps=12)

    assert caught.value.where == str(in_the_way)
    assert str(caught.value.fix).startswith("move it out of the run's folder, then resume: tutelage train --resume")
    in_the_way.rename(tmp_path.parent / f"{tmp_path.name}-note")
    aside = run_files.move_finished_aside(tmp_path, steps=12)
    assert (aside / run_files.RESULT).is_file()


def test_no_error_of_a_resume_asks_for_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / run_files.RESULT).write_text("{}", encoding="utf-8")

    def refused(_source: Path, _target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(run_files.os, "replace", refused)
    with pytest.raises(SaveError) as caught:
        run_files.move_finished_aside(tmp_path, steps=12)
    assert caught.value.fix == "copy the run to another disk, and resume the copy"


def test_the_record_keeps_steps_before_a_resume_and_drops_later_ones(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    first = Recorder(path)
    for step in (1, 2, 3):
        first.write(a_step(step))
    first.write(HeldoutRecord(3, 0.5, 7.0))
    first.close()

    second = Recorder(path, from_step=2)
    second.write(a_step(3, loss=9.0))
    second.close()

    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 1.0), (3, 9.0)]
    assert second.previous_elapsed_seconds == 4.0


def test_a_new_run_begins_an_empty_record(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    path.write_text("old\n", encoding="utf-8")

    recorder = Recorder(path)
    recorder.write(a_step(1, loss=float("nan")))
    recorder.close()

    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["loss"] is None
    assert recorder.previous_elapsed_seconds == 0.0


def test_a_recorder_without_a_file_writes_nothing(tmp_path: Path) -> None:
    """As a second process has; never the null device, which a file that is renamed into place would replace."""
    recorder = Recorder(None, from_step=2)
    recorder.write(a_step(3))
    recorder.close()

    assert recorder.previous_elapsed_seconds == 0.0
    assert list(tmp_path.iterdir()) == []


def test_a_line_cut_by_a_kill_does_not_stop_a_resume(tmp_path: Path) -> None:
    """The process died while it wrote the line of step 3; the checkpoint is that of step 2."""
    path = tmp_path / "record.jsonl"
    first = Recorder(path)
    for step in (1, 2, 3):
        first.write(a_step(step))
    first.close()
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[:-30], encoding="utf-8")

    second = Recorder(path, from_step=2)
    second.close()

    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_stops_at_once(number: signal.Signals) -> None:
    said: list[str] = []
    before = signal.getsignal(number)

    with stop_requests(said.append) as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        assert len(said) == 1
        assert number.name in said[0]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)

    assert signal.getsignal(number) is before


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)

    def fails() -> None:
        with stop_requests(lambda _: None):
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fails()

    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_caught() -> None:
    found: list[bool] = []

    def inside() -> None:
        with stop_requests(lambda _: None) as asked:
            found.append(asked())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()

    assert found == [False]


def test_a_log_file_gets_plain_lines() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=200))

    with screen.training(25, 0) as watch:
        for step in range(1, 26):
            watch(a_step(step))
        watch(HeldoutRecord(25, 0.125, 60.0))
    with screen.counting("Asking", 3) as done:
        done(3)
    with screen.counting("Asking nobody", 0) as done:
        done(0)
    screen.log("[bold]as it is[/bold]")

    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines[:5]] == ["1/25", "10/25", "20/25", "25/25", "25/25"]
    assert lines[4].endswith("held-out loss 0.1250")
    assert lines[5:] == ["Asking: 3", "[bold]as it is[/bold]"]


def test_a_log_file_is_told_now_and_then_how_long_the_rest_takes() -> None:
    out, seconds = io.StringIO(), iter([0.0, 1.0, 31.0, 32.0, 71.0, 200.0])
    screen = Screen(Console(file=out, width=200), clock=lambda: next(seconds))

    with screen.counting("Asking", 1000) as done:
        done(400)  # were there: their time says nothing
        done(1)
        done(59)
        done(1)
        done(39)
        done(500)

    assert out.getvalue().splitlines() == [
        "Asking: 1000",
        "  460/1000, 4\N{NO-BREAK SPACE}min\N{NO-BREAK SPACE}39\N{NO-BREAK SPACE}s left",
        "  500/1000, 8\N{NO-BREAK SPACE}min\N{NO-BREAK SPACE}20\N{NO-BREAK SPACE}s left",
    ]


def test_a_terminal_gets_a_bar() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=160, force_terminal=True, _environ={"TERM": "xterm"}))

    with screen.training(2, 0) as watch:
        watch(HeldoutRecord(1, 0.125, 60.0))
        watch(a_step(1, loss=3.25))
        watch(a_step(2, loss=3.0))
    with screen.counting("Asking", 3) as done:
        done(3)

    assert "loss 3.000  held-out 0.125" in out.getvalue()
    assert "3/3" in out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_bar_shows_all_of_its_numbers(width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, _environ={"TERM": "xterm"})
    with Screen(console).training(1200, 0) as watch:
        watch(HeldoutRecord(1, 6.194, 60.0))
        watch(a_step(2, loss=6.089))
    assert "2/1200 loss 6.089  held-out 6.194" in out.getvalue()
    assert "…" not in out.getvalue()


@pytest.mark.parametrize(("width", "terminal"), [(80, "dumb"), (40, "xterm")])
def test_a_terminal_that_no_bar_can_be_drawn_on_gets_lines(width: int, terminal: str) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, _environ={"TERM": terminal})
    with Screen(console).training(2, 0) as watch:
        watch(a_step(1, loss=3.25))
        assert "step 1/2  loss 3.2500" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_b11_a_damaged_line_alone_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    first = Recorder(path)
    for step in (1, 2, 3, 4):
        first.write(a_step(step))
    first.close()
    lines = path.read_bytes().split(b"\n")
    for damage in (lines[2][:40], b"5", b'{"a":1}', b"\xff", b"", lines[2].replace(b'"loss": 1.0', b'"loss": 3.0')):
        path.write_bytes(b"\n".join([*lines[:2], damage, *lines[3:]]))
        said: list[str] = []

        second = Recorder(path, from_step=4, log=said.append)
        second.close()

        kept, damaged = read_record(path)
        assert [one["step"] for one in kept] == [1, 2, 4]
        assert damaged == []
        assert said == ["  note: record.jsonl, line 3: other bytes than were written; it is left out"]


@pytest.mark.parametrize(
    ("order", "wrong"),
    [
        ((0, 2, 3, 4), ["record.jsonl, line 2: 1 line before it is gone"]),
        ((2, 3, 4), ["record.jsonl, line 1: 2 lines before it are gone"]),
        (
            (0, 2, 4),
            ["record.jsonl, line 2: 1 line before it is gone", "record.jsonl, line 3: 1 line before it is gone"],
        ),
        ((0, 1, 1, 2, 3, 4), ["record.jsonl, line 3: it is not in its place"]),
        ((0, 1, 2, 3, 4), []),
    ],
)
def test_b11_a_whole_line_taken_out_moved_or_doubled_is_noticed(
    tmp_path: Path, order: tuple[int, ...], wrong: list[str]
) -> None:
    path = tmp_path / "record.jsonl"
    first = Recorder(path)
    for step in (1, 2, 3, 4, 5):
        first.write(a_step(step))
    first.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[place] for place in order))

    assert read_record(path)[1] == wrong
    said: list[str] = []
    Recorder(path, from_step=5, log=said.append).close()

    assert said == [f"  note: {one}" for one in wrong]
    kept, damaged = read_record(path)
    assert [one["step"] for one in kept] == [place + 1 for place in order]
    assert damaged == [], "it is said once"


def test_b11_lines_taken_from_the_end_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    first = Recorder(path)
    for step in (1, 2, 3):
        first.write(a_step(step))
    first.close()
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    said: list[str] = []

    Recorder(path, from_step=3, log=said.append).close()

    assert said == ["  note: record.jsonl: its last step is 1, and the run had taken 3"]


def test_b20_each_flipped_bit_of_a_line_and_of_a_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "stopped.json"
    run_files.write_json(path, {"step": 12, "reason": "not_finite", "loss": None})
    line = sealed_line({"step": 1, "loss": 2.5, "elapsed_seconds": 1.0}).encode()
    for data, read in ((path.read_bytes(), unsealed), (line, unsealed_line)):
        assert read(data)["step"] in (1, 12)
        for place in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[place // 8] ^= 1 << place % 8
            with pytest.raises(ValueError, match="other bytes"):
                read(bytes(flipped))


@pytest.mark.parametrize(("now", "alike"), [(2.463499, True), (2.4650, True), (2.48, False)])
def test_b18_norms_of_another_number_of_processes_are_alike_to_a_thousandth(now: float, alike: bool) -> None:
    recorded = RecordedRun(
        Path(), True, {("loss", 1): asdict(replace(a_step(1), gradient_norm=2.463532))}, tolerance=1e-5
    )

    recorded.compare(replace(a_step(1), gradient_norm=now))

    assert (recorded.difference is None) == alike


def test_b18_one_process_is_still_compared_to_the_last_bit() -> None:
    recorded = RecordedRun(Path(), True, {("loss", 1): asdict(replace(a_step(1), gradient_norm=2.463532))})

    recorded.compare(replace(a_step(1), gradient_norm=2.4635321))

    assert recorded.difference is not None


def test_b18_a_nan_in_the_weights_equals_itself(tmp_path: Path) -> None:
    weights = {"a": torch.tensor([1.0, float("nan")]), "b": torch.tensor(float("nan"))}
    for name in ("then", "now"):
        (tmp_path / name).mkdir()
        save_file(weights, tmp_path / name / "w.safetensors")
    assert first_different_tensor(tmp_path / "then", tmp_path / "now") is None

    save_file(weights | {"a": torch.tensor([float("nan"), 1.0])}, tmp_path / "now" / "w.safetensors")

    assert str(first_different_tensor(tmp_path / "then", tmp_path / "now")).startswith("w.safetensors, a: ")

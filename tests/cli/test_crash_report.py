"""No traceback reaches a user: a fault ends in one line, a report without secrets, and a status of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import GOOD, Ran
from tutelage.cli import app, train
from tutelage.cli.crash import HIDDEN, report_text
from tutelage.cli.outlet import Outlet, OutputEndedError
from tutelage.errors import SaveError
from tutelage.report.console.result import final_facts

SOURCE = str(Path(__file__).resolve().parents[2] / "src")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - of any kind
        return caught


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[BaseException], None]:
    """Has `report` meet an error that nothing foresees; reports land below `tmp_path`."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))

    def crash(error: BaseException) -> None:
        def fail(_name: str) -> None:
            raise error

        monkeypatch.setattr("tutelage.runs.folder.existing_run_folder", fail)

    return crash


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TypeError("of \x1b[31mred\nand more"), "A fault of tutelage itself (TypeError)"),
        (MemoryError(), "Memory ran out"),
        (RecursionError("maximum recursion depth exceeded"), "Something is nested too deep"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "(UnicodeEncodeError)"),
        (BaseException("as a panic in Rust is"), "(BaseException)"),
    ],
)
def test_item7_a_fault_ends_in_a_report(
    run: Callable[..., Ran], crashes: Callable[[BaseException], None], tmp_path: Path, error: BaseException, words: str
):
    crashes(error)
    ran = run("report", "runs/none", model=None)
    assert ran.code == 70
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert "\x1b" not in ran.err
    (report,) = (tmp_path / "crashes").iterdir()
    assert str(report) in ran.err
    assert "do:       read the report, then attach it to an issue" in ran.err
    text = report.read_text("utf-8")
    assert "command:  tutelage report runs/none" in text
    assert type(error).__name__ in text
    assert "in existing_run_folder" not in text  # the fault came of the test's own function
    assert "in fail" in text
    assert "\x1b" not in text
    assert report.stat().st_mode & 0o077 == 0


def test_item7_a_report_that_cannot_be_written_is_no_traceback_either(
    run: Callable[..., Ran], crashes: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    crashes(TypeError("x"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    ran = run("report", "runs/none", model=None)
    assert ran.code == 70
    assert "could not be written" in ran.err


def test_item7_what_a_report_leaves_out():
    secrets = {
        "HF_TOKEN": "hf_abcdefghijklmnop",
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "MY_DATABASE_PASSWORD": "correct horse battery",
    }
    error = raised(
        ValueError("refused: password=hunter22222, https://me:sesame@host/x, api_key: 'abc', correct horse battery")
    )
    arguments = [
        "train",
        "r.toml",
        "render.template_arguments.api_key=s3cr3t",
        "--hub-token",
        "tok-1",
        "pack.max_seq_length=256",
    ]
    text = report_text(error, [*arguments, "Authorization: Bearer qwertz", "hf_abcdefghijklmnop"], secrets)
    for secret in (*secrets.values(), "hunter22222", "me:sesame", "'abc'", "s3cr3t", "tok-1", "qwertz"):
        assert secret not in text, secret
    assert HIDDEN in text
    assert "pack.max_seq_length=256" in text
    assert "HF_TOKEN" not in text
    assert "versions: tutelage " in text
    assert "test_crash_report.py" in text


def test_item7_causes_stand_in_the_report():
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as caught:
        text = report_text(caught, [], {})
    assert text.index("ValueError: outer") < text.index("which came of:") < text.index("KeyError: 'inner'")


@pytest.mark.parametrize(
    ("number", "words"),
    [(13, "give this user the right to it"), (28, "free some space"), (36, "use a shorter name"), (40, "in a circle")],
)
def test_item7_what_the_system_refuses_is_no_fault_of_ours(
    run: Callable[..., Ran], crashes: Callable[[BaseException], None], tmp_path: Path, number: int, words: str
):
    crashes(OSError(number, os.strerror(number), "some/file"))
    ran = run("report", "runs/none", model=None)
    assert ran.code == 1
    assert "where:    some/file" in ran.err
    assert f"found:    {os.strerror(number)}" in ran.err
    assert words in ran.err
    assert not (tmp_path / "crashes").exists()


def test_item7_other_errors_of_the_system_are(run: Callable[..., Ran], crashes: Callable[[BaseException], None]):
    crashes(FileNotFoundError(2, "No such file or directory", "some/file"))
    assert run("report", "runs/none", model=None).code == 70


def test_item7_a_report_that_fails_itself_is_no_traceback(
    run: Callable[..., Ran], crashes: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
):
    def fail() -> None:
        raise ModuleNotFoundError("No module named 'email.parser'")

    monkeypatch.setattr("tutelage.cli.crash.versions", fail)
    crashes(TypeError("first"))
    ran = run("report", "runs/none", model=None)
    assert ran.code == 70
    assert "found:    first" in ran.err
    assert "could not be written (No module named 'email.parser')" in ran.err


def test_item7_ctrl_c_is_one_line(run: Callable[..., Ran], crashes: Callable[[BaseException], None]):
    crashes(KeyboardInterrupt())
    ran = run("report", "runs/none", model=None)
    assert (ran.code, ran.err) == (130, "stopped\n")


def test_wrong_command_lines_say_what_to_do_and_steer_nothing(run: Callable[..., Ran]):
    ran = run("see", "--ro\x1b[31mw", model=None)
    assert ran.code == 2
    assert "do:       tutelage see --help" in ran.err
    assert "\x1b" not in ran.err
    assert run("nothing", model=None).code == 2
    assert "Usage" in run(model=None).out


def program_in_a_shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which `tutelage` is this source."""
    named = f"tutelage() {{ '{sys.executable}' -m tutelage \"$@\"; }}; {command}"
    variables = os.environ | {"PYTHONPATH": SOURCE} | environment
    return subprocess.run(
        ["bash", "-c", named], capture_output=True, text=True, check=False, env=variables, timeout=120
    )


class TestOutput:
    @pytest.mark.parametrize(
        ("command", "status", "words"),
        [
            ("train --explain all | head -1; exit ${PIPESTATUS[0]}", 0, ""),
            ("train --explain all > /dev/full", 1, "error: The output could not be written"),
            ("train --explain all >&-", 0, ""),
            ("--version > /dev/full", 1, "error: The output could not be written"),
            ("train --explain nothing 2>&-", 1, ""),
            ("train --explain seed <&- >&- 2>&-", 0, ""),
        ],
    )
    def test_item7_nobody_reads_it(self, command: str, status: int, words: str):
        ran = program_in_a_shell(f"tutelage {command}")
        assert ran.returncode == status, ran.stderr
        assert "Traceback" not in ran.stderr
        assert "Exception ignored" not in ran.stderr
        assert ran.stderr.startswith(words)
        if not words:
            assert ran.stderr == ""

    def test_item7_json_that_nobody_reads_ends_with_0(self, rows: Callable[..., Path], tiny_tokenizer_folder: Path):
        path = rows(*(GOOD * 200))
        ran = program_in_a_shell(
            f"tutelage see --json '{path}' --model '{tiny_tokenizer_folder}' | head -1 > /dev/null; "
            "exit ${PIPESTATUS[0]}"
        )
        assert (ran.returncode, ran.stderr) == (0, "")

    def test_item7_an_ascii_output_has_all_of_it(self, rows: Callable[..., Path], tiny_tokenizer_folder: Path):
        said = {"messages": [{"role": "user", "content": "é"}, {"role": "dömon", "content": "x"}]}
        path = rows(*GOOD, said)
        words = f"'{path}' --model '{tiny_tokenizer_folder}'"
        ran = program_in_a_shell(f"tutelage check {words} && tutelage see --json {words}", PYTHONIOENCODING="ascii")
        assert ran.returncode == 0, ran.stderr
        assert "d\\xf6mon" in ran.stdout
        assert "d\\u00f6mon" in ran.stdout.splitlines()[-2]

    def test_training_outlives_its_output(self, capsys: pytest.CaptureFixture[str]):
        class Broken(io.StringIO):
            def __init__(self, error: Exception) -> None:
                super().__init__()
                self.error, self.writes = error, 0

            def write(self, text: str) -> int:
                self.writes += 1
                raise self.error

        gone, full = BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")
        reasons = {gone: "nobody reads it", full: full.strerror, OutputEndedError(): "nobody reads it"}
        for error, reason in reasons.items():
            below = Broken(error)
            lasting = Outlet(below, lasting=True)
            lasting.write("step 1")
            lasting.write("step 2")
            lasting.flush()
            assert below.writes == 1
            assert f"({reason}); the work goes on" in capsys.readouterr().err
        with pytest.raises(OutputEndedError):
            Outlet(Broken(BrokenPipeError(32, "Broken pipe"))).write("x")
        with pytest.raises(SaveError, match="could not be written"):
            Outlet(Broken(OSError(28, "No space left on device"))).write("x")


@pytest.mark.parametrize("wait_seconds", [0.15, 0.7, 1.6])
def test_item7_ctrl_c_at_any_moment(tmp_path: Path, tiny_tokenizer_folder: Path, wait_seconds: float):
    """While Python imports, while the program does, while it proves more rows than the test waits for."""
    row = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n" * 200_000, encoding="utf-8")
    words = ["see", str(tmp_path / "rows.jsonl"), "--all", "--model", str(tiny_tokenizer_folder)]
    # A shell without job control starts what runs beside it with Ctrl-C ignored, and a child inherits that.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = heard + "from tutelage.__main__ import program; print('up', flush=True); program()"
    begun = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": SOURCE},
    )
    assert begun.stdout is not None
    assert begun.stdout.readline() == "up\n"
    time.sleep(wait_seconds)
    begun.send_signal(signal.SIGINT)
    _, err = begun.communicate(timeout=60)
    assert (begun.returncode, err) == (130, "stopped\n")


def test_only_one_place_writes_to_the_terminal():
    """What makes texts printable is of use only where everything goes through it."""
    own = {"report/console/terminal.py", "cli/outlet.py", "cli/crash.py", "distributed/failure.py"}
    for path in sorted((Path(SOURCE) / "tutelage").rglob("*.py")):
        name, text = str(path.relative_to(Path(SOURCE) / "tutelage")), path.read_text("utf-8")
        if name not in own:
            assert "Console(" not in text, name
            assert "sys.stdout.write(" not in text, name
            assert "sys.stderr.write(" not in text, name
    assert app.Terminal.__module__ == "tutelage.report.console.terminal"


def test_item7_a_fault_in_a_thread_is_told_in_the_same_way(tmp_path: Path):
    code = (
        "import threading; from tutelage.cli.crash import take_over; take_over()\n"
        "def fail(): raise TypeError('of a thread')\n"
        "class Late:\n    def __del__(self): raise TypeError('of nobody')\n"
        "one = threading.Thread(target=fail); one.start(); one.join(); Late()\n"
    )
    variables = os.environ | {"PYTHONPATH": SOURCE, "TUTELAGE_CACHE": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=variables)
    assert "Traceback" not in ran.stderr
    assert "found:    of a thread" in ran.stderr
    assert "found:    of nobody" in ran.stderr
    assert len(list((tmp_path / "crashes").iterdir())) == 2


def test_r29_a_librarys_warning_is_one_line_told_once(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def warn(_name: str) -> None:
        for _ in range(2):
            warnings.warn_explicit("pairs\n \x1b[31mdiffer", UserWarning, "/lib/peft/tuners/layer.py", 12)
        raise SaveError("the end")

    monkeypatch.setattr("tutelage.runs.folder.existing_run_folder", warn)
    monkeypatch.delenv("RANK", raising=False)
    ran = run("report", "x", model=None)
    assert ran.err == "note, from peft: pairs ‹U+001B›[31mdiffer\nerror: the end\n"


def test_r29_the_program_is_named_as_it_can_be_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "tutelage" / "__main__.py"), "train", "--processes", "2"])
    monkeypatch.setattr(sys, "executable", "/my python/bin/python")
    assert train._program() == "'/my python/bin/python' -m tutelage"
    begun_as = tmp_path / "my bin" / "tutelage"
    begun_as.parent.mkdir()
    begun_as.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(begun_as), "train"])
    assert train._program() == f"'{begun_as}'"
    monkeypatch.setenv("PATH", str(begun_as.parent))
    assert train._program() == "tutelage"


def test_what_a_run_says_in_the_end_is_never_folded(tmp_path: Path):
    folder = tmp_path / ("a long name " * 12)
    facts = {"tokens_per_second": 1.0, "peak_bytes": 1, "trained_tokens": 1, "total_tokens": 2, "elapsed_seconds": 1.0}
    out = io.StringIO()
    for line in final_facts({**facts, "dropped": {}}, folder, program="tutelage"):
        app.Terminal(file=out).print(line, soft_wrap=True)
    assert f"tutelage chat '{folder}' --compare\n" in out.getvalue()

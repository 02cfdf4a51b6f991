"""Code of replies in the sandbox: what it cannot do there, what it can, and how it ended.

The system must let this user make namespaces; where it does not, the tests of isolation are skipped with its words.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
from pathlib import Path

import pytest

from tutelage.errors import EngineError
from tutelage.evaluate.checkers import sandbox
from tutelage.evaluate.checkers.code import code_in, run_reply
from tutelage.evaluate.checkers.sandbox import CodeRun, Limits, run_code, why_not_isolated

HUMANEVAL = Path(__file__).resolve().parents[3].parent / "shared/material/data/humaneval.jsonl.gz"
NOT_ISOLATED = why_not_isolated()
isolates = pytest.mark.skipif(NOT_ISOLATED is not None, reason=f"the system does not isolate: {NOT_ISOLATED}")
either_way = pytest.mark.parametrize("isolated", [pytest.param(True, marks=isolates), False])
WRITE = "import pathlib, tempfile; pathlib.Path(tempfile.mkstemp()[1]).write_text('x' * 9999)"


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("Here:\n```python\nx = 1\n```\nand\n```python\ny\n```", "x = 1\n"),
        ("```py\nx = 1", "x = 1"),
        ("```sh\nls\n```\n```Python3\nx = 1\n```", "x = 1\n"),
        ("x = 1", "x = 1"),
        ("```\nx = 1\n```", "```\nx = 1\n```"),
    ],
)
def test_the_first_block_of_python_is_the_code(reply: str, code: str) -> None:
    assert code_in(reply) == code


@either_way
def test_tests_see_the_names_of_the_reply(isolated: bool) -> None:
    reply = "```python\ndef double(x):\n    return 2 * x\n```"

    assert run_reply(reply, "assert double(2) == 4", isolated=isolated) == CodeRun("finished")
    wrong = run_reply(reply, "assert double(2) == 5", isolated=isolated)
    assert wrong.ending == "failed"
    assert wrong.output.endswith("AssertionError")


@either_way
@pytest.mark.parametrize(
    "reply",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "raise SystemExit",
        "x = (",
        "input()",
        "x = '\udc80'",
        "import os\nos.kill(os.getpid(), 9)",
        "def f(): return f()\nf()",
    ],
)
def test_code_that_does_not_reach_the_end_of_the_tests_has_not_passed(reply: str, isolated: bool) -> None:
    assert run_code(reply, "", isolated=isolated).ending == "failed"


@either_way
def test_a_main_block_does_not_run(isolated: bool) -> None:
    assert run_code("if __name__ == '__main__':\n    input()", "", isolated=isolated).ending == "finished"


@either_way
@pytest.mark.parametrize(
    ("reply", "ending"),
    [
        ("import time\ntime.sleep(60)", "time"),
        ("while True: print('x' * 1000)", "output"),
        ("import os, time\nfor _ in range(30):\n    if os.fork() == 0: break\ntime.sleep(20)", "processes"),
    ],
)
def test_without_end(reply: str, ending: str, isolated: bool) -> None:
    limits = Limits(wall_seconds=5 if ending != "time" else 0.3, processes=8)

    assert run_code(reply, "", limits=limits, isolated=isolated).ending == ending


@either_way
def test_a_loop_ends_at_its_time_of_the_processor(isolated: bool) -> None:
    limits = Limits(wall_seconds=30, cpu_seconds=1)

    assert run_code("while True: pass", "", limits=limits, isolated=isolated).ending == "cpu time"


@either_way
def test_memory_and_files_are_bounded(isolated: bool) -> None:
    memory = run_code("x = bytearray(1 << 30)", "", limits=Limits(memory_bytes=1 << 28), isolated=isolated)
    assert (memory.ending, memory.output.endswith("MemoryError")) == ("failed", True)
    large = run_code(WRITE, "", limits=Limits(file_bytes=1024), isolated=isolated)
    assert (large.ending, "File too large" in large.output) == ("failed", True)


@either_way
def test_nothing_is_left_of_processes_that_leave_their_group(isolated: bool) -> None:
    reply = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    os.fork() or time.sleep(99)\n    os._exit(0)"

    assert run_code(reply, "", isolated=isolated).ending == "finished"

    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.is_file()]
    assert not [command for command in commands if sandbox.sandbox_child.RUNNER.encode() in command]


@isolates
def test_there_is_no_network_not_even_this_machine() -> None:
    """A server that listens here, on all addresses, is out of reach; with only the limits it is not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        reply = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=2)"
        inside, outside = run_code(reply, ""), run_code(reply, "", isolated=False)

    assert (inside.ending, "unreachable" in inside.output) == ("failed", True)
    assert outside.ending == "finished"


@isolates
def test_nothing_can_be_written_but_in_the_folder_of_memory(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    home = Path.home() / f".tutelage-code-{os.getpid()}"
    for path in (home, Path("/var/tmp/tutelage-code")):
        ended = run_code(f"open({str(path)!r}, 'w')", "")
        assert (ended.ending, "Read-only file system" in ended.output or "Permission" in ended.output) == (
            "failed",
            True,
        ), ended
        assert not path.exists()
    assert run_code(f"open({outside.name!r}, 'w').write('x')", "").ending == "finished"
    assert not outside.exists()
    filled = run_code(f"for _ in range(99):\n    {WRITE}", "", limits=Limits(work_bytes=200_000))
    assert "No space left" in filled.output


@isolates
def test_the_rights_are_gone_and_cannot_be_won_back() -> None:
    reply = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
effective = next(line for line in open("/proc/self/status") if line.startswith("CapEff"))
assert int(effective.split()[1], 16) == 0, effective
assert libc.mount(None, b"/", None, 32 | 4096, None) == -1  # writable again
libc.unshare(0x10000000 | 0x00020000)  # a namespace below this one
assert libc.mount(None, b"/", None, 32 | 4096, None) == -1
try:
    open("/var/tmp/tutelage-code", "w")
except OSError:
    pass
else:
    raise AssertionError("written")
"""
    assert run_code(reply, "") == CodeRun("finished")


@isolates
def test_neither_processes_nor_secrets_of_this_one_are_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET_TOKEN", "s3cr3t")
    reply = f"""
import os
assert "A_SECRET_TOKEN" not in os.environ
try:
    text = open("/proc/{os.getpid()}/environ").read()
except OSError:
    text = ""
assert "s3cr3t" not in text
try:
    os.kill({os.getpid()}, 0)
except ProcessLookupError:
    pass
else:
    raise AssertionError("seen")
assert os.listdir("/run") == []
"""
    assert run_code(reply, "") == CodeRun("finished")


@isolates
def test_what_is_not_protected_is_reading(tmp_path: Path) -> None:
    """Said in the docs: code can read what this user can read, and the result may hold it."""
    readable = Path(__file__)

    assert run_code(f"assert 'what_is_not_protected' in open({str(readable)!r}).read()", "").ending == "finished"


def test_a_system_that_refuses_is_an_error_and_never_a_run_without(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = {"not_isolated": "new namespaces: Operation not permitted"}
    monkeypatch.setattr(sandbox, "_supervised", lambda *_: (refusing, b"", None))

    with pytest.raises(EngineError, match="cannot be run apart") as caught:
        run_code("", "")

    assert caught.value.found == "new namespaces: Operation not permitted"
    assert "evaluate.unisolated_code" in (caught.value.fix or "")


@isolates
@pytest.mark.skipif(not HUMANEVAL.is_file(), reason="the collection of published files is not here")
def test_solutions_of_humaneval_pass_and_others_do_not() -> None:
    rows = [json.loads(line) for line in gzip.decompress(HUMANEVAL.read_bytes()).splitlines()]
    assert len(rows) == 164
    for row in rows[::30]:
        tests = f"{row['test']}\ncheck({row['entry_point']})"
        assert run_reply(f"```python\n{row['prompt']}{row['canonical_solution']}```", tests).ending == "finished"
        assert run_reply(f"```python\n{row['prompt']}    return None\n```", tests).ending == "failed"

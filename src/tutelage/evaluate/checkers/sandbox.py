"""Code from a reply and its row's tests, run apart: what it may use, how it ended, whether it can be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Any, Literal

from tutelage.errors import EngineError
from tutelage.evaluate.checkers import sandbox_child

MOST_OUTPUT_BYTES = 1 << 20
TOLD_CHARACTERS = 200

Ending = Literal["finished", "failed", "time", "cpu time", "processes", "output"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What code may use. Our choice: many times what the problems of HumanEval need.

    Attributes:
        wall_seconds: from its start to its end.
        cpu_seconds: of each of its processes.
        memory_bytes: of address space, of each of its processes.
        file_bytes: of each file it writes.
        work_bytes: of all files it writes, which stand in memory; where it is isolated.
        processes: at once.
        open_files: of each process.
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 5
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20
    work_bytes: int = 64 << 20
    processes: int = 16
    open_files: int = 128


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class CodeRun:
    """How code ended: only "finished" has run to the end of its tests. `output` is the end of what it printed."""

    ending: Ending
    output: str = ""


def run_code(reply: str, tests: str, *, limits: Limits = DEFAULT_LIMITS, isolated: bool = True) -> CodeRun:
    """Run Python code, then tests that see its names, in processes of their own.

    Isolated, the code has: no network, not even this machine's; a file system that can be read and not written, but
    for a folder in memory; no device but null, zero and random; none of the other processes; no rights; no variable of
    this environment. It can read what this user can read. That holds back code that models write; against code written
    to break out of a Linux namespace use a virtual machine.

    Args:
        reply: Python.
        tests: Python, run behind it in the same module; an assertion that fails is what a test is for.
        limits: what both may use.
        isolated: False leaves out all but the limits: the code can write and reach what this user can.

    Raises:
        EngineError: the system does not permit the isolation.
    """
    with tempfile.TemporaryDirectory(prefix="tutelage-code-") as folder:
        job = {**asdict(limits), "reply": reply, "tests": tests, "isolated": isolated, "work": folder}
        report, output, ending = _supervised(json.dumps(job).encode(), limits)
    told = output.decode("utf-8", errors="replace").strip()[-TOLD_CHARACTERS:]
    if ending is not None:
        return CodeRun(ending, told)
    if "not_isolated" in report:
        raise EngineError(
            "Code from replies cannot be run apart from this system here",
            where="checks of the kind code",
            found=report["not_isolated"],
            expected="Linux 5.12 or newer that lets this user make namespaces; containers often do not",
            fix="set evaluate.unisolated_code = true where this machine has nothing to lose, or leave these checks out",
        )
    return CodeRun(_ending(report), told)


@lru_cache(maxsize=1)  # an answer of the system, which does not change
def why_not_isolated() -> str | None:
    """What keeps code from being isolated here; None where nothing does."""
    if sys.platform != "linux":
        return f"{sys.platform} has no namespaces"
    try:
        ended = run_code("", "")
    except EngineError as error:
        return error.found
    return None if ended.ending == "finished" else f"an empty program ended so: {ended.ending} {ended.output}"


def _ending(report: dict[str, Any]) -> Ending:
    reasons: dict[str | None, Ending] = {"time": "time", "processes": "processes"}
    if report.get("reason") in reasons:
        return reasons[report["reason"]]
    if report.get("code") == 128 + signal.SIGXCPU:
        return "cpu time"
    return "finished" if report.get("code") == sandbox_child.FINISHED else "failed"


def _supervised(sent: bytes, limits: Limits) -> tuple[dict[str, Any], bytes, Ending | None]:
    """The child's report, the end of the output, and how it ended where that is not in the report."""
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(  # noqa: S603  our own file, by the interpreter that runs now
        [sys.executable, "-I", "-B", str(Path(sandbox_child.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd="/",
        start_new_session=True,
    ) as child:
        assert child.stdin is not None
        try:
            child.stdin.write(sent)
            child.stdin.close()
            texts, ending = _read(child, time.monotonic() + limits.wall_seconds + 5)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    return json.loads(texts[0]) if texts[0] and ending is None else {}, texts[1], ending


def _read(child: subprocess.Popen[bytes], deadline: float) -> tuple[tuple[bytes, bytes], Ending | None]:
    """What stands on standard output and error; and why they were not read to their ends."""
    texts: dict[Any, bytearray] = {child.stdout: bytearray(), child.stderr: bytearray()}
    ending: Ending | None = None
    with DefaultSelector() as selector:
        for pipe in texts:
            selector.register(pipe, EVENT_READ)
        while selector.get_map() and ending is None:
            for key, _ in selector.select(timeout=max(0.0, deadline - time.monotonic())):
                piece = os.read(key.fd, 1 << 16)
                texts[key.fileobj] += piece
                if not piece:
                    selector.unregister(key.fileobj)
            if sum(map(len, texts.values())) > MOST_OUTPUT_BYTES:
                ending = "output"
            elif time.monotonic() > deadline:
                ending = "time"
    if ending is None:
        child.wait()
    output, error = texts.values()
    return (bytes(output), bytes(error)), ending

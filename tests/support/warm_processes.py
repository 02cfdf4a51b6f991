"""Python processes that begin with torch and the program imported: forks of one process that waits for work.

A test that starts the program pays some six seconds of imports for each process, and what it asserts is about what
comes after them. `run` asks a server, one for each pytest process, which forks; run as a script, this file is that
server. What a fork does not have is the environment before the imports: a test of that starts the program as a person
does, with `cli_process.start`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

ROOT: Final = Path(__file__).resolve().parents[2]
IMPORTED: Final = (
    "tutelage.cli",
    "tutelage.train.run",
    "peft",
    "transformers.models.llama.modeling_llama",
    "torch.distributed.fsdp",
)
GRACE_SECONDS: Final = 30.0
"""What torchrun leaves the others, after SIGTERM, once one process has failed."""


def run(
    arguments: Sequence[str],
    environments: Sequence[Mapping[str, str]],
    *,
    limit_seconds: float,
    folder: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` once in each environment, all at the same time.

    Where one ends with another status than 0 the rest get SIGTERM, and SIGKILL after `GRACE_SECONDS`.

    Args:
        arguments: `-m MODULE ...` or `SCRIPT ...`.
        environments: all variables of each process.
        limit_seconds: after which they are ended.
        folder: where they run.

    Returns:
        What they wrote, together, and the first status that was not 0.

    Raises:
        TimeoutError: they did not end within the limit; holds what they wrote.
    """
    with tempfile.TemporaryDirectory() as kept:
        out, err = Path(kept, "out"), Path(kept, "err")
        work = {
            "arguments": list(arguments),
            "environments": [dict(environment) for environment in environments],
            "limit_seconds": limit_seconds,
            "folder": str(folder),
            "out": str(out),
            "err": str(err),
        }
        status = _ask(work)
        written = tuple(path.read_text(encoding="utf-8") for path in (out, err))
    if status is None:
        raise TimeoutError(*written)
    return subprocess.CompletedProcess(list(arguments), status, *written)


def _ask(work: Mapping[str, Any]) -> int | None:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        server.stdin.write(json.dumps(work) + "\n")
        server.stdin.flush()
        status: int | None = json.loads(server.stdout.readline())
    except BaseException:  # a test that is given up would leave its answer to the next
        server.terminate()
        _server.cache_clear()
        raise
    return status


@cache
def _server() -> subprocess.Popen[str]:
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    server = subprocess.Popen(
        [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def close() -> None:
        server.communicate()

    atexit.register(close)
    return server


def _serve() -> None:
    """Answer each line of work with a status; ends with the process that asks."""
    signal.signal(signal.SIGTERM, _end)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        answers.write(f"{json.dumps(_status(json.loads(line)))}\n")
        answers.flush()


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(1)


def _status(work: dict[str, Any]) -> int | None:
    """The first status that is not 0, or 0; None where time was up."""
    running = {_forked(work, environment) for environment in work["environments"]}
    first, late, ends, killed_from = 0, False, time.monotonic() + work["limit_seconds"], float("inf")
    try:
        while running:
            process, status = os.waitpid(-1, os.WNOHANG)
            running.discard(process)
            failed = process != 0 and status != 0 and first == 0
            if failed:
                first = os.waitstatus_to_exitcode(status)
            now = time.monotonic()
            if failed or (now > ends and not late):
                late, killed_from = now > ends, now + GRACE_SECONDS
                _signal(running, signal.SIGTERM)
            elif now > killed_from:
                _signal(running, signal.SIGKILL)
            time.sleep(0 if process else 0.005)
    finally:
        _signal(running, signal.SIGKILL)  # none is left, unless this process is told to end
    return None if late else first


def _signal(processes: set[int], number: signal.Signals) -> None:
    for process in processes:
        os.kill(process, number)


def _forked(work: dict[str, Any], environment: dict[str, str]) -> int:
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for name, place, flags in (
            (os.devnull, 0, os.O_RDONLY),
            (work["out"], 1, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            (work["err"], 2, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        ):
            os.dup2(os.open(name, flags, 0o600), place)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 # the old one has been read from
        os.chdir(work["folder"])
        os.environ.clear()
        os.environ.update(environment)
        status = _run_as_main(work["arguments"])
    except BaseException:  # noqa: BLE001 # what the interpreter does with it, in a process that ends here
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _run_as_main(arguments: list[str]) -> int:
    """The status of `python ARGUMENTS`."""
    module = arguments[0] == "-m"
    sys.argv = arguments[module:]
    try:
        if module:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as ended:
        if not isinstance(ended.code, str):
            return int(ended.code or 0)
        sys.stderr.write(f"{ended.code}\n")
        return 1
    return 0


if __name__ == "__main__":
    _serve()

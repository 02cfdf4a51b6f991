"""Servers as processes: started with the same weights and threads, watched for memory, and ended.

Names: `tutelage`; `transformers`, which is `transformers serve` as it comes; `transformers_cb`, the same with
`--continuous-batching`; `llama_cpp`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

OURS = "tutelage"
NAMES = (OURS, "transformers", "transformers_cb", "llama_cpp")
START_SECONDS = 900
END_SECONDS = 120
SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Job:
    """What all servers are given.

    Attributes:
        model: folder of the weights in Hugging Face's layout.
        gguf: the same weights as a file for llama.cpp; None where it takes no part.
        scratch: where their output goes.
        threads: that each computes with.
        slots: replies that grow together.
        context: tokens of one prompt and its reply.
        options: more words of our command line.
        models: what ours serves in place of the folder alone, as `tutelage serve` takes it.
    """

    model: Path
    gguf: Path | None
    scratch: Path
    threads: int = 2
    slots: int = 32
    context: int = 1024
    options: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@dataclass
class Server:
    """One that runs.

    Attributes:
        name: of `NAMES`.
        process: its first process.
        url: of its API, with `/v1`.
        model: what requests call the model.
        pss: proportional set size of its processes in bytes, as sampled, with the seconds since the first sample.
    """

    name: str
    process: subprocess.Popen[bytes]
    url: str
    model: str
    log: Path
    pss: list[tuple[float, int]] = field(default_factory=list)

    def memory(self) -> int:
        """PSS now, in bytes."""
        return sum(_pss(number) for number in _tree(self.process.pid))

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        seconds = 0.0
        for number in _tree(self.process.pid):
            with suppress(psutil.Error):
                times = psutil.Process(number).cpu_times()
                seconds += times.user + times.system
        return seconds


def command(name: str, job: Job, port: int) -> tuple[list[str], str]:
    """The command line of a server, and what it calls the model."""
    python = sys.executable
    if name == OURS:
        served = job.models or (f"model={job.model}",)
        return [
            python, "-m", "tutelage", "serve", *served, "--port", str(port), "--batch", str(job.slots), *job.options
        ], served[0].partition("=")[0]  # fmt: skip
    if name == "llama_cpp":
        assert job.gguf is not None
        numbers = [str(number) for number in (port, job.slots, job.context, job.threads)]
        return [python, "-m", "benchmarks.serve.llama_cpp", str(job.gguf), *numbers], "model"
    program = str(Path(python).parent / "transformers")
    asked = [program, "serve", str(job.model), "--dtype", "bfloat16", "--host", "127.0.0.1", "--port", str(port)]
    return [*asked, *(["--continuous-batching"] if name == "transformers_cb" else [])], str(job.model)


@contextmanager
def started(name: str, job: Job) -> Iterator[Server]:
    """The server, once it says that it is well; ended with the block, by SIGTERM and where that does nothing, SIGKILL.

    Raises:
        RuntimeError: it ends, or does not answer in time.
    """
    port = free_port()
    words, model = command(name, job, port)
    threads = str(job.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    environment.pop("OMP_WAIT_POLICY", None)  # each waits as it comes
    log = job.scratch / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
    server = Server(name, process, f"http://127.0.0.1:{port}/v1", model, log)
    try:
        _wait_until_well(server, port)
        yield server
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Let a process end."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def end_by_exception() -> None:
    """Let SIGTERM end this process as an exception does, so that no server outlives it."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def watched(servers: Sequence[Server]) -> Iterator[None]:
    """In the block the memory of servers is noted twice a second, and once at its end, however short it is."""
    ended, first = threading.Event(), time.monotonic()

    def note() -> None:
        for server in servers:
            if server.process.poll() is None:
                server.pss.append((time.monotonic() - first, server.memory()))

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            note()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        note()


def _wait_until_well(server: Server, port: int) -> None:
    end_time = time.monotonic() + START_SECONDS
    while time.monotonic() < end_time:
        if server.process.poll() is not None:
            break
        with (
            suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5),
        ):
            return
        time.sleep(0.2)
    said = server.log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise RuntimeError(f"{server.name} does not answer after {START_SECONDS} s, or has ended:\n{said}")


def _tree(process: int) -> list[int]:
    try:
        first = psutil.Process(process)
        return [process, *(child.pid for child in first.children(recursive=True))]
    except psutil.Error:
        return []


def _pss(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)

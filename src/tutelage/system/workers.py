"""Processes that answer: fresh interpreters behind pipes, a thread for each that waits for it.

No fork of a parent with threads, no need for a `__main__` guard in the caller's script, and none outlives its parent,
whose end closes the pipe. What is asked and answered is pickled; a worker handles one thing at a time.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Timer
from types import TracebackType
from typing import IO, Any

from tutelage.errors import FitError

MAX_DEFAULT_WORKERS = 4
"""A worker holds about 100 MB; more of them are started only when asked for."""
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Ready:
    """Asked of a worker that has just started, so that its start is not taken for time that a question takes."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception on its way from a worker to the parent, with where it came from."""

    error: Exception
    trace: str

    def raised(self) -> Exception:
        """The exception, to be raised by the parent."""
        self.error.add_note(f"In a worker process:\n{self.trace}")
        return self.error


def default_workers() -> int:
    """One for each core this process may use, up to `MAX_DEFAULT_WORKERS`."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(cores, MAX_DEFAULT_WORKERS)


def serve(prepare: Callable[[Any], Callable[[Any], Any]]) -> None:
    """The worker's side: what it starts with first, then questions, until the pipe closes.

    Args:
        prepare: makes what answers a question out of what the worker starts with.
    """
    inward, outward = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints in this process must not land among the answers
    answer = prepare(_receive(inward))
    with suppress(BrokenPipeError):
        while (question := _receive(inward)) is not None:
            _send(outward, True if isinstance(question, _Ready) else answer_or_failure(answer, question))
    os._exit(0)  # nothing to tidy; an ordinary exit would try once more to write to a parent that is gone


class Workers:
    """Processes that answer questions; none is left when the block is left.

    Args:
        module: whose function `serve_worker` a worker calls; it calls `serve`.
        start: what each worker starts with.
        count: of processes.
        where: words for where a question is about, for an error.
        fix: what to do where memory runs out.
        limit_seconds: a worker that takes longer for a question is ended, and another one started; None lets it work.
    """

    def __init__(
        self,
        module: str,
        start: Any,
        count: int,
        *,
        where: Callable[[Any], str],
        fix: str,
        limit_seconds: float | None = None,
    ) -> None:
        self._command = (
            "import json, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
            f"sys.path[:] = json.loads(sys.argv[1]); from {module} import serve_worker; serve_worker()"
        )
        self._start = pickle.dumps(start, pickle.HIGHEST_PROTOCOL)
        self._count, self._where, self._fix, self._limit_seconds = count, where, fix, limit_seconds

    def __enter__(self) -> Workers:
        self._threads = ThreadPoolExecutor(self._count)
        self._processes = [self._start_process() for _ in range(self._count)]
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._initialized: set[int] = set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()  # an idle worker loses nothing, a busy one works for nobody any more
        self._threads.shutdown(wait=True, cancel_futures=True)
        for process in self._processes:
            process.communicate()  # closes both pipes and collects the process

    def submit(self, question: Any) -> Future[Any]:
        """Have a question answered by the next idle worker.

        The result raises what the worker raised; FitError where the system ended the worker, as it does when memory
        runs out; RuntimeError where it ended by itself, its last words being on stderr; TimeoutError where it took
        longer than it may.
        """
        return self._threads.submit(self._answer_when_idle, question)

    def _answer_when_idle(self, question: Any) -> Any:
        process = self._idle.get()
        try:
            if self._limit_seconds is None:
                answer = self._answer(process, self._startup_message(process), question)
            else:
                answer = self._answer_in_time(process, question, self._limit_seconds)
        finally:
            self._idle.put(process if process.poll() is None else self._replaced(process))
        if isinstance(answer, Failure):
            raise answer.raised()
        return answer

    def _answer_in_time(self, process: subprocess.Popen[bytes], question: Any, limit_seconds: float) -> Any:
        if message := self._startup_message(process):
            self._answer(process, message, _Ready())
        overdue = Event()

        def end() -> None:
            overdue.set()
            process.kill()

        timer = Timer(limit_seconds, end)
        timer.start()
        try:
            return self._answer(process, b"", question)
        except FitError as error:  # the same signal ends it where memory runs out
            if not overdue.is_set():
                raise
            raise TimeoutError(f"{self._where(question)} took more than {limit_seconds:g} s") from error
        finally:
            timer.cancel()

    def _replaced(self, ended: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        """Another one in the place of a worker that has ended."""
        self._initialized.discard(ended.pid)
        process = self._start_process()
        self._processes[self._processes.index(ended)] = process
        ended.communicate()
        return process

    def _startup_message(self, process: subprocess.Popen[bytes]) -> bytes:
        if process.pid in self._initialized:
            return b""
        self._initialized.add(process.pid)
        return _with_length(self._start)

    def _answer(self, process: subprocess.Popen[bytes], startup_message: bytes, question: Any) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        answer = None
        with suppress(BrokenPipeError):
            process.stdin.write(startup_message)
            _send(process.stdin, question)
            answer = _receive(process.stdout)
        if answer is not None:
            return answer
        status = process.wait()
        if status == -signal.SIGKILL:
            raise FitError(
                "The system ended a worker process, most likely for want of memory",
                where=self._where(question),
                fix=self._fix,
            )
        raise RuntimeError(f"a worker process ended with status {status}: {self._where(question)}")

    def _start_process(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}  # one thread each: the workers are the threads
        command = [sys.executable, "-c", self._command, json.dumps(sys.path)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)  # noqa: S603 our own code


def answer_or_failure(answer: Callable[[Any], Any], question: Any) -> Any:
    """The answer to a question, or what was raised instead (`Failure`), in a form that can travel."""
    try:
        return answer(question)
    except Exception as error:  # noqa: BLE001 it is raised again where the question came from
        return Failure(_picklable(error), traceback.format_exc())


def _with_length(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH_BYTES, "little") + data


def _send(stream: IO[bytes], value: Any) -> None:
    stream.write(_with_length(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)))
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """The next value; None when the other side is gone."""
    head = stream.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        return None
    size = int.from_bytes(head, "little")
    data = stream.read(size)
    return pickle.loads(data) if len(data) == size else None  # noqa: S301 from a process of ours


def _picklable(error: Exception) -> Exception:
    """The error itself where it survives the journey, else its words."""
    try:
        same = pickle.loads(pickle.dumps(error))  # noqa: S301 our own bytes
    except (pickle.PicklingError, TypeError, AttributeError):
        return RuntimeError(f"{type(error).__name__}: {error}")
    assert isinstance(same, Exception)
    return error

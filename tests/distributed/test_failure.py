"""One process of several fails: it says so, the others end with a word, and one that is stuck is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from tutelage.distributed.failure import FAILURE_KEY, fail_together
from tutelage.errors import EngineError, FitError

SOURCE = Path(__file__).resolve().parents[2] / "src"
GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:13728"
STUCK = """
import signal, time
import torch.distributed as dist
from tutelage.distributed.failure import FAILURE_KEY, fail_together
signal.signal(signal.SIGTERM, signal.SIG_IGN)
store = dist.TCPStore("127.0.0.1", 0, is_master=True)
with fail_together(store, rank=0, grace_seconds=0.5):
    store.set(FAILURE_KEY, "process 1: no memory")
    time.sleep(100)
"""
ALWAYS_ASKING = """
import torch.distributed as dist
from tutelage.distributed import failure
failure.POLL_SECONDS = 0
with failure.fail_together(dist.TCPStore("127.0.0.1", 0, is_master=True), rank=0):
    pass
"""


TOLD_TO_END = """
import os, signal, sys
import torch.distributed as dist
from tutelage.distributed.failure import fail_together
try:
    with fail_together(dist.TCPStore("127.0.0.1", 0, is_master=True), rank=0):
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("what it had to say")
except ValueError as error:
    os.kill(os.getpid(), signal.SIGTERM)
    print(error, file=sys.stderr)
    sys.exit(3)
"""
THREAD_IN_TORCH = """
import os, sys, threading
import torch.distributed as dist
from tutelage.__main__ import program
store = dist.TCPStore("127.0.0.1", 0, is_master=True)
def ask():
    while True:
        store.check(["never"])
threading.Thread(target=ask, daemon=True).start()
os.environ["WORLD_SIZE"], sys.argv = "2", ["tutelage", sys.argv[1]]
program()
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


@pytest.fixture
def store() -> Iterator[dist.Store]:
    handler = signal.getsignal(signal.SIGTERM)
    yield dist.TCPStore("127.0.0.1", 0, is_master=True)
    signal.signal(signal.SIGTERM, handler)  # one that failed keeps its own


def test_the_first_to_fail_says_why(store: dist.Store) -> None:
    for said in ("no memory\nmore", "too late"):
        with pytest.raises(FitError, match=said.split("\n")[0]), fail_together(store, rank=1):
            raise FitError(said)

    assert store.get(FAILURE_KEY) == b"process 1: no memory"


def test_a_broken_collective_is_told_as_the_end_of_another(store: dist.Store) -> None:
    store.set(FAILURE_KEY, "process 1: no memory")

    with pytest.raises(EngineError, match="Another process") as caught, fail_together(store, rank=0):
        raise RuntimeError(GLOO)

    assert caught.value.found == "process 1: no memory"


def test_a_process_that_fails_may_say_so_after_sigterm() -> None:
    done = run(TOLD_TO_END)

    assert (done.returncode, done.stderr) == (3, "what it had to say\n")


def test_other_errors_stay_what_they_are(store: dist.Store) -> None:
    with pytest.raises(RuntimeError, match="shapes"), fail_together(store, rank=0):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with fail_together(store, rank=0):
        pass


def test_a_process_that_is_stuck_is_ended() -> None:
    began = time.monotonic()
    done = run(STUCK)

    assert done.returncode == 1
    assert "another process of this run ended (process 1: no memory); this one is stuck" in done.stderr
    assert time.monotonic() - began < 80


def test_a_watcher_inside_torch_does_not_abort_a_process_that_is_done() -> None:
    done = run(ALWAYS_ASKING)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("asked", "status", "said"), [("--version", 0, "tutelage "), ("--wrong", 2, "No such option")])
def test_threads_inside_torch_do_not_abort_a_process_that_is_done(asked: str, status: int, said: str) -> None:
    done = run(THREAD_IN_TORCH, asked)

    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr

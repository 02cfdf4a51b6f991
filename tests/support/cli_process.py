"""The program in processes of its own: forks of one that has imported torch, or from nothing as a person starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest
import torch.distributed

from tests.support import ROOT, warm_processes
from tutelage.system.startup import RESTARTED

SOURCE: Final = ROOT / "src"
LIMIT_SECONDS: Final = 240
QUIET: Final = ("evaluate.before=false", "evaluate.general=[]", "evaluate.task=[]", "train.learning_rate=0.001")
"""Nothing is asked, and a rate at which Adam does not blow rounding up."""


def environment() -> dict[str, str]:
    """This process's, as if it were not one of several."""
    kept = {key: value for key, value in os.environ.items() if key not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    return kept | {
        "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }


def launch(
    *arguments: str, torchrun: int = 0, limit_seconds: float = LIMIT_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` with torch imported already, in as many processes as torchrun would start; 0 starts one.

    Where they do not end in time they are told to, and the test fails.
    """
    kept = environment() | {RESTARTED: "1"}
    environments = [kept]
    if torchrun:
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        environments = [kept | rank_variables(rank, torchrun, store.port) for rank in range(torchrun)]
    try:
        return warm_processes.run(arguments, environments, limit_seconds=limit_seconds)
    except TimeoutError as late:
        pytest.fail(f"not at its end after {limit_seconds} s\n" + "\n".join(text[-2000:] for text in late.args))


def rank_variables(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun tells one of its processes; the store at `port` is the launcher's, as torchrun's is."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def tutelage(*arguments: str, torchrun: int = 0) -> subprocess.CompletedProcess[str]:
    """The same with the program."""
    return launch("-m", "tutelage", *arguments, torchrun=torchrun)


def start(*arguments: str, limit_seconds: float = LIMIT_SECONDS) -> subprocess.CompletedProcess[str]:
    """The program as a person starts it, from nothing: with its own restart, and its own torchrun."""
    command = [sys.executable, "-m", "tutelage", *arguments]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # a kill would leave those that torchrun started
            out, err = process.communicate()
            pytest.fail(f"not at its end after {limit_seconds} s\n{out[-2000:]}\n{err[-2000:]}")
    return subprocess.CompletedProcess(command, process.returncode, out, err)

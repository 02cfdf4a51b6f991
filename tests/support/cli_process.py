"""The program in processes of its own, as a person starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

from tests.support import ROOT

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
    """Run Python with these arguments, in as many processes as `torchrun` says; 0 starts it without torchrun.

    Where they do not end in time, torchrun is told to end them, and the test fails.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(torchrun)] if torchrun else []
    started = [sys.executable, *launcher, *arguments]
    with subprocess.Popen(
        started, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            process.terminate()  # a kill would leave those that torchrun started
            out, err = process.communicate()
            pytest.fail(f"not at its end after {limit_seconds} s\n{out[-2000:]}\n{err[-2000:]}")
    return subprocess.CompletedProcess(started, process.returncode, out, err)


def tutelage(*arguments: str, torchrun: int = 0) -> subprocess.CompletedProcess[str]:
    """The same with the program."""
    return launch("-m", "tutelage", *arguments, torchrun=torchrun)

"""Facts about the machine, the path a run takes on it, and problems with one thing to do."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
import torch

from tutelage.model.precision import resolve_precision
from tutelage.system import hardware as room
from tutelage.system.hardware import Gpu, Machine, Torch, machine, problems, route_on

GOOD = Machine(
    system="Linux",
    python="3.11.7",
    cpu="A processor",
    cores=8,
    quota_cores=None,
    cpu_bf16=True,
    memory_bytes=64 << 30,
    available_bytes=60 << 30,
    disk_free_bytes=500 << 30,
    torch=Torch("2.13.0", None, 8, ()),
    torch_trouble=None,
    nvidia_driver=False,
    packages=dict.fromkeys(room.TRAINING_PACKAGES + room.OPTIONAL_PACKAGES, "1.0"),
    compiler="g++ 12",
    allocator="tcmalloc",
)
AMPERE = Gpu("A100", 80 << 30, (8, 0), bf16=True)
TURING = Gpu("T4", 16 << 30, (7, 5), bf16=False)


def test_this_machine_is_what_the_system_says() -> None:
    found = machine()

    assert found.cores == len(os.sched_getaffinity(0))
    assert found.torch is not None
    assert found.torch.version == torch.__version__
    assert found.torch.threads == torch.get_num_threads()
    assert found.memory_bytes is not None
    assert found.available_bytes is not None
    assert 0 < found.available_bytes <= found.memory_bytes
    assert found.disk_free_bytes == pytest.approx(shutil.disk_usage(".").free, rel=0.05)
    assert found.packages["transformers"] is not None


def test_the_route_is_the_one_that_a_run_settles_on() -> None:
    route = route_on(machine())

    assert route is not None
    assert route.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert route.precision.startswith(resolve_precision("auto"))


@pytest.mark.parametrize(
    ("gpus", "device", "precision", "attention"),
    [
        ((), "cpu", "bf16", "products in bf16, document by document"),
        ((AMPERE,), "cuda", "bf16", "flash"),
        ((TURING,), "cuda", "fp32", "torch's own, document by document"),
    ],
)
def test_the_route_follows_the_device(gpus: tuple[Gpu, ...], device: str, precision: str, attention: str) -> None:
    route = route_on(replace(GOOD, torch=Torch("2.13.0", "13.0", 8, gpus)))

    assert route is not None
    assert route.device == device
    assert route.precision.startswith(precision)
    assert attention in route.attention


def test_a_good_machine_has_no_problem() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"packages": GOOD.packages | {"peft": None}}, ("peft", "tutelage[train]")),
        ({"torch": None, "torch_trouble": "libcudart.so: not found"}, ("libcudart", "install")),
        ({"nvidia_driver": True}, ("sees no GPU", "torch build")),
        ({"torch": Torch("2.13.0", None, 1, ())}, ("1 of 8 cores", "OMP_NUM_THREADS")),
        ({"quota_cores": 2.0}, ("may use 2 cores", "model.threads = 2")),
        ({"disk_free_bytes": 1 << 30}, ("disk", "folder=PATH")),
        ({"available_bytes": 1 << 30}, ("memory", "lora")),
    ],
)
def test_each_problem_comes_with_one_thing_to_do(changed: dict[str, object], words: tuple[str, str]) -> None:
    (found,) = problems(replace(GOOD, **changed))  # type: ignore[arg-type] # one field each

    assert words[0] in found.what
    assert words[1] in found.fix


def test_without_torch_there_is_no_route() -> None:
    without = replace(GOOD, torch=None, packages=GOOD.packages | {"torch": None})

    assert route_on(without) is None
    assert [problem.fix for problem in problems(without)] == ["pip install 'tutelage[train]'"]

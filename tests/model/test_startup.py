"""What a computing command starts with: the allocator, and how its threads wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tutelage.model.startup import STARTED_AGAIN, environment_to_compute_in
from tutelage.model.waiting import SPINS, bounded_waiting, waiting_here


def test_p3_threads_wait_spinning_for_a_bounded_time() -> None:
    assert bounded_waiting({}) == {"GOMP_SPINCOUNT": str(SPINS)}
    assert environment_to_compute_in({"TUTELAGE_ALLOCATOR": "system"}) == {
        "TUTELAGE_ALLOCATOR": "system",
        "GOMP_SPINCOUNT": str(SPINS),
        STARTED_AGAIN: "1",
    }


@pytest.mark.parametrize("chosen", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_p3_what_the_user_chose_stands(chosen: dict[str, str]) -> None:
    assert bounded_waiting(chosen) == {}


@pytest.mark.parametrize(("environment", "words"), [
    ({}, "as long as the OpenMP runtime lets it"),
    ({"GOMP_SPINCOUNT": "3000"}, "3000 times, then sleeps"),
    ({"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}, "OMP_WAIT_POLICY=PASSIVE"),
])  # fmt: skip
def test_p3_the_way_of_waiting_is_said(environment: dict[str, str], words: str) -> None:
    assert words in waiting_here(environment)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a process started with")
@pytest.mark.parametrize(("command", "bounded"), [
    ("train", True), ("evaluate", True), ("chat", True), ("see", False), ("check", False)
])  # fmt: skip
def test_p3_commands_that_compute_start_again_with_the_bound(command: str, bounded: bool) -> None:
    """The variable must be there from the first instruction: libgomp reads it as it is loaded."""
    code = (
        f"import sys; sys.argv = ['tutelage', '{command}', 'missing'];\n"
        "import tutelage.cli; tutelage.cli.main = lambda: print(open('/proc/self/environ').read())\n"
        "from tutelage.__main__ import program; program()"
    )
    unset = {key: value for key, value in os.environ.items() if key not in (STARTED_AGAIN, "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=unset, capture_output=True, text=True, check=True, timeout=120
    )
    assert (f"GOMP_SPINCOUNT={SPINS}" in done.stdout.split("\0")) == bounded

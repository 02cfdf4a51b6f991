"""What a computing command starts with: the allocator, and how its threads wait for each other."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tutelage.system.openmp_wait import SPIN_SETTINGS
from tutelage.system.startup import RESTARTED, training_environment


def test_p3_a_command_starts_with_the_bounds_that_a_watch_changes_between() -> None:
    assert training_environment({"TUTELAGE_ALLOCATOR": "system"}) == {
        "TUTELAGE_ALLOCATOR": "system",
        **SPIN_SETTINGS,
        RESTARTED: "1",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a process started with")
@pytest.mark.parametrize(("command", "bounded"), [
    ("train", True), ("evaluate", True), ("chat", True), ("see", False), ("check", False)
])  # fmt: skip
def test_p3_commands_that_compute_start_again_with_the_bounds(command: str, bounded: bool) -> None:
    """The variables must be there from the first instruction: libgomp reads them as it is loaded."""
    code = (
        f"import sys; sys.argv = ['tutelage', '{command}', 'missing'];\n"
        "import tutelage.cli; tutelage.cli.main = lambda: print(open('/proc/self/environ').read())\n"
        "from tutelage.__main__ import program; program()"
    )
    unset = {key: value for key, value in os.environ.items() if key not in (RESTARTED, *SPIN_SETTINGS)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=unset, capture_output=True, text=True, check=True, timeout=120
    )
    begun_with = done.stdout.split("\0")
    assert [f"{name}={value}" in begun_with for name, value in SPIN_SETTINGS.items()] == [bounded] * len(SPIN_SETTINGS)

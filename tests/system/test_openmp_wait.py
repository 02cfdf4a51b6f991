"""How threads of OpenMP wait for each other: counted by how often they sleep, which does not depend on a clock."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.system import openmp_wait
from tutelage.system.openmp_wait import CROWDED_SHARE, FREE_SHARE, SPIN_SETTINGS, Watch, spin_settings, waiting_here

MOST = 400
SLEEPS = f"""
import ctypes, os, time, torch
from pathlib import Path
from tutelage.system import openmp_wait
torch.set_num_threads(2)
values = torch.ones(400_000)

def sleeps():
    count = 0
    for thread in Path("/proc/self/task").iterdir():
        try:
            status = (thread / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if thread.name != main:
            count += int(status.split("voluntary_ctxt_switches:")[1].split()[0])
    return count

def slept():
    # Between two products the main thread is busy alone for longer than a short spin and shorter than a long one.
    values.add_(1)
    before = sleeps()
    for _ in range({MOST}):
        values.add_(1)
        until = time.thread_time() + 0.0003
        while time.thread_time() < until:
            pass
    return sleeps() - before

main = str(os.getpid())
openmp = openmp_wait.loaded_openmp()
spinning = min(slept(), slept())  # what else runs may send a thread to sleep, and not keep it awake
held = openmp_wait.ShortSpin(openmp, openmp_wait.idle_team_threads())
soon = max(slept(), slept())
held.end()
time.sleep(0.2)  # the threads of its team end by themselves
print(spinning, soon, min(slept(), slept()))
"""

needs_linux = pytest.mark.skipif(
    not openmp_wait.OWN_SCHEDULE.exists() or len(os.sched_getaffinity(0)) < 2,
    reason="Linux with two cores says what waits, and lets two threads spin",
)


@needs_linux
@pytest.mark.parametrize("environment", [{}, SPIN_SETTINGS], ids=["as it comes", "as a command starts itself"])
def test_p3_a_held_team_makes_threads_sleep_soon_and_its_end_lets_them_spin(environment: dict[str, str]) -> None:
    unset = {name: value for name, value in os.environ.items() if name not in {*SPIN_SETTINGS, "OMP_NUM_THREADS"}}
    done = subprocess.run(
        [sys.executable, "-c", SLEEPS], env=unset | environment, capture_output=True, text=True, check=True, timeout=240
    )
    before, held, after = map(int, done.stdout.split())
    assert held > 0.8 * MOST
    assert max(before, after) < held / 2


TWO_TEAMS = (
    SLEEPS[: SLEEPS.index("main = ")].replace("min(slept(), slept())", "")
    + """
import sys, threading
main = str(os.getpid())
values.add_(1)  # the main thread has a team now, as one that has loaded a model
if sys.argv[1] == "ended":
    openmp_wait.end_own_team()
counted = []

def computed_in_another_thread():
    global main
    main = str(threading.get_native_id())
    counted.extend((slept(), slept()))

worker = threading.Thread(target=computed_in_another_thread)
worker.start()
worker.join()
values.add_(1)  # it may compute again
print(min(counted), float(values.min()))
"""
)


@needs_linux
def test_p3_a_thread_that_ends_its_team_lets_that_of_another_spin() -> None:
    unset = {name: value for name, value in os.environ.items() if name not in {*SPIN_SETTINGS, "OMP_NUM_THREADS"}}
    sleeps, computed = {}, {}
    for case in ("kept", "ended"):
        done = subprocess.run(
            [sys.executable, "-c", TWO_TEAMS, case], env=unset, capture_output=True, text=True, check=True, timeout=240
        )
        count, value = done.stdout.split()
        sleeps[case], computed[case] = int(count), float(value)
    assert sleeps["kept"] > 0.8 * MOST
    assert sleeps["ended"] < sleeps["kept"] / 2
    assert computed["kept"] == computed["ended"] == 2 * MOST + 5


class Held:
    """In place of a team that is held: says when it was let go."""

    def __init__(self, teams: list[Held]) -> None:
        self.held = True
        teams.append(self)

    def end(self) -> None:
        self.held = False


def test_p3_threads_sleep_soon_from_when_they_stand_in_line_until_they_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    teams: list[Held] = []
    monkeypatch.setattr(openmp_wait, "ShortSpin", lambda _openmp, _threads: Held(teams))
    monkeypatch.setattr(Watch, "_poll", lambda _self: None)
    monkeypatch.setattr(openmp_wait, "idle_team_threads", lambda: 2)
    watch = Watch(ctypes.CDLL(None))
    held = []
    between = (CROWDED_SHARE + FREE_SHARE) / 2
    for share in (0, between, 2 * CROWDED_SHARE, between, FREE_SHARE / 2, between, 1):
        watch.adjust(share, 0.5)
        held.append([team.held for team in teams])
    assert held == [[], [], [True], [True], [False], [False], [False, True]]
    assert watch.crowded_seconds == 1.0


def test_p3_no_team_of_more_threads_than_a_system_gives_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = openmp_wait.MAX_IDLE_THREADS + 40
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(cores)), raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert openmp_wait.idle_team_threads() is None
    monkeypatch.setattr("torch.get_num_threads", lambda: cores - 3)
    assert openmp_wait.idle_team_threads() == 5
    monkeypatch.setattr("torch.get_num_threads", lambda: cores)
    assert openmp_wait.idle_team_threads() == 2


@needs_linux
def test_p3_time_in_line_grows_where_two_threads_want_one_core() -> None:
    code = (
        "import os, hashlib, threading; from tutelage.system.openmp_wait import run_queue_wait_ns\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); block, before = bytes(20_000_000), "
        "run_queue_wait_ns()\n"
        "def work():\n    for _ in range(10): hashlib.sha256(block)\n"
        "threads = [threading.Thread(target=work) for _ in range(2)]\n"
        "for thread in threads: thread.start()\n"
        "most = 0\n"
        "while any(thread.is_alive() for thread in threads):\n"
        "    most = max(most, sum(run_queue_wait_ns().values()) - sum(before.values()))\n"
        "print(most)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) > 1e7


@pytest.mark.parametrize("chosen", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_p3_what_the_user_chose_stands(chosen: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert spin_settings(chosen) == {}
    for name in SPIN_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    assert openmp_wait.start_contention_watch.__wrapped__() is None
    ((name, value),) = chosen.items()
    assert waiting_here(chosen) == f"as {name}={value} says"


def test_p3_the_way_of_waiting_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(openmp_wait, "OWN_SCHEDULE", tmp_path / "none")
    assert "as long as the OpenMP runtime lets them" in waiting_here(SPIN_SETTINGS)
    monkeypatch.setattr(openmp_wait, "OWN_SCHEDULE", tmp_path)
    assert "sleep soon while other programs want the cores" in waiting_here(spin_settings({}))

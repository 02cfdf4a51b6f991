"""What a container, a service and a bare machine grant of main memory, on file systems made for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.plan import devices
from tutelage.system.main_memory import GROUP, MACHINE, main_memory

GIB = 1 << 30
V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"


def system(root: Path, files: dict[str, str]) -> Path:
    """A machine with 64 GiB, 48 of them available, and the files given."""
    meminfo = f"MemTotal:       {64 << 20} kB\nMemFree:  1 kB\nMemAvailable:   {48 << 20} kB\nHugePages_Total: 0\n"
    for name, text in ({"proc/meminfo": meminfo} | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def group(folder: str, limit: str, used: int, idle: int = 0) -> dict[str, str]:
    stat = f"anon 5\ninactive_file {idle}\nactive_file 7\n"
    return {f"{folder}/memory.max": limit, f"{folder}/memory.current": f"{used}\n", f"{folder}/memory.stat": stat}


def old_group(folder: str, limit: int, used: int, idle: int = 0) -> dict[str, str]:
    return {
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{used}\n",
        f"{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {idle}\n",
    }


@pytest.mark.parametrize(
    ("files", "total", "available", "source"),
    [
        ({}, 64, 48, MACHINE),
        (group(V2, "max\n", 3 * GIB), 64, 48, MACHINE),
        (group(V2, f"{8 * GIB}\n", 3 * GIB), 8, 5, GROUP),
        (group(V2, f"{8 * GIB}", 7 * GIB, idle=6 * GIB), 8, 7, GROUP),
        (group(V2, f"{8 * GIB}", 9 * GIB), 8, 0, GROUP),
        (group(V2, f"{100 * GIB}", 10 * GIB), 64, 48, MACHINE),
        (group(V2, f"{100 * GIB}", 90 * GIB), 64, 10, GROUP),
        (
            {"proc/self/cgroup": "0::/user.slice/run.scope\n"}
            | group(f"{V2}/user.slice", f"{16 * GIB}", 10 * GIB)
            | group(f"{V2}/user.slice/run.scope", "max", 2 * GIB),
            16,
            6,
            GROUP,
        ),
        (old_group(V1, 8 * GIB, 3 * GIB, idle=GIB), 8, 6, GROUP),
        (old_group(V1, 9223372036854771712, 3 * GIB), 64, 48, MACHINE),
        (
            {"proc/self/cgroup": "5:cpu,cpuacct:/other\n4:memory:/docker/abc\n0::/\n"}
            | old_group(f"{V1}/docker/abc", 4 * GIB, GIB),
            4,
            3,
            GROUP,
        ),
        ({"proc/self/cgroup": "0::/gone\n"} | group(V2, f"{8 * GIB}", 3 * GIB), 8, 5, GROUP),
    ],
)
def test_p1_what_a_container_grants_is_what_there_is(
    tmp_path: Path, files: dict[str, str], total: int, available: int, source: str
) -> None:
    found = main_memory(system(tmp_path, files))
    assert (found.total_bytes // GIB, found.available_bytes) == (total, available * GIB)
    assert found.source == source


def test_p1_the_planner_and_the_page_of_the_machine_ask_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tutelage.system import hardware as page_room

    small = main_memory(system(tmp_path, group(V2, f"{8 * GIB}", 3 * GIB)))
    for room in (devices, page_room):
        monkeypatch.setattr(room, "main_memory", lambda: small)
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    planned, shown = devices.this_machine(), page_room.machine()
    assert (
        (planned.memory_bytes, planned.total_bytes) == (shown.available_bytes, shown.memory_bytes) == (5 * GIB, 8 * GIB)
    )
    assert planned.source == GROUP


def test_p1_without_proc_the_system_says_how_much_there_is(tmp_path: Path) -> None:
    found = main_memory(tmp_path)
    assert found.total_bytes > 0
    assert found.available_bytes is None

"""How much main memory there is here and how much of it is free, as the machine and what it runs this process in say.

A container or a service has less than its machine: control groups, its own and each above it, may grant less, and their
own use counts against that. Imports without torch.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MACHINE = "MemAvailable of /proc/meminfo"
GROUP = "the memory limit of this process's control group"
UNKNOWN = "all memory, as sysconf has it; how much of it is free is not known here"
GROUP_FILES = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Where control groups of version 2 and 1 are, what they grant, what they use, and how much of that is pages of files
that the system takes back before it ends anything. Source: Linux, admin-guide/cgroup-v2 and cgroup-v1/memory."""


@dataclass(frozen=True, slots=True)
class MainMemory:
    """Bytes in all, bytes available without swapping (None: not known), and who says so."""

    total_bytes: int
    available_bytes: int | None
    source: str


def main_memory(root: Path = Path("/")) -> MainMemory:
    """The main memory that this process may use.

    Args:
        root: of the file system.
    """
    facts = root / "proc/meminfo"
    if not facts.is_file():
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return MainMemory(total, None, UNKNOWN)
    text = facts.read_text(encoding="utf-8")
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    total, available, source = kib["MemTotal"] << 10, kib["MemAvailable"] << 10, MACHINE
    for limit, group_available in _group_limits(root):
        total = min(total, limit)
        if group_available < available:
            available, source = group_available, GROUP
    return MainMemory(total, available, source)


def _group_limits(root: Path) -> list[tuple[int, int]]:
    """What each control group that this process is in grants, and what is left of it."""
    limits = []
    for mount, limit_file, used_file, idle_name in GROUP_FILES:
        for group in _groups(root, root / mount):
            limit, used = _number(group / limit_file), _number(group / used_file)
            if limit is not None and used is not None:
                limits.append(
                    (limit, max(0, limit - max(0, used - _reclaimable_bytes(group / "memory.stat", idle_name))))
                )
    return limits


def _groups(root: Path, mount: Path) -> list[Path]:
    """The folders of a process's own group and of those above it; in a container the mount itself is often its own."""
    membership = root / "proc/self/cgroup"
    lines = membership.read_text(encoding="utf-8").splitlines() if membership.is_file() else []
    controller = "memory" if mount.name == "memory" else ""
    paths = [
        path for _, controllers, path in (line.split(":", 2) for line in lines) if controller in controllers.split(",")
    ]
    groups = {mount}
    for path in paths:
        group = mount / path.lstrip("/")
        groups |= {group, *(parent for parent in group.parents if parent.is_relative_to(mount))}
    return sorted(groups)


def _reclaimable_bytes(stat: Path, name: str) -> int:
    text = stat.read_text(encoding="utf-8") if stat.is_file() else ""
    match = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else 0


def _number(file: Path) -> int | None:
    """None where there is no such file, or no limit ("max")."""
    text = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    return int(text) if text.isdigit() else None

"""The process that runs code from a reply: it gives up what it can, then runs the code in a process below it.

`sandbox.py` starts it as a program of its own and hands it a job as JSON on its standard input; what the code prints
goes to standard error, and how it ended to standard output. It imports nothing but the standard library.

Order matters here: the user namespace gives the rights to make the others, mounts are read-only before the code can
run, and the rights go as Python is started again by a user who is not root.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final, NoReturn

FINISHED: Final = 77
"""The status of code that ran to the end of its tests; one that leaves earlier, by sys.exit(0), has another."""

_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
"""Source: Linux 6.18, include/uapi/linux: sched.h, mount.h, prctl.h, fcntl.h, asm-generic/unistd.h."""

_INNER_ID = 65534
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_COVERED = ("/run", "/var/run")
"""Sockets of services stand here: a way around the network that is not there."""

COUNT_SECONDS: Final = 0.05
"""Between two counts of the processes: a limit of the system does not hold for root."""

RUNNER = f"""
import os, sys
names = {{"__name__": "reply"}}
for part in ("reply.py", "tests.py"):
    with open(part, encoding="utf-8") as file:
        exec(compile(file.read(), part, "exec"), names)
sys.stdout.flush()
os._exit({FINISHED})
"""


class CannotIsolateError(Exception):
    """The system does not permit a step; the text says which."""


def _checked(step: str, result: int) -> None:
    if result < 0:
        raise CannotIsolateError(f"{step}: {os.strerror(ctypes.get_errno())}")


def isolate(libc: ctypes.CDLL, work: str, work_bytes: int) -> None:
    """Leave network, mounts, processes and rights of the machine behind.

    Args:
        libc: the C library.
        work: the folder that becomes an empty one in memory.
        work_bytes: of it.

    Raises:
        CannotIsolateError: a step is not permitted.
    """
    user, group = os.getuid(), os.getgid()
    spaces = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWIPC | _CLONE_NEWUTS
    _checked("new namespaces", libc.unshare(spaces))
    try:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{_INNER_ID} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{_INNER_ID} {group} 1", encoding="ascii")
    except OSError as error:
        raise CannotIsolateError(f"the user of the namespace: {error.strerror}") from error
    _checked("private mounts", libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
    devices = [device.encode() for device in _DEVICES if os.path.exists(device)]
    for device in devices:
        _checked("a device", libc.mount(device, device, None, _MS_BIND, None))
    _set_attributes(libc, b"/", gives=_ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, flags=_AT_RECURSIVE)
    for device in devices:
        _set_attributes(libc, device, takes=_ATTR_NODEV)
    for folder in {os.path.realpath(folder) for folder in _COVERED if os.path.isdir(folder)}:
        if not _holds_python(folder):
            _memory_folder(libc, folder, b"size=4k,mode=0555")
    _memory_folder(libc, work, f"size={work_bytes},mode=0700".encode())


def _set_attributes(libc: ctypes.CDLL, path: bytes, *, gives: int = 0, takes: int = 0, flags: int = 0) -> None:
    attributes = (ctypes.c_uint64 * 4)(gives, takes, 0, 0)  # struct mount_attr
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    call = libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, flags, ctypes.byref(attributes), size)
    _checked("read-only mounts", call)


def _memory_folder(libc: ctypes.CDLL, folder: str, options: bytes) -> None:
    mounted = libc.mount(b"tmpfs", folder.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options)
    _checked("a folder in memory", mounted)


def _holds_python(folder: str) -> bool:
    places = (sys.prefix, sys.base_prefix, os.path.realpath(sys.executable), os.path.realpath(sys.prefix))
    return any(os.path.commonpath([folder, place]) == folder for place in places)


def work_folder() -> str:
    """Where the folder in memory can stand without hiding Python.

    Raises:
        CannotIsolateError: nowhere.
    """
    for folder in ("/tmp", "/mnt", "/media", "/srv"):  # noqa: S108  it becomes a folder of this process alone
        if os.path.isdir(folder) and not _holds_python(os.path.realpath(folder)):
            return os.path.realpath(folder)
    raise CannotIsolateError("no folder is free for the code to work in")


def start(job: dict[str, Any], libc: ctypes.CDLL) -> int:
    """The number of a process below which all runs: in a namespace its first, without one the code itself."""
    parent = os.getpid()
    first = os.fork()
    if first:
        return first
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if not job["isolated"]:
        _become_code(job, libc)
    # In its own namespace the parent's number reads 0; it died before the call above where a number is gone.
    if os.getppid() not in (0, parent):
        os._exit(1)
    code = os.fork()
    if code == 0:
        _become_code(job, libc)
    # The first process of a namespace takes in the others' children, and all end with it.
    while True:
        ended, status = os.wait()
        if ended == code:
            os._exit(_exit_code(status))


def _become_code(job: dict[str, Any], libc: ctypes.CDLL) -> NoReturn:
    try:
        _run(job, libc)
    finally:
        os._exit(1)  # whatever failed, this process must not go on as if it were its parent


def _run(job: dict[str, Any], libc: ctypes.CDLL) -> None:
    os.chdir(job["work"])
    os.environ["HOME"] = os.environ["TMPDIR"] = job["work"]
    for name in ("reply", "tests"):
        # What is no Unicode text is Python's to refuse, as a fault of the code.
        Path(f"{name}.py").write_text(job[name], encoding="utf-8", errors="surrogatepass")
    os.dup2(2, 1)
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, job["file_bytes"]),
        (resource.RLIMIT_NOFILE, job["open_files"]),
        (resource.RLIMIT_AS, job["memory_bytes"]),
    ):
        resource.setrlimit(limit, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (job["cpu_seconds"], job["cpu_seconds"] + 1))
    if job["isolated"]:  # without, all processes of the user would count
        resource.setrlimit(resource.RLIMIT_NPROC, (job["processes"], job["processes"]))
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # -I: neither the environment nor the folder decides what is imported.
    os.execv(sys.executable, [sys.executable, "-I", "-B", "-c", RUNNER])  # noqa: S606  the interpreter that runs now


def watch(first: int, job: dict[str, Any]) -> dict[str, Any]:
    """Wait for the code, within its time and number of processes; what is left of it is ended."""
    began, counted = time.monotonic(), 0.0
    reason = None
    while True:
        ended, status = os.waitpid(first, os.WNOHANG)
        if ended:
            break
        now = time.monotonic() - began
        if now > job["wall_seconds"]:
            reason = "time"
        elif now > counted + COUNT_SECONDS:
            counted = now
            reason = "processes" if len(_below(first)) > job["processes"] else None
        if reason is not None:
            os.kill(first, signal.SIGKILL)
            _, status = os.waitpid(first, 0)
            break
        time.sleep(0.005)
    while left := _below(os.getpid()):  # without a namespace; this process has taken them in
        for number in left:
            os.kill(number, signal.SIGKILL)
        for _ in left:
            os.waitpid(-1, 0)
    return {"code": _exit_code(status), "reason": reason}


def _below(number: int) -> list[int]:
    """All processes below one, itself not counted."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace")
            except OSError:  # it has ended since
                continue
            parent = int(text.rpartition(")")[2].split()[1])  # behind its name, which may hold anything
            children.setdefault(parent, []).append(int(entry))
    found = [number]
    for parent in found:
        found += children.get(parent, [])
    return found[1:]


def _exit_code(status: int) -> int:
    """As shells have it: 128 and the signal, where one ended it."""
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def main() -> None:
    """Do the job on standard input."""
    job = json.loads(sys.stdin.buffer.read())
    libc = ctypes.CDLL(None, use_errno=True)
    report: dict[str, Any]
    try:
        if job["isolated"]:
            job["work"] = work_folder()
            isolate(libc, job["work"], job["work_bytes"])
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        report = watch(start(job, libc), job)
    except CannotIsolateError as error:
        report = {"not_isolated": str(error)}
    os.write(1, json.dumps(report).encode())


if __name__ == "__main__":
    main()

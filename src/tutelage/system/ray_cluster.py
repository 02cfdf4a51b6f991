"""A Ray cluster: one that is there, or one of this machine that begins and ends with the block.

One of this machine sends no statistics, has no dashboard, listens on the loopback alone, writes its logs into a folder
that is deleted, and takes no signal of the keyboard for its own.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, DependencyError, EngineError, cause_of

INSTALL = "pip install 'tutelage[ray]'"
ADDRESS, TOKEN = "RAY_ADDRESS", "RAY_AUTH_TOKEN"
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Where it is 0, Ray takes 127.0.0.1 for this machine's address and listens there alone, as on macOS; else on every
address that the machine has. It is read when ray is imported (Ray 2.60, ray_constants.py)."""
TOKEN_NAMES = frozenset({"RAY_AUTH_MODE", TOKEN, "RAY_AUTH_TOKEN_PATH"})
STORE_BYTES_PER_WORKER = 256 << 20
"""Of shared memory, at most: rows that wait for a worker and what it made of them. What does not fit goes to disk."""

LONGEST_PARENT = 20
"""Characters of the folder for temporary files: the path of a socket in Ray's folder may have 107. Source: unix(7)."""
CONNECT_SECONDS = 10


def require_ray(what: str, without: str) -> None:
    """See that Ray can be imported; it is not imported yet.

    Args:
        what: asks for it.
        without: how to go without it.

    Raises:
        DependencyError: it is not installed.
    """
    if find_spec("ray") is None:
        raise DependencyError(
            f"{what} needs the package ray, which is not installed", where=what, found="No module named 'ray'",
            expected="ray", fix=f"{INSTALL}; or go without it: {without}",
        )  # fmt: skip


@contextmanager
def ray_cluster(address: str | None, workers: int) -> Iterator[Any]:
    """The module ray, connected; what this process has started is gone when the block is left.

    Args:
        address: host:port of a cluster, or "auto" for the one of this machine; None takes that of RAY_ADDRESS, and
            where there is none, starts a cluster of this machine.
        workers: processors of a cluster that is started.

    Raises:
        ConfigError: the address is of a kind that is not supported.
        EngineError: there is no cluster there, or Ray says no.
    """
    address = address or os.environ.get(ADDRESS) or "local"
    if "://" in address:
        raise ConfigError(
            "Ray's client protocol is not supported", where=f"--ray-address or {ADDRESS}", found=address,
            expected="HOST:PORT of the head node, from a machine of the cluster, or auto",
            fix="run the command on a machine of the cluster, with the address that ray start names",
        )  # fmt: skip
    if address == "local":
        os.environ.setdefault(LOOPBACK, "0")
    import ray

    if ray.is_initialized():  # a program that uses Ray for other things, too
        yield ray
        return
    handler = signal.getsignal(signal.SIGTERM)
    parent = tempfile.gettempdir()
    logs = Path(tempfile.mkdtemp(prefix="tutelage-ray-", dir=parent if len(parent) <= LONGEST_PARENT else "/tmp"))  # noqa: S108 mkdtemp makes it ours alone
    try:
        # Ray tells of workers that ended on stdout, whatever `log_to_driver` says.
        with redirect_stdout(sys.stderr):
            try:
                _init(ray, address, workers, logs)
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGTERM, handler)  # Ray has put its own there
                yield ray
            finally:
                ray.shutdown()
    finally:
        shutil.rmtree(logs, ignore_errors=True)


def _init(ray: Any, address: str, workers: int, logs: Path) -> None:
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if address == "local":
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # inherited by the cluster's processes, which would send them
        if TOKEN_NAMES.isdisjoint(os.environ):
            # Ray would write one into the home folder, and start all later clusters of this user with it, to which a
            # program that names their address does not send it (Ray 2.60, authentication_token_setup.py).
            os.environ[TOKEN] = secrets.token_hex(32)  # read once in a process, so it stays
        options |= {
            "num_cpus": workers,
            "num_gpus": 0,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES_PER_WORKER * workers,
            "_temp_dir": str(logs),
        }
    try:
        if ":" in address:
            _knock(address)
        ray.init(address=address, **options)
    except Exception as error:  # a bare one, too, where its processes do not start in time (Ray 2.60, node.py)
        raise EngineError(
            "The Ray cluster could not be started" if address == "local" else "There is no Ray cluster to work on",
            where=f"ray.init(address={address!r})", found=cause_of(error),
            expected="a running cluster with this version of Ray and Python" if address != "local" else None,
            fix="go without Ray: --engine local"
            if address == "local"
            else "name another --ray-address; where the cluster asks for a token, set RAY_AUTH_MODE=token, too",
        ) from error  # fmt: skip


def _knock(address: str) -> None:
    """See that somebody answers at HOST:PORT; Ray itself tries for four minutes."""
    host, port = address.rsplit(":", 1)
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()

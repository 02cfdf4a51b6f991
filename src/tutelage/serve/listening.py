"""Listens on a port until a signal says to end, and lets what is under way end first."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from tutelage.errors import ConfigError, cause_of
from tutelage.serve.app import Service, application

BACKLOG = 512
IDLE_SECONDS = 60
"""After which a connection that asks nothing is closed."""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_key_beyond_loopback(host: str, api_key: str | None, *, variable: str) -> None:
    """Refuse to let other machines ask without a key.

    Raises:
        ConfigError: that would be so.
    """
    if api_key is None and not is_loopback(host):
        raise ConfigError(
            "Other machines could ask this server, and no key keeps them out",
            where="--host",
            found=host,
            expected="127.0.0.1, or a key",
            fix=f"leave --host out, or put a key into the environment variable {variable}",
        )


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the host or the port cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            "The server cannot listen here",
            where=f"{host}:{port}",
            found=cause_of(error),
            fix="give another --port, or 0 for a free one",
        ) from error
    return listener


class _Server(uvicorn.Server):
    """Ends as we say it: the first signal lets what is under way end, a second Ctrl-C does not wait."""

    def __init__(self, config: uvicorn.Config, service: Service, log: Callable[[str], None]) -> None:
        super().__init__(config)
        self._service, self._log = service, log
        self.signal: int | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """In the block signals are ours; uvicorn's own would raise them once more behind it."""
        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        handlers = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler has it
        """Take a signal."""
        if self.signal is not None and sig == signal.SIGINT:
            self.force_exit = True
            return
        self.signal = self.signal or sig
        self._service.draining = self.should_exit = True
        open_replies = self._service.worker.open_replies
        self._log(f"Ending, once {open_replies} replies under way have ended" if open_replies else "Ending")


def serve(
    service: Service,
    listener: socket.socket,
    *,
    drain_seconds: int,
    log: Callable[[str], None],
    started: Callable[[uvicorn.Server], None] = lambda _server: None,
) -> int | None:
    """Answer until a signal comes; returns which one.

    Args:
        service: its worker runs, and is closed at the end.
        listener: the socket to answer on.
        drain_seconds: that replies under way may still take then.
        log: told what happens.
        started: given the server, which ends as its `should_exit` is set.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # a line of ours says what a user needs to know
    config = uvicorn.Config(
        application(service),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
        lifespan="off",
        ws="none",
        loop="asyncio",
        http="h11",
    )
    server = _Server(config, service, log)
    started(server)
    try:
        server.run(sockets=[listener])
    finally:
        service.worker.close()
        service.rendering.shutdown(wait=False, cancel_futures=True)
    return server.signal

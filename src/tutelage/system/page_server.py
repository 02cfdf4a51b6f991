"""Pages that a small server on this machine alone hands out, for who knows their address."""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import parse_qs, urlsplit

from tutelage.errors import ConfigError, SaveError, cause_of, remedy

HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")
"""What a browser may call us by, also through a tunnel: another name that leads here is a trick of another page."""
IDLE_SECONDS = 60
"""After which a connection that asks nothing is closed; browsers open some in advance."""
UNENDED_BYTES = 1 << 20
"""Of a form that is too long: so many are read and thrown away, so that the browser gets to see the answer."""

LARGEST_PORT = 65535
_SECRET = re.compile(r"[A-Za-z0-9_-]{22}")
"""128 bits in base64."""

HTML, TEXT, JSON = "text/html; charset=utf-8", "text/plain; charset=utf-8", "application/json"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a browser asks for.

    Attributes:
        method: GET shows, POST does something.
        name: of the page, below the secret; empty for the first one.
        query: what follows the name behind `?`, the first value of each.
        body: of a POST.
    """

    method: Literal["GET", "POST"]
    name: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def form(self) -> dict[str, str]:
        """The fields of a form that was sent, the first value of each; bytes that are no UTF-8 become U+FFFD."""
        return _first_values(self.body.decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class PageAnswer:
    """What the browser gets.

    Attributes:
        body: the page; a text has lone surrogates escaped, as they have no UTF-8.
        status: of HTTP.
        kind: the media type.
        location: the page to go to instead, below the secret; None for this one. A form ends in one, so that to load
            the page again sends nothing again.
        file_name: the browser saves the body under it, and shows nothing.
        sent: called once the answer is with the browser.
    """

    body: str | bytes = ""
    status: int = 200
    kind: str = HTML
    location: str | None = None
    file_name: str | None = None
    sent: Callable[[], None] = lambda: None


NOTHING = PageAnswer("nothing is here\n", 404, TEXT)


class Pages(Protocol):
    """What is served: called from several threads at once."""

    @property
    def longest_body(self) -> int:
        """Bytes of the longest form that is read."""

    def answer(self, request: PageRequest) -> PageAnswer:
        """The page, or what came of a form; `NOTHING` where there is no such page."""


def serve_pages(
    pages: Pages,
    finished: threading.Event,
    *,
    port: int | None = None,
    announce: Callable[[str], None],
    remembered: Path | None = None,
) -> None:
    """Serve until `finished` is set, or by Ctrl-C.

    Args:
        pages: what is served.
        finished: ends it.
        port: to listen on; 0 takes a free one, None that of the last time, or a free one.
        announce: told the address, which holds a secret: without it nothing is shown and nothing is taken.
        remembered: a file that keeps the address for this user alone, so that pages that are open go on when the
            server is started again; None keeps it nowhere.

    Raises:
        ConfigError: the port cannot be had.
        SaveError: the address could not be kept.
    """
    last_port, secret = (0, "") if remembered is None else _last_address(remembered)
    secret = secret or secrets.token_urlsafe(16)
    try:
        try:
            server = _Server(pages, last_port if port is None else port, secret)
        except OSError:
            if port is not None or not last_port:
                raise
            server = _Server(pages, 0, secret)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            "The page cannot be served on this port",
            where="--port",
            found=f"{port}: {cause_of(error)}",
            fix="give another port, or leave --port out for a free one",
        ) from error
    if remembered is not None:
        _keep_address(remembered, server.server_port, secret)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        announce(f"http://{HOST}:{server.server_port}{server.root}")
        finished.wait()
    except KeyboardInterrupt:
        finished.set()
    finally:
        server.shutdown()
        server.server_close()


def _last_address(path: Path) -> tuple[int, str]:
    """The port and secret of the last time; 0 and nothing where there was none that can be used."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        port, secret = kept["port"], kept["secret"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""
    if not (
        isinstance(port, int) and 0 <= port <= LARGEST_PORT and isinstance(secret, str) and _SECRET.fullmatch(secret)
    ):
        return 0, ""
    return port, secret


def _keep_address(path: Path, port: int, secret: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump({"port": port, "secret": secret}, stream)
    except OSError as error:
        raise SaveError(
            "The address of the page could not be kept", where=str(path), found=cause_of(error), fix=remedy(error)
        ) from error


def _first_values(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a connection that a browser keeps open does not hold up the end

    def __init__(self, pages: Pages, port: int, secret: str) -> None:
        self.pages, self.root = pages, f"/{secret}/"
        super().__init__((HOST, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    timeout = IDLE_SECONDS
    server: _Server
    server_version, sys_version = "tutelage", ""

    def do_GET(self) -> None:
        """A page."""
        self._answer("GET")

    def do_POST(self) -> None:
        """A form."""
        self._answer("POST")

    def log_message(self, *_line: object) -> None:
        """Nothing: the terminal is for the results."""

    def _answer(self, method: Literal["GET", "POST"]) -> None:
        path, root = urlsplit(self.path), self.server.root
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        # Of the same length, so that how long the comparison takes tells nothing of the secret.
        is_ours = hmac.compare_digest(path.path[: len(root)].encode(), root.encode())
        if host not in HOSTS or not is_ours:
            self._send(NOTHING)
            return
        body = b""
        if method == "POST":
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > self.server.pages.longest_body:
                if length.isdecimal():
                    self.rfile.read(min(int(length), UNENDED_BYTES))
                self.close_connection = True
                self._send(PageAnswer("too long\n", 413, TEXT))
                return
            body = self.rfile.read(int(length))
            if len(body) < int(length):
                return  # the browser has gone before it had sent all: half a text is no text
        name = path.path.removeprefix(root)
        self._send(self.server.pages.answer(PageRequest(method, name, _first_values(path.query), body)))

    def _send(self, answer: PageAnswer) -> None:
        body = answer.body.encode("utf-8", "backslashreplace") if isinstance(answer.body, str) else answer.body
        headers = {
            "Content-Type": answer.kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
        if answer.location is not None:
            headers["Location"] = self.server.root + answer.location
        if answer.file_name is not None:
            headers["Content-Disposition"] = f'attachment; filename="{answer.file_name}"'
        try:
            self.send_response(303 if answer.location is not None else answer.status)
            for header, value in headers.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:  # the browser has gone; it will ask again
            self.close_connection = True
        answer.sent()

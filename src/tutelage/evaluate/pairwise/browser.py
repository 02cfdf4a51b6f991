"""Asks a person in a browser: a page that a small server on this machine alone hands out, for who knows its address."""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast, get_args
from urllib.parse import parse_qs

from tutelage.errors import ConfigError, SaveError, cause_of
from tutelage.evaluate.pairwise.rating import Rating, Said
from tutelage.report.html.offline import own_parts, template

HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")
"""What a browser may call us by, also through a tunnel: another name that leads here is a trick of another page."""
LONGEST_FORM_BYTES = 4096
IDLE_SECONDS = 60
"""After which a connection that asks nothing is closed; browsers open some in advance."""


@dataclass(slots=True)
class RatingPage:
    """The page and what its buttons do, for one request at a time.

    Attributes:
        rating: of the rater.
        finished: set when the rater stops, as where all is rated.
        failure: a verdict that could not be saved; the page says so, and asks again.
    """

    rating: Rating
    finished: threading.Event = field(default_factory=threading.Event)
    failure: SaveError | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def shown(self) -> str:
        """The page as it is now."""
        with self._lock:
            question = None
            try:
                question = None if self._stopped else self.rating.question()
            except SaveError as error:  # of the tie of two equal replies
                self.failure, self._stopped = error, True
            return template("rating_page.html").render(
                question=question,
                is_over=self._stopped,
                rater=self.rating.rater,
                done=self.rating.done,
                total=self.rating.total,
                can_undo=self.rating.can_undo,
                problem=str(self.failure or ""),
                **own_parts(style=("page.css", "rating_page.css"), script=("rating_page.js",), has_forms=True),
            )

    def press(self, button: str, key: str) -> bool:
        """Do what a button of the question about this pair does; False where the page has no such button or pair."""
        with self._lock:
            self.failure = None
            try:
                if button == "quit":
                    self._stopped = True
                elif button == "undo":
                    self.rating.undo()
                elif button in get_args(Said) and (pair := self.rating.by_key(key)) is not None:
                    self.rating.say(pair, cast(Said, button))
                else:
                    return False
            except SaveError as error:
                self.failure = error
            return True

    @property
    def is_over(self) -> bool:
        """Whether the page that was shown last asks nothing more."""
        return self._stopped


def rate_in_browser(rating: Rating, *, port: int = 0, announce: Callable[[str], None]) -> None:
    """Serve the page until the rater stops there, or by Ctrl-C; nothing is lost either way.

    Args:
        rating: of the rater.
        port: to listen on; 0 takes a free one.
        announce: told the address, which holds a secret: without it nothing is shown and no verdict is taken.

    Raises:
        ConfigError: the port cannot be had.
        SaveError: the last thing that was said could not be saved.
    """
    page = RatingPage(rating)
    try:
        server = _Server(page, port)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            "The page cannot be served on this port",
            where="--port",
            found=f"{port}: {cause_of(error)}",
            fix="give another port, or leave --port out for a free one",
        ) from error
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        announce(f"http://{HOST}:{server.server_port}{server.root}")
        page.finished.wait()
    except KeyboardInterrupt:
        page.finished.set()
    finally:
        server.shutdown()
        server.server_close()
    if page.failure is not None:
        raise page.failure


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a connection that a browser keeps open does not hold up the end

    def __init__(self, page: RatingPage, port: int) -> None:
        self.page, self.root = page, f"/{secrets.token_urlsafe(16)}/"
        super().__init__((HOST, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    timeout = IDLE_SECONDS
    server: _Server
    server_version, sys_version = "tutelage", ""

    def do_GET(self) -> None:
        """The page."""
        if not self._is_ours(""):
            return
        text = self.server.page.shown()
        self._send(200, "text/html; charset=utf-8", text.encode("utf-8", "backslashreplace"))
        if self.server.page.is_over:  # behind the last page, which is with the browser by now
            self.server.page.finished.set()

    def do_POST(self) -> None:
        """A button; the page comes by a redirect, so that to load it again presses nothing again."""
        if not self._is_ours("say"):
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LONGEST_FORM_BYTES:
            self._send(413, "text/plain", b"too long\n")
            return
        fields = parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace"))
        button, key = (fields.get(name, [""])[0] for name in ("say", "pair"))
        if self.server.page.press(button, key):
            self._send(303, "text/plain", b"", Location=self.server.root)
        else:
            self._send(400, "text/plain", b"no such button\n")

    def log_message(self, *_line: object) -> None:
        """Nothing: the terminal is for the results."""

    def _is_ours(self, name: str) -> bool:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host in HOSTS and hmac.compare_digest(self.path.encode(), f"{self.server.root}{name}".encode()):
            return True
        self._send(404, "text/plain", b"nothing is here\n")
        return False

    def _send(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        try:
            self.send_response(status)
            for header, value in {
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "Cache-Control": "no-store",
                "Referrer-Policy": "no-referrer",
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
                **headers,
            }.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        except OSError:  # the browser has gone; it will ask again
            self.close_connection = True

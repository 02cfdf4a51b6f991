"""A chat completions endpoint on this machine: it answers, stalls, refuses or talks nonsense as a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the endpoint sends back. `stall` waits before the body; `dribble` waits between its bytes."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    stall: float = 0.0
    dribble: float = 0.0
    cut_connection: bool = False
    announced: int | None = None


def said(text: str | None, *, tokens: int | None = 100, finish_reason: str = "stop") -> Reply:
    """A chat completion."""
    message = {"role": "assistant", "content": text}
    body: dict[str, Any] = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}]}
    if tokens is not None:
        body["usage"] = {"prompt_tokens": tokens - 5, "completion_tokens": 5, "total_tokens": tokens}
    return Reply(body=json.dumps(body).encode())


def refused(status: int, message: str = "no", **headers: str) -> Reply:
    """An error as the OpenAI API writes it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps({"error": {"message": message}}).encode(), named)


@dataclass
class FakeEndpoint:
    """Where it listens, and every request that it got: its path, headers and body."""

    url: str
    requests: list[tuple[str, Mapping[str, str], dict[str, Any]]] = field(default_factory=list)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, _, body in self.requests]


@contextmanager
def fake_endpoint(answer: Callable[[dict[str, Any], int], Reply]) -> Iterator[FakeEndpoint]:
    """Listen while the block runs.

    Args:
        answer: of a request and its number, from 0.
    """
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(endpoint.requests)
                endpoint.requests.append((self.path, dict(self.headers), body))
            self._send(answer(body, number))

        do_GET = do_POST

        def _send(self, reply: Reply) -> None:
            if reply.cut_connection:
                self.close_connection = True
                self.connection.close()
                return
            try:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                length = len(reply.body) if reply.announced is None else reply.announced
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.flush()
                time.sleep(reply.stall)
                if reply.dribble:
                    for position in range(len(reply.body)):
                        self.wfile.write(reply.body[position : position + 1])
                        time.sleep(reply.dribble)
                else:
                    self.wfile.write(reply.body)
            except OSError:  # whoever asked has gone
                self.close_connection = True

        def log_message(self, *_line: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint = FakeEndpoint(f"http://127.0.0.1:{server.server_port}/v1")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()

"""A real server on a loopback port, in a thread of this process, with the tiny model, and OpenAI's own client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tutelage.builders.served_models import ServedModels, open_served_models
from tutelage.serve.app import Service
from tutelage.serve.asking import Limits
from tutelage.serve.listening import listening_socket, serve
from tutelage.serve.starting import service_of


@dataclass
class Running:
    """A server that runs.

    Attributes:
        url: of its API, with `/v1`.
        service: what its paths share.
        lines: that it logged.
    """

    url: str
    service: Service
    lines: list[str] = field(default_factory=list)

    def client(self, *, api_key: str = "none", **options: Any) -> Any:
        openai = pytest.importorskip("openai", reason="the client of OpenAI is the witness of these tests")
        return openai.OpenAI(base_url=self.url, api_key=api_key, **({"max_retries": 0, "timeout": 30} | options))

    def wait_until(self, is_so: Callable[[], bool], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, "it did not come to that in time"
            time.sleep(0.01)


@contextmanager
def running(
    names: Sequence[str] = (), *, served: ServedModels | None = None, batch: int = 8, queue: int = 16, **changes: Any
) -> Iterator[Running]:
    """Serve models, until the block ends; `changes` are those of limits and of the service."""
    opened = served or open_served_models(names, active_replies=batch, log=lambda _line: None)
    lines: list[str] = []
    limits = {"prompt_tokens": 4096, "reply_tokens": 256, "seconds": 30.0, "body_bytes": 200_000}
    limits |= {name: changes.pop(name) for name in list(changes) if name in limits}
    options = {"api_key": None, "is_local": True, "cache_tokens": 4096} | changes
    listener = listening_socket("127.0.0.1", 0)
    service = service_of(opened, limits=Limits(**limits), most_replies=batch + queue, log=lines.append, **options)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    stop: list[Any] = []
    thread = threading.Thread(
        target=serve, args=(service, listener), kwargs={"drain_seconds": 5, "log": lines.append, "started": stop.append}
    )
    thread.start()
    try:
        yield Running(url, service, lines)
    finally:
        while not stop:
            time.sleep(0.01)
        stop[0].should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server does not end"

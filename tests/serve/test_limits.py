"""Who may ask, how much, and what becomes of what was asked when its asker leaves or the server ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serve.conftest import NAME
from tests.support.served import Running, running
from tutelage.builders.served_models import ServedModels, open_served_models
from tutelage.errors import ConfigError
from tutelage.serve.listening import is_loopback, require_key_beyond_loopback

ASKED = [{"role": "user", "content": "The old shop"}]
LONG = {"model": NAME, "messages": ASKED, "max_tokens": 256, "temperature": 0, "logit_bias": {"70": 100}}
KEY = "planted-secret-7f3a"
SAID = "planted-words-91c2"


@pytest.fixture(scope="module")
def served(tiny_model_folder: Path) -> ServedModels:
    return open_served_models([f"{NAME}={tiny_model_folder}"], active_replies=2, log=lambda _line: None)


def posted(server: Running, body: bytes, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(server.url.split("/")[2], timeout=20)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"} | headers)
    response = connection.getresponse()
    value = json.loads(response.read())
    connection.close()
    return response.status, value


def test_too_many_are_told_to_come_again_and_the_client_does(served: ServedModels) -> None:
    with running(served=served, batch=2, queue=1) as server:
        client = server.client()
        streams = [client.chat.completions.create(**LONG, stream=True) for _ in range(3)]
        with pytest.raises(openai.RateLimitError) as met:
            client.chat.completions.create(**LONG)
        assert int(met.value.response.headers["retry-after"]) >= 1
        assert met.value.code == "rate_limit_exceeded"
        for stream in streams:
            stream.close()
        assert server.client(max_retries=5).chat.completions.create(**LONG | {"max_tokens": 2}).choices


def test_a_client_that_leaves_frees_its_place(served: ServedModels) -> None:
    with running(served=served, batch=2, queue=4) as server:
        stream = server.client().chat.completions.create(**LONG, stream=True)
        next(iter(stream))
        stream.close()
        server.wait_until(lambda: server.service.worker.open_replies == 0)
        connection = http.client.HTTPConnection(server.url.split("/")[2])
        body = json.dumps(LONG).encode()
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        server.wait_until(lambda: server.service.worker.open_replies == 1)
        connection.close()
        server.wait_until(lambda: server.service.worker.open_replies == 0)
        assert server.service.worker.counts.cancelled == 2
        (session,) = server.service.worker._sessions
        assert session is not None
        assert session._schedule._cache.tokens_allocated == 0


def test_a_request_that_takes_too_long_ends(served: ServedModels) -> None:
    with running(served=served, seconds=0.02) as server:
        with pytest.raises(openai.InternalServerError) as met:
            server.client().chat.completions.create(**LONG)
        assert (met.value.status_code, met.value.code) == (504, "timeout")
        with pytest.raises(openai.APIError, match="No whole reply within"):
            list(server.client().chat.completions.create(**LONG, stream=True))
        server.wait_until(lambda: server.service.worker.open_replies == 0)


def test_a_failure_of_the_engine_is_told_to_those_it_met_alone(
    served: ServedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tutelage.generate.engine import Engine

    with running(served=served) as server:
        step, failures = Engine._step, iter([MemoryError("no room")])

        def failing(*arguments: Any) -> Any:
            if (error := next(failures, None)) is not None:
                raise error
            return step(*arguments)

        monkeypatch.setattr(Engine, "_step", failing)
        with pytest.raises(openai.InternalServerError) as met:
            server.client().chat.completions.create(**LONG)
        assert (met.value.status_code, met.value.code) == (503, "out_of_memory")
        assert "no room" not in met.value.message
        assert server.client().chat.completions.create(**LONG | {"max_tokens": 2}).choices[0].finish_reason == "length"


def test_a_key_is_asked_for_and_stands_nowhere(served: ServedModels) -> None:
    with running(served=served, api_key=KEY) as server:
        assert KEY not in repr(server.service)
        for wrong in ("none", KEY[:-1], KEY + "x"):
            with pytest.raises(openai.AuthenticationError) as met:
                server.client(api_key=wrong).models.list()
            assert KEY not in str(met.value.body)
        client = server.client(api_key=KEY)
        messages = [{"role": "user", "content": SAID}]
        client.chat.completions.create(model=NAME, messages=messages, max_tokens=2, user=SAID)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=SAID, messages=messages)
        with pytest.raises(openai.NotFoundError):
            client.get(f"/{SAID}", cast_to=object)
        assert len(server.lines) >= 6
        assert not any(secret in line for line in server.lines for secret in (KEY, SAID))


def test_pages_of_others_cannot_ask(server: Running) -> None:
    body = json.dumps(LONG | {"max_tokens": 1}).encode()
    assert posted(server, body)[0] == 200
    assert posted(server, body, **{"Content-Type": "text/plain"})[0] == 415
    assert posted(server, body, Host="evil.example")[0] == 421
    assert posted(server, body, Host="localhost:1")[0] == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"nan", b'{"model": NaN}', b"[" * 100_000, b"\xff\xfe", b'{"model": "\\ud800"}', b"9" * 9000],
)
def test_what_is_no_request_is_refused(server: Running, body: bytes) -> None:
    status, value = posted(server, body)
    assert status == 400
    assert value["error"]["type"] == "invalid_request_error"


def test_a_long_body_is_not_read_to_its_end(server: Running) -> None:
    status, value = posted(server, b'{"model": "' + b"x" * 300_000)
    assert (status, value["error"]["code"]) == (413, "request_too_large")


def test_beyond_this_machine_a_key_is_needed() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1")] == [True] * 4
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", ""):
        with pytest.raises(ConfigError, match="no key keeps them out"):
            require_key_beyond_loopback(host, None, variable="KEY")
        require_key_beyond_loopback(host, "x", variable="KEY")


@pytest.fixture
def process(tiny_model_folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "tutelage", "serve", f"{NAME}={tiny_model_folder}", "--port", "0"]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    )
    assert started.stdout is not None
    lines = []
    while "Listening on" not in (line := started.stdout.readline()):
        lines.append(line)
        assert started.poll() is None, lines
    yield started, line.split()[2]
    started.kill()
    started.wait()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_lets_what_is_under_way_end(
    process: tuple[subprocess.Popen[str], str], number: signal.Signals, status: int
) -> None:
    started, url = process
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    stream = client.chat.completions.create(**LONG, stream=True)
    chunks = [next(iter(stream))]
    started.send_signal(number)
    time.sleep(0.2)
    chunks += stream
    assert chunks[-1].choices[0].finish_reason == "length"
    assert started.wait(20) == status
    assert started.stdout is not None
    assert "Ending" in started.stdout.read()
    with pytest.raises(openai.APIConnectionError):
        client.models.list()

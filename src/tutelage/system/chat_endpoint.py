"""One request to an OpenAI-compatible chat completions endpoint, and what became of it.

urllib and no client library: huggingface_hub, the one dependency that speaks HTTP, brought httpx in its first versions
and httpx2 in later ones, so that no name can be imported over the range that is allowed. urllib knows proxies and
certificates, too, and here it follows no redirect, which would hand the key to another server.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from tutelage.errors import ConfigError

COMPLETIONS = "/chat/completions"
LONGEST_BODY_BYTES = 4 * 1024 * 1024
"""An answer of some thousand tokens takes a hundredth of it; what is longer is not read to its end."""
SHOWN_CHARACTERS = 200
UNAUTHORIZED = (401, 403)
WRONG_PLACE = (301, 302, 303, 307, 308, 404, 405)
PASSING = (408, 409, 425, 429)
"""Statuses below 500 of which the same request may do better later."""

ChatMessage: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SettingNames:
    """What the settings of an endpoint are called where the user gives them, for what errors say."""

    url: str = "--endpoint"
    model: str = "--model"
    key: str = "--key-env"
    timeout: str = "--timeout"
    answer_tokens: str = "--answer-tokens"
    most_requests: str = "--max-requests"
    most_tokens: str = "--max-tokens"
    most_cost: str = ""


COMMAND_LINE = SettingNames()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a judge answers.

    Attributes:
        url: of chat completions.
        model: its name there.
        key: sent as a bearer token; None sends none. It is in no text of this object.
        timeout_seconds: of one request, from the connection to the last byte.
        answer_tokens: the longest answer.
        names: of these settings.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout_seconds: float = 60.0
    answer_tokens: int = 512
    names: SettingNames = COMMAND_LINE


@dataclass(frozen=True, slots=True)
class Answer:
    """What the judge said.

    Attributes:
        text: its answer.
        tokens: those of prompt and answer, None where the endpoint counts none.
        was_cut: the answer ended at its limit.
        prompt_tokens: those of the prompt alone, None where the endpoint does not say.
    """

    text: str
    tokens: int | None
    was_cut: bool
    prompt_tokens: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why there is no answer.

    Attributes:
        reason: in words.
        scope: passing may go better later; prompt concerns this prompt alone; all concerns every further one.
        wait_seconds: that the endpoint asks for.
        fix: what to do about trouble of the scope all, with the names of settings in braces (`SettingNames`).
        contact: False where nothing answered at all.
    """

    reason: str
    scope: Literal["passing", "prompt", "all"]
    wait_seconds: float | None = None
    fix: str = "check {url} and {model}"
    contact: bool = True


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)

    content: str | None = None


class _ChatChoice(BaseModel):
    model_config = ConfigDict(strict=True)

    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    model_config = ConfigDict(strict=True)

    total_tokens: int | None = None
    prompt_tokens: int | None = None


class _Completion(BaseModel):
    model_config = ConfigDict(strict=True)

    choices: list[_ChatChoice]
    usage: _Usage | None = None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_of_the_redirect: Any, **_named: Any) -> None:
        """None is made; the status is then an error like any other."""


def endpoint_url(text: str, names: SettingNames = COMMAND_LINE) -> str:
    """The URL of chat completions below a base such as http://127.0.0.1:8000/v1, or that URL itself.

    Raises:
        ConfigError: it is no http or https URL, or holds a user or password.
    """
    try:
        parts = urlsplit(text.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # of a port or an IPv6 address
        parts, usable = SplitResult("", "", "", "", ""), False
    has_odd_characters = not text.strip().isascii() or not text.strip().isprintable() or " " in text.strip()
    if not usable or parts.username is not None or has_odd_characters:
        raise ConfigError(
            "The endpoint is no URL that can be asked",
            where=names.url,
            found="a user name or password in it" if parts.username is not None else text,
            expected="a base URL such as http://127.0.0.1:8000/v1",
            fix=f"give the URL without a key; a key goes into an environment variable: {names.key} NAME",
        )
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(COMPLETIONS) else path + COMPLETIONS, fragment=""))


def shows_key(endpoint: Endpoint) -> bool:
    """Whether the key goes to another machine without encryption."""
    return endpoint.key is not None and endpoint.url.startswith("http:") and not _is_here(endpoint)


def key_from_environment(name: str | None, names: SettingNames = COMMAND_LINE) -> str | None:
    """The key in an environment variable; None where no variable is named.

    Raises:
        ConfigError: it is not set, or holds what no header can.
    """
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"The environment variable {name} holds no key",
            where=names.key,
            found="characters that no key has" if key else "nothing",
            expected="the name of a variable that holds the key, not the key itself",
            fix="set it, for example from a file: export NAME=$(cat key.txt)",
        )
    return key


def ask_once(endpoint: Endpoint, messages: Sequence[ChatMessage], options: Mapping[str, object]) -> Answer | Trouble:
    """Send one request and wait for its answer.

    Args:
        endpoint: where to.
        messages: the prompt.
        options: more fields of the request.
    """
    body = json.dumps({"model": endpoint.model, "messages": list(messages), **options}).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "tutelage"}
    if endpoint.key is not None:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    request = urllib.request.Request(endpoint.url, body, headers, method="POST")  # noqa: S310 - `endpoint_url` lets http and https through alone
    deadline = time.monotonic() + endpoint.timeout_seconds
    try:
        with _opener(endpoint).open(request, timeout=endpoint.timeout_seconds) as response:
            return _answer(_read(response, deadline))
    except urllib.error.HTTPError as error:
        with error:
            return _refused(error, _read_or_nothing(error, deadline))
    except TimeoutError:
        return _late(endpoint)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        return _not_reached(endpoint, error)


def _is_here(endpoint: Endpoint) -> bool:
    return urlsplit(endpoint.url).hostname in ("localhost", "127.0.0.1", "::1")


def _opener(endpoint: Endpoint) -> urllib.request.OpenerDirector:
    """Through the proxy that the environment names, but for this machine, which a proxy would look for on its own."""
    proxies = {} if _is_here(endpoint) else urllib.request.getproxies()
    authorities = tuple(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    return _opener_through(tuple(sorted(proxies.items())), authorities)


@lru_cache(maxsize=8)
def _opener_through(
    proxies: tuple[tuple[str, str], ...],
    _authorities: tuple[str | None, ...],  # reading them anew for each request takes 20 ms
) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler(dict(proxies)))


def _read(response: Any, deadline: float) -> bytes:
    """The body; one that dribbles in is given up at the deadline.

    Raises:
        TimeoutError: it is not whole by then.
        OSError, HTTPException: the connection breaks.
    """
    content = b""
    while len(content) <= LONGEST_BODY_BYTES:
        if time.monotonic() > deadline:
            raise TimeoutError
        if not (part := response.read1(65536)):
            break
        content += part
    if (announced := response.headers.get("Content-Length", "")).isdecimal() and len(content) < int(announced):
        raise http.client.IncompleteRead(content[:0], int(announced) - len(content))
    return content


def _read_or_nothing(response: Any, deadline: float) -> bytes:
    try:
        return _read(response, deadline)
    except (OSError, http.client.HTTPException):
        return b""


def _answer(body: bytes) -> Answer | Trouble:
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError:
        return Trouble(f"the body is {_kind_of(body)}", "passing")
    if not completion.choices:
        return Trouble("the body holds no choices", "passing")
    first = completion.choices[0]
    tokens = completion.usage.total_tokens if completion.usage else None
    of_prompt = completion.usage.prompt_tokens if completion.usage else None
    return Answer(first.message.content or "", tokens, first.finish_reason == "length", of_prompt)


def _kind_of(body: bytes) -> str:
    """What a body is that is no chat completion."""
    text = " ".join(body[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace").split())
    if not text:
        return "empty"
    shown = text[:SHOWN_CHARACTERS]
    if text.startswith("<"):
        return f"HTML, not JSON: {shown}"
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return f"no whole JSON: {shown}"
    return f"JSON, but no chat completion: {shown}"


def _refused(error: urllib.error.HTTPError, body: bytes) -> Trouble:
    status = error.code
    reason = f"status {status}: {_said(body) or error.reason}"
    if status in UNAUTHORIZED:
        fix = "name the environment variable that holds a key which may use this model: {key} NAME"
        return Trouble(reason, "all", fix=fix)
    if status in WRONG_PLACE:
        elsewhere = error.headers.get("Location")
        return Trouble(
            f"{reason}, and it points to {elsewhere}" if elsewhere else reason,
            "all",
            fix="check the name of the model, and that the endpoint is the base URL, which often ends in /v1",
        )
    if status == 429 and b"insufficient_quota" in body:
        return Trouble(reason, "all", fix="the account behind the key has nothing left; see to it, then go on")
    if status in PASSING or status >= 500:
        return Trouble(reason, "passing", wait_seconds=_retry_after(error.headers.get("Retry-After")))
    return Trouble(reason, "prompt")


def _said(body: bytes) -> str:
    """The message of an error as most servers write it, or what else the body begins with."""
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        return " ".join(body[:SHOWN_CHARACTERS].decode("utf-8", "replace").split())
    for key in ("error", "detail", "message"):
        if isinstance(error, dict) and key in error:
            error = error[key]
    return (error if isinstance(error, str) else json.dumps(error))[:SHOWN_CHARACTERS]


def _retry_after(header: str | None) -> float | None:
    """Seconds, from seconds or a date (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def _late(endpoint: Endpoint) -> Trouble:
    return Trouble(f"no whole answer in {endpoint.timeout_seconds:g} s", "passing", fix="allow more time: {timeout}")


def _not_reached(endpoint: Endpoint, error: Exception) -> Trouble:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return _late(endpoint)
    if isinstance(cause, ssl.SSLCertVerificationError):
        fix = "see to the certificate; SSL_CERT_FILE names a file of authorities"
        return Trouble(f"its certificate is not trusted: {cause.verify_message}", "all", fix=fix)
    if isinstance(cause, http.client.HTTPException):
        return Trouble(f"the answer breaks off ({type(cause).__name__})", "passing")
    if isinstance(cause, ConnectionResetError | BrokenPipeError):
        return Trouble("the connection was cut", "passing")
    words = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    known = "unknown host" if isinstance(cause, socket.gaierror) else words
    return Trouble(f"it cannot be reached: {known}", "passing", fix="check {url}, and that it runs", contact=False)

"""The paths of the server, who may ask them, and how much a request may hold."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as ASGIMessage

from tutelage.builders.served_models import ServedModel
from tutelage.errors import SaveError
from tutelage.render.call_form import CallForm, call_form_of
from tutelage.serve.asking import Asked, Limits, chat_asked, completion_asked, require_text
from tutelage.serve.chat import chat_body, chat_chunks
from tutelage.serve.completions import completion_body, completion_chunks
from tutelage.serve.conversation import Underway, answering, submitted
from tutelage.serve.grammars import GrammarMaker
from tutelage.serve.problems import Problem, bad_field, of_error, of_fields
from tutelage.serve.ratings import Ratings, Verdict, talk_page
from tutelage.serve.request_fields import ChatFields, CompletionFields
from tutelage.serve.worker import Worker

Fields = TypeVar("Fields", bound=BaseModel)
MODEL_FIELD = "model"
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""What a server on this machine alone is called: another name that leads here is a trick of a page elsewhere."""
OPEN_PATHS = ("/health", "/")
"""Asked without a key: they tell nothing of models or requests."""


@dataclass(slots=True)
class Service:
    """What the paths share.

    Attributes:
        models: by name.
        worker: answers.
        limits: of one request.
        api_key: that requests must bring; None: none.
        is_local: it listens on this machine alone.
        ratings: takes what people say is better on the page; None: nobody is asked.
        log: told a line for each request: path, status, tokens and seconds, and nothing that was said.
    """

    models: dict[str, ServedModel]
    worker: Worker
    limits: Limits
    api_key: str | None = field(repr=False)
    is_local: bool
    log: Callable[[str], None]
    created: int = field(default_factory=lambda: int(time.time()))
    rendering: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "render"))
    ratings: Ratings | None = None
    draining: bool = False
    _grammars: dict[str, GrammarMaker] = field(default_factory=dict)
    _call_forms: dict[str, CallForm | None] = field(default_factory=dict)

    def model(self, name: str) -> ServedModel:
        """Who answers to a name.

        Raises:
            Problem: nobody.
        """
        if name not in self.models:
            raise Problem(
                404,
                f"The model '{name[:100]}' does not exist. There are: {', '.join(self.models)}.",
                param=MODEL_FIELD,
                code="model_not_found",
            )
        return self.models[name]

    def chat_asked(self, fields: ChatFields) -> Asked:
        """What a chat completion asks of the engine.

        Raises:
            Problem: it cannot be asked.
        """
        model = self.model(fields.model)
        grammar = self._grammars.setdefault(model.name, GrammarMaker(model.renderer.tokenizer))
        held = grammar.of_format(fields.response_format)
        if held is not None and fields.tools and fields.tool_choice != "none":
            raise bad_field("response_format", "'response_format' with 'tools' is not supported.")
        return chat_asked(
            model, fields, self.limits,
            grammar=held, of_lark=grammar.of_lark, call_form=lambda: self._call_form(model),
        )  # fmt: skip

    def _call_form(self, model: ServedModel) -> CallForm | None:
        if model.name not in self._call_forms:
            self._call_forms[model.name] = call_form_of(model.renderer)
        return self._call_forms[model.name]


def application(service: Service) -> FastAPI:
    """The paths, on top of a service whose worker runs."""
    app = FastAPI(title="tutelage", docs_url=None, redoc_url=None)
    app.add_middleware(_Guard, service=service)
    app.exception_handler(Problem)(lambda _request, problem: _said(problem))
    app.exception_handler(HTTPException)(_of_path)

    @app.get("/health")
    async def health() -> JSONResponse:
        is_well = service.worker.is_alive and not service.draining
        return JSONResponse({"status": "ok" if is_well else "ending"}, 200 if is_well else 503)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model_body(service, model) for model in service.models.values()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return _model_body(service, service.model(name))

    @app.post("/v1/chat/completions", openapi_extra=_body_schema(ChatFields))
    async def chat_completions(request: Request) -> Response:
        fields = await _fields(service, request, ChatFields)
        asked = await _rendered(service, lambda: service.chat_asked(fields))
        if fields.stream:
            return _stream(service, asked, lambda underway: chat_chunks(fields, underway))
        return await _whole(service, request, asked, lambda underway: chat_body(fields, underway))

    @app.post("/v1/completions", openapi_extra=_body_schema(CompletionFields))
    async def completions(request: Request) -> Response:
        fields = await _fields(service, request, CompletionFields)
        asked = await _rendered(service, lambda: completion_asked(service.model(fields.model), fields, service.limits))
        if fields.stream:
            return _stream(service, asked, lambda underway: completion_chunks(fields, underway))
        return await _whole(service, request, asked, lambda underway: completion_body(fields, underway))

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(_metrics(service.worker), media_type="text/plain; version=0.0.4")

    _add_page(app, service)
    return app


def _add_page(app: FastAPI, service: Service) -> None:
    """The page to talk to two models, and where its verdicts go."""

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        text, policy = talk_page(needs_key=service.api_key is not None, rates=service.ratings is not None)
        headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'", "Cache-Control": "no-store"}
        return HTMLResponse(text, headers=headers)

    @app.post("/ratings", include_in_schema=False)
    async def rate(request: Request) -> dict[str, bool]:
        verdict = await _fields(service, request, Verdict)
        if service.ratings is None:
            raise Problem(404, "No ratings are taken: the server was started without --ratings FOLDER.")
        try:
            service.ratings.add(verdict)
        except SaveError as error:
            raise of_error(error, None, status=507) from error
        return {"saved": True}


def _body_schema(fields: type[BaseModel]) -> dict[str, Any]:
    """What the description of the paths says of a body, which is read here and not by FastAPI."""
    schema = fields.model_json_schema(ref_template="#/components/schemas/{model}")
    for name in ("$defs",):
        definitions = schema.pop(name, {})
    text = json.dumps(schema)
    for name, definition in definitions.items():  # inlined, as nothing else holds them
        text = text.replace(json.dumps({"$ref": f"#/components/schemas/{name}"}), json.dumps(definition))
    for name, definition in definitions.items():
        text = text.replace(json.dumps({"$ref": f"#/components/schemas/{name}"}), json.dumps(definition))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": json.loads(text)}}}}


def _model_body(service: Service, model: ServedModel) -> dict[str, Any]:
    owner = "base" if model.base is None else model.base
    return {
        "id": model.name,
        "object": "model",
        "created": service.created,
        "owned_by": "tutelage",
        "root": owner if model.base is not None else model.name,
        "parent": model.base,
        "max_model_len": model.positions,
    }


class _Guard:
    """Refuses who may not ask, and writes a line about the rest; it stands around all paths."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request, started, status = Request(scope, receive), time.perf_counter(), 0

        async def sending(message: ASGIMessage) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            _require_welcome(self._service, request)
        except Problem as problem:
            await _said(problem)(scope, receive, sending)
        else:
            await self._app(scope, receive, sending)
        if scope["path"].startswith("/v1/"):
            seconds = time.perf_counter() - started
            self._service.log(f"{_known_method(request)} {_known_path(request)} {status} {seconds:.2f} s")


def _known_path(request: Request) -> str:
    """The path as we name it: what was asked for may hold anything."""
    route = request.scope.get("route")
    return getattr(route, "path", "(no such path)")


def _known_method(request: Request) -> str:
    return request.method if request.method in ("GET", "POST", "HEAD", "OPTIONS") else "(another method)"


def _require_welcome(service: Service, request: Request) -> None:
    host = request.headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if service.is_local and name not in LOCAL_NAMES:
        raise Problem(421, f"This server answers on this machine alone, as {' or '.join(LOCAL_NAMES)}.")
    if service.api_key is not None and request.url.path not in OPEN_PATHS:
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), service.api_key.encode()):
            raise Problem(401, "Incorrect API key provided.", code="invalid_api_key")


async def _fields(service: Service, request: Request, kind: type[Fields]) -> Fields:
    """The body as fields.

    Raises:
        Problem: it is too long, no JSON, or has other fields.
    """
    if service.draining:
        raise Problem(503, "The server is shutting down.", kind="server_error", code="shutting_down")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":  # a page of another site can send other types unasked
        raise Problem(415, "The body must be JSON, with Content-Type: application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > service.limits.body_bytes:
            raise Problem(413, f"The body has more than {service.limits.body_bytes} bytes.", code="request_too_large")
    try:
        value = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Problem(400, "We could not parse the JSON body of your request.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Problem(400, "The body must be a JSON object.")
    require_text(value)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise of_fields(error.errors(include_url=False, include_input=False)) from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


async def _rendered(service: Service, ask: Callable[[], Asked]) -> Asked:
    """What the engine is to be asked, rendered in a thread of its own: a template may take its time.

    Raises:
        Problem: it cannot be asked.
    """
    return await asyncio.get_running_loop().run_in_executor(service.rendering, ask)


async def _whole(
    service: Service, request: Request, asked: Asked, reply: Callable[[Underway], Awaitable[dict[str, Any]]]
) -> Response:
    underway = submitted(service.worker, asked)

    async def answer() -> dict[str, Any]:
        async with answering(service.worker, underway, service.limits):
            return await reply(underway)

    answered = asyncio.ensure_future(answer())
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({answered, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answered.done():
            return JSONResponse(answered.result())
        return Response(status_code=499)  # nobody reads it
    finally:
        for task in (answered, gone):
            task.cancel()


async def _left(request: Request) -> None:
    """Wait until whoever asked has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _stream(service: Service, asked: Asked, chunks: Callable[[Underway], AsyncIterator[dict[str, Any]]]) -> Response:
    underway = submitted(service.worker, asked)  # before the first line of the answer, which says 200

    async def lines() -> AsyncIterator[bytes]:
        try:
            async with answering(service.worker, underway, service.limits):
                async for chunk in chunks(underway):
                    yield _line(chunk)
            yield b"data: [DONE]\n\n"
        except Problem as problem:
            yield _line(problem.body)

    return _Stream(lines(), lambda: service.worker.cancel(underway.tickets))


class _Stream(StreamingResponse):
    """Lines as they come; `left` is called at its end, also where not one was sent."""

    def __init__(self, lines: AsyncIterator[bytes], left: Callable[[], None]) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._left()


def _line(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n\n"


def _said(problem: Problem) -> JSONResponse:
    return JSONResponse(problem.body, problem.status, headers=problem.headers)


async def _of_path(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _said(
            Problem(404, f"Unknown request URL: {request.method} {request.url.path[:100]}.", code="unknown_url")
        )
    return _said(Problem(error.status_code, f"{error.detail}."))


def _metrics(worker: Worker) -> str:
    """Counts since the start, as Prometheus reads them."""
    counts = worker.counts
    values = {
        "tutelage_requests_total": counts.requests,
        "tutelage_requests_cancelled_total": counts.cancelled,
        "tutelage_requests_failed_total": counts.failed,
        "tutelage_prompt_tokens_total": counts.prompt_tokens,
        "tutelage_prompt_tokens_reused_total": worker.reused_tokens,
        "tutelage_generated_tokens_total": counts.generated_tokens,
        "tutelage_steps_total": counts.steps,
        "tutelage_step_seconds_total": round(counts.step_seconds, 6),
        "tutelage_replies_open": worker.open_replies,
    }
    return "".join(
        f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}\n{name} {value}\n"
        for name, value in values.items()
    )

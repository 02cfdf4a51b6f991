"""`serve`: runs and models behind an OpenAI-compatible server on this machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from tutelage.errors import ConfigError, DependencyError
from tutelage.report.console.terminal import Terminal

KEY_VARIABLE = "TUTELAGE_API_KEY"

Names = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Folders of runs, or models; NAME=RUN gives one another name.")
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; beyond this machine a key is needed.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")]
KeyEnv = Annotated[
    str | None,
    typer.Option(
        "--key-env",
        metavar="VARIABLE",
        help=f"Environment variable with the key of requests. (default: {KEY_VARIABLE})",
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, max=1024, help="Replies that grow together.")]
Queue = Annotated[int, typer.Option("--queue", min=0, max=100_000, help="Replies that may wait beside them.")]
PromptTokens = Annotated[int, typer.Option("--max-prompt-tokens", min=1, help="Longest prompt.")]
ReplyTokens = Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest reply.")]
CacheTokens = Annotated[
    int,
    typer.Option(
        "--cache-tokens", min=64, help="Tokens under way whose keys and values are in memory, for each model."
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that one request may take.")]
Drain = Annotated[
    int, typer.Option("--drain-seconds", min=0, help="What replies under way may still take once it is to end.")
]
RatingsFolder = Annotated[
    Path | None,
    typer.Option("--ratings", metavar="FOLDER", help="Where the page writes which reply people say is better."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No line for each request.")]


def serve(
    runs: Names,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    key_env: KeyEnv = None,
    batch: Batch = 32,
    queue: Queue = 128,
    max_prompt_tokens: PromptTokens = 32_768,
    max_new_tokens: ReplyTokens = 4_096,
    cache_tokens: CacheTokens = 32_768,
    timeout: Timeout = 600.0,
    drain_seconds: Drain = 30,
    ratings: RatingsFolder = None,
    quiet: Quiet = False,
) -> None:
    """Serve runs to programs that speak OpenAI's API, beside the models they were trained from.

    Adapters of one base share it, and answer side by side. SIGTERM or Ctrl-C ends once what is under way has ended.

    Try: tutelage serve runs/quickstart
    Then: curl http://127.0.0.1:8000/v1/models
    """
    api_key = _key(key_env)
    try:
        from tutelage.serve.listening import listening_socket, require_key_beyond_loopback
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette"):
            raise
        raise DependencyError(
            f"This command needs the package {error.name}", fix="pip install 'tutelage[train,serve]'"
        ) from error
    require_key_beyond_loopback(host, api_key, variable=key_env or KEY_VARIABLE)
    listener = listening_socket(host, port)  # before a model is loaded, which takes its time
    from tutelage.builders.served_models import open_served_models
    from tutelage.serve.asking import Limits
    from tutelage.serve.listening import is_loopback
    from tutelage.serve.listening import serve as listen
    from tutelage.serve.ratings import Ratings
    from tutelage.serve.starting import service_of

    out = Terminal()
    served = open_served_models(runs, active_replies=batch, log=out.write_line)
    service = service_of(
        served,
        limits=Limits(max_prompt_tokens, max_new_tokens, timeout, LARGEST_BODY_BYTES),
        most_replies=batch + queue,
        cache_tokens=cache_tokens,
        api_key=api_key,
        is_local=is_loopback(host),
        log=(lambda _line: None) if quiet else out.write_line,
        ratings=None if ratings is None else Ratings(ratings),
    )
    name, number = listener.getsockname()[:2]
    address = f"[{name}]" if ":" in name else name
    out.write_line(f"Models: {', '.join(served.models)}")
    out.write_line(f"Side by side in a browser: http://{address}:{number}/")
    out.write_line(f"Listening on http://{address}:{number}/v1 (Ctrl-C ends)")
    if listen(service, listener, drain_seconds=drain_seconds, log=out.write_line) == signal.SIGINT:
        raise KeyboardInterrupt


LARGEST_BODY_BYTES = 4 * 1024 * 1024


def _key(variable: str | None) -> str | None:
    """The key that requests must bring, from the environment alone: what stands in a command line, all may read.

    Raises:
        ConfigError: the variable that was named is not set, or empty.
    """
    key = os.environ.get(variable or KEY_VARIABLE, "").strip()
    if variable is not None and not key:
        raise ConfigError(
            "The key of the server is not in the environment",
            where="--key-env",
            found=f"{variable} is not set",
            expected="a variable that holds the key",
            fix=f"export {variable}=..., or leave --key-env out",
        )
    return key or None

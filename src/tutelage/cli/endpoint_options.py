"""Options of a chat endpoint that several commands have, each in a panel of its own."""

from __future__ import annotations

from typing import Any

import typer


def url_option(panel: str) -> Any:
    """`--endpoint URL`."""
    return typer.Option(
        "--endpoint", metavar="URL", rich_help_panel=panel,
        help="Base URL of any OpenAI-compatible server, such as http://127.0.0.1:8000/v1.",
    )  # fmt: skip


def key_option(panel: str) -> Any:
    """`--key-env VARIABLE`."""
    return typer.Option(
        "--key-env", metavar="VARIABLE", rich_help_panel=panel,
        help="Environment variable with the key; without it none is sent.",
    )  # fmt: skip

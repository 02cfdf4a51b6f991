"""Short ways to write down the conversations that rows of a shape are expected to become."""

from __future__ import annotations

from typing import Any

from tutelage.types import Message, ToolCall


def system(text: str) -> Message:
    return Message("system", text)


def user(text: str, **members: Any) -> Message:
    return Message("user", text, **members)


def reply(text: str | None, *calls: ToolCall, **members: Any) -> Message:
    return Message("assistant", text, tool_calls=calls, **members)


def context(text: str, **members: Any) -> Message:
    """A reply that leads up to what is trained."""
    return Message("assistant", text, weight=0.0, **members)


def result(text: str, **members: Any) -> Message:
    return Message("tool", text, **members)


TIN = (user("What is tin?"), reply("A metal."))
DOUBT = (user("What is tin?"), context("A food."), user("Really?"), reply("No, a metal."))

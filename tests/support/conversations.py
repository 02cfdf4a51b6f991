"""The fixed table of conversations: one trap each."""

from __future__ import annotations

from typing import Any

from tutelage.types import Address, Conversation, Message, ToolCall


def talk(*messages: Message) -> Conversation:
    return Conversation(messages, Address("table.jsonl", 1))


def user(content: str) -> Message:
    return Message("user", content)


def answer(content: str | None, **rest: Any) -> Message:
    return Message("assistant", content, **rest)


LOOK = ToolCall("look", {"at": "qn2z", "n": [1, 2]})
TABLE = (
    talk(user("qn1z hi"), answer("qn2z yo")),
    talk(Message("system", "qn0z be"), user("qn1z a"), answer("qn2z b"), user("qn3z c"), answer("qn4z d")),
    talk(user(" qn1z\n"), answer("\n\n qn2z \n"), user("qn3z"), answer("  qn4z\n")),
    talk(user("yes"), answer("yes"), user("yes"), answer("yes")),
    talk(user("assistant"), answer("assistant"), user("assistant"), answer("user")),
    talk(user("qn1z"), answer("")),
    talk(user("qn1z"), answer("qn2z a", reasoning="qn3z why")),
    talk(user("qn1z"), answer("qn2z a", reasoning="qn3z why"), user("qn4z"), answer("qn5z", reasoning="qn6z")),
    talk(user("qn1z"), answer("<think>\nqn2z\n</think>\n\nqn3z")),
    talk(user("qn1z"), answer("", tool_calls=(LOOK,)), Message("tool", "qn3z"), answer("qn4z")),
    talk(user("qn1z"), answer("qn2z"), answer("qn3z")),
    talk(answer("qn1z"), user("qn2z"), answer("qn3z")),
    talk(
        user("qn1z"), answer("qn2z", weight=0.0), user("qn3z"), answer("qn4z", weight=0.5), user("qn5z"), answer("qn6z")
    ),
    talk(user("qn1z 🙂"), answer("\u0301qn2z 🙂")),
    talk(user("qn1z"), answer("", reasoning="qn2z")),
)
"""`qnNz` are marks: words that stand in one message alone."""

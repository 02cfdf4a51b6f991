"""What a row says and its template leaves out of the served prompt: neither will a server show it."""

from __future__ import annotations

import json

from tutelage.render.required_text import EXCERPT_CHARACTERS
from tutelage.types import Change, Conversation


def hidden_field_changes(conversation: Conversation, prompt: str, message: int) -> list[Change]:
    """What of a row's tools, and of the messages before `message`, the served prompt of that message leaves out."""
    changes = []
    offered = [tool["function"] if isinstance(tool.get("function"), dict) else tool for tool in conversation.tools]
    names = [str(tool.get("name", "")) for tool in offered]
    missing = [name for name in names if name and name not in prompt]
    if missing:
        detail = f"the template does not show the model its tools ({', '.join(missing[:3])}); neither will a server"
        changes.append(Change(conversation.address, "tools_not_shown", detail))
    if any(str(dict(tool)) in prompt for tool in offered):
        detail = "the template prints the tools on offer in Python's notation; so will a server"
        changes.append(Change(conversation.address, "tools_as_python", detail))
    for index, turn in enumerate(conversation.messages[:message]):
        text = (turn.content or "").strip()
        if turn.role == "assistant" or not text or text in prompt:
            continue
        if json.dumps(text)[1:-1] in prompt or json.dumps(text, ensure_ascii=False)[1:-1] in prompt:
            continue
        detail = f"message {index} ({turn.role}): the template leaves out or alters {text[:EXCERPT_CHARACTERS]!r}"
        changes.append(Change(conversation.address, "message_not_shown", detail))
    return changes

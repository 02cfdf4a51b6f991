"""Messages as LangChain writes them, and the many places where a trace keeps prompt and reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.row_shapes.building import Turn, call, json_at, list_at, object_at, text_at

_ROLES: Final = {
    "human": "user", "HumanMessage": "user", "HumanMessageChunk": "user", "user": "user",
    "ai": "assistant", "AIMessage": "assistant", "AIMessageChunk": "assistant", "assistant": "assistant",
    "system": "system", "SystemMessage": "system", "developer": "system",
    "tool": "tool", "ToolMessage": "tool", "function": "tool", "FunctionMessage": "tool",
}  # fmt: skip
_TURN_KEYS: Final = (
    "role", "content", "reasoning_content", "reasoning", "tool_calls", "function_call", "tool_call_id", "name",
)  # fmt: skip


def turn_of(message: Any, where: str) -> Turn:
    """A message, as OpenAI or LangChain writes it, as a turn.

    Raises:
        RowError: `unknown_role`, `wrong_type`.
    """
    value = object_at(json_at(message, where), where)
    if isinstance(value.get("message"), dict) and "role" not in value:  # one generation of a run
        value = value["message"]
    if "role" in value:
        return {key: value[key] for key in _TURN_KEYS if value.get(key) is not None}
    inner = value.get("kwargs") or value.get("data") or value
    inner = object_at(inner, where)
    names = value.get("id")
    kind = names[-1] if isinstance(names, list) and names and "kwargs" in value else value.get("type")
    if not isinstance(kind, str) or kind not in _ROLES:
        raise RowError("unknown_role", f"{where}: {kind!r} is no kind of message")
    turn: Turn = {"role": _ROLES[kind], "content": inner.get("content")}
    additional = inner.get("additional_kwargs")
    calls = inner.get("tool_calls") or (additional.get("tool_calls") if isinstance(additional, dict) else None)
    if calls:
        turn["tool_calls"] = [_call(item, where) for item in list_at(calls, f"{where}.tool_calls")]
    for key in ("tool_call_id", "name"):
        if inner.get(key):
            turn[key] = inner[key]
    return turn


def _call(item: Any, where: str) -> Any:
    """A call of LangChain has its arguments in `args`; one of OpenAI stays as it is."""
    value = object_at(item, f"{where}.tool_calls")
    if "args" in value:
        return call(text_at(value.get("name"), f"{where}.tool_calls[].name"), value["args"], value.get("id"))
    return value


def prompt_of(value: Any, where: str) -> list[Turn]:
    """The turns that were asked: a text, a message, a list of them, or an object around one of these.

    Raises:
        RowError: `unclear_prompt` where several texts could be the prompt.
    """
    value = json_at(value, where)
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], list):  # a batch of one conversation
            value = value[0]
        return [turn_of(message, f"{where}[{index}]") for index, message in enumerate(value)]
    members = object_at(value, where)
    if "role" in members or "kwargs" in members:
        return [turn_of(members, where)]
    if members.get("messages") is not None:
        return prompt_of(members["messages"], f"{where}.messages")
    return prompt_of(_only(members, where), where)


def reply_of(value: Any, where: str) -> list[Turn]:
    """The turns that came back; as `prompt_of`, and a text is the assistant's.

    Raises:
        RowError: `unclear_prompt` where several texts could be the reply, `no_reply`.
    """
    value = json_at(value, where)
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if isinstance(value, list):
        while len(value) == 1 and isinstance(value[0], list):
            value = value[0]
        return [_reply_turn(message, f"{where}[{index}]") for index, message in enumerate(value)]
    members = object_at(value, where)
    if "role" in members or "kwargs" in members or _ROLES.get(str(members.get("type"))) == "assistant":
        return [turn_of(members, where)]
    for name in ("messages", "generations", "choices", "message"):
        if members.get(name):
            several = members[name]
            if name in {"generations", "choices"} and isinstance(several, list):
                several = several[0] if several and isinstance(several[0], list) else several
                if len(several) != 1:
                    raise RowError("unclear_prompt", f"{where}.{name} holds {len(several)} replies")
            return reply_of(several, f"{where}.{name}")
    return reply_of(_only(members, where), where)


def _reply_turn(message: Any, where: str) -> Turn:
    if isinstance(message, dict) and isinstance(message.get("text"), str) and message.get("message") is None:
        return {"role": "assistant", "content": message["text"]}
    if isinstance(message, dict) and message.get("finish_reason") == "length":
        raise RowError("unfinished_reply", f"{where}: the reply was cut short: finish_reason is 'length'")
    return turn_of(message, where)


def _only(members: Mapping[str, Any], where: str) -> Any:
    """The value of the only member that can be words or messages; numbers beside it are settings."""
    said = {key: value for key, value in members.items() if isinstance(value, str | list | dict) and value}
    if len(said) != 1:
        listing = ", ".join(map(str, said)) or "nothing"
        raise RowError("unclear_prompt", f"{where} holds {listing}: no one of them is known to be all that was said")
    return next(iter(said.values()))

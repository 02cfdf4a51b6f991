"""Items of the Responses API -> turns: messages, calls, results and reasoning stand beside one another there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.row_shapes.building import Turn, call, is_word, list_at, object_at, result_content, text_at

_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text"})


def turns_of_items(items: Sequence[Any], where: str) -> list[Turn]:
    """The turns that items make: what the assistant thinks, says and calls before anybody else speaks is one turn.

    Raises:
        RowError: `unsupported_content` for an item or part that is no text, `wrong_type`, `unfinished_reply`.
    """
    turns: list[Turn] = []
    thoughts: list[str] = []
    for index, value in enumerate(items):
        place = f"{where}[{index}]"
        item = object_at(value, place)
        kind = item.get("type") or ("message" if "role" in item else None)
        if item.get("status") == "incomplete":
            raise RowError("unfinished_reply", f"{place} was cut short: its status is incomplete")
        if kind == "reasoning":
            thoughts += _thoughts(item, place)
        elif kind == "function_call":
            turn = _assistant_turn(turns, thoughts, starts=False)
            calls = turn.setdefault("tool_calls", [])
            calls.append(call(text_at(item.get("name"), f"{place}.name"), item.get("arguments"), item.get("call_id")))
        elif kind == "function_call_output":
            content = _result(item.get("output"), place)
            turns.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        elif kind == "message":
            text = message_text(item.get("content"), place)
            if item.get("role") == "assistant":
                _assistant_turn(turns, thoughts, starts=True)["content"] = text
            else:
                turns.append({"role": item.get("role"), "content": text})
        else:
            raise RowError("unsupported_content", f"{place}: an item of the type {kind!r} is not read")
    return turns


def _assistant_turn(turns: list[Turn], thoughts: list[str], *, starts: bool) -> Turn:
    """The assistant's turn that an item belongs to: its text begins one, unless only reasoning stands before it."""
    follows = bool(turns) and turns[-1]["role"] == "assistant" and not thoughts and not starts
    if not follows:
        turns.append({"role": "assistant", "content": None})
        if thoughts:
            turns[-1]["reasoning_content"] = "\n\n".join(thoughts)
            thoughts.clear()
    return turns[-1]


def _thoughts(item: Any, where: str) -> list[str]:
    """The reasoning itself where the item has it, else its summary; nothing where it is encrypted."""
    for name in ("content", "summary"):
        parts = item.get(name)
        if parts:
            return [
                text_at(object_at(part, f"{where}.{name}").get("text"), f"{where}.{name}")
                for part in list_at(parts, f"{where}.{name}")
            ]
    return []


def message_text(content: Any, where: str) -> str:
    """The text of a message: as it is, or that of its parts.

    Raises:
        RowError: `unsupported_content` for a part that is no text.
    """
    if isinstance(content, str):
        return content
    texts = []
    for part in list_at(content, f"{where}.content"):
        kind = object_at(part, f"{where}.content").get("type")
        if not is_word(kind, _TEXT_PARTS):
            raise RowError(
                "unsupported_content", f"{where}: a part of the type {kind!r} is no text; only text is trained"
            )
        texts.append(text_at(part.get("text"), f"{where}.content[].text"))
    return "".join(texts)


def _result(output: Any, where: str) -> str:
    if isinstance(output, list) and output and all(isinstance(part, dict) and "type" in part for part in output):
        return message_text(output, where)
    return result_content(output)

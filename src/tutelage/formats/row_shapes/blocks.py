"""Blocks of Anthropic's messages -> turns, where a call's result stands in the assistant's own message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.row_shapes.building import Turn, call, is_word, list_at, object_at, result_content, text_at

_SKIPPED: Final = frozenset({"token_budget", "flag", "voice_note"})
"""Blocks that are no part of what was said."""


def turns_of_blocks(blocks: Sequence[Any], role: str, where: str) -> list[Turn]:
    """The turns of one message: a result ends the assistant's turn, and what follows it is the next.

    Raises:
        RowError: `unsupported_content` for a block that is no text, `wrong_type`.
    """
    turns: list[Turn] = []
    for index, value in enumerate(blocks):
        place = f"{where}, block {index}"
        block = object_at(value, place)
        kind = block.get("type")
        if is_word(kind, _SKIPPED):
            continue
        if kind == "tool_result":
            result = {"role": "tool", "content": _result(block.get("content"), place)}
            turns.append(result | {"tool_call_id": block.get("tool_use_id")})
            continue
        if not turns or turns[-1]["role"] != role:
            turns.append({"role": role, "content": None})
        turn = turns[-1]
        if kind == "text":
            turn["content"] = (turn["content"] or "") + text_at(block.get("text"), place)
        elif kind == "thinking" and role == "assistant":
            turn["reasoning_content"] = turn.get("reasoning_content", "") + text_at(block.get("thinking"), place)
        elif kind == "tool_use" and role == "assistant":
            name = text_at(block.get("name"), f"{place}, name")
            turn.setdefault("tool_calls", []).append(call(name, block.get("input") or {}, block.get("id")))
        else:
            raise RowError("unsupported_content", f"{place}: {kind!r} is not read in a turn of the {role}")
    return turns


def _result(content: Any, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in list_at(content, f"{where}, content"):
        if not isinstance(part, dict) or part.get("type") != "text":
            return result_content(content)
        texts.append(text_at(part.get("text"), f"{where}, content"))
    return "".join(texts)

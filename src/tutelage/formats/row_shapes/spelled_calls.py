"""Data sets whose calls and tools stand in their texts: they become calls and tools, which the template writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tutelage.formats.nested import document, json_of_python
from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn, object_at
from tutelage.formats.row_shapes.columns import column_list, column_text, optional_text, turn
from tutelage.formats.row_shapes.marked_text import marked_turns

_GLAIVE_MARK: Final = re.compile(r"(?:\A|\n)[ \t]*(USER|ASSISTANT|FUNCTION RESPONSE):")
_GLAIVE_ROLES: Final = {"user": "user", "assistant": "assistant", "function response": "tool"}
_GLAIVE_CALL: Final = re.compile(r"""\{\s*"name"\s*:\s*"([^"]+)"\s*,\s*"arguments"\s*:\s*'(.*)'\s*\}\s*""", re.DOTALL)
_GLAIVE_ACCESS: Final = re.compile(
    r"(?<!\s),?\s++(?:with|who has)\s+access\s+to\s+the\s+following\s+functions"
    r"[^.{]*+(?:\.\s*Use them if required)?[\s.-]*\Z"
)
_SPACES_MAX: Final = 8
"""White space between a function's name and its bracket, and the bracket. Our choice; published rows have none."""

_END: Final = "<|endoftext|>"
_CALL_TAG: Final = "<functioncall>"
_EXPERT: Final = "You are an expert in composing functions"
_FORMAT: Final = re.compile(
    r"[\s.]*(?:Should you decide to return the function call\(s\)\.?\s*)?(?:Put it in the format of\s+\[.*\]\s*)?"
    r"(?:NO other text MUST be included\.?)?\s*",
    re.DOTALL,
)
_KEYWORD: Final = re.compile(r"\s*(\$?[^\W\d][\w.-]*)\s*=\s*")


def glaive(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """One text of turns, its calls behind a tag, its functions in the system text.

    Raises:
        RowError: `unclear_turns`, `bad_tool_arguments`, `tools_in_text`; a reason of `columns`.
    """
    system, tools = _system_and_tools(optional_text(row, "system"), "system")
    turns: list[Turn] = [turn("system", system)] if system else []
    called = ""
    for index, said in enumerate(marked_turns(column_text(row, "chat"), _GLAIVE_MARK, _GLAIVE_ROLES, "chat")):
        content = said["content"].replace(_END, "").strip()
        if said["role"] == "assistant" and _CALL_TAG in content:
            words, _, call_text = content.partition(_CALL_TAG)
            call = _glaive_call(call_text, f"chat, turn {index}")
            called = call["name"]
            turns.append(turn("assistant", words.strip() or None, tool_calls=[call]))
        else:
            turns.append(turn(said["role"], content, name=called or None if said["role"] == "tool" else None))
    return {"messages": turns, "tools": tools or None}


def function_calling_chatml(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns of which some are `function-call` and `function-response`; the functions stand in a column, too.

    Raises:
        RowError: `bad_tool_arguments`, `tools_in_text`; a reason of `columns`.
    """
    described = _objects(optional_text(row, "function_description"), "function_description")
    turns: list[Turn] = []
    called = ""
    for index, said in enumerate(column_list(row, "conversations")):
        where = f"conversations[{index}]"
        members = object_at(said, where)
        role, text = column_text(members, "from", f"{where}."), column_text(members, "value", f"{where}.")
        if role == "function-call":
            call = _glaive_call(text, where)
            called = call["name"]
            turns.append(turn("assistant", None, tool_calls=[call]))
        elif role == "function-response":
            turns.append(turn("tool", text, name=called or None))
        elif role == "system":
            system, listed = _system_and_tools(text, where)
            described = described or listed
            turns += [turn("system", system)] if system else []
        else:
            turns.append(turn(role, text))
    return {"messages": turns, "tools": described or None}


def _glaive_call(text: str, where: str) -> dict[str, Any]:
    """A call whose arguments are JSON inside single quotes, which makes the whole no JSON; or one that is JSON."""
    text = text.strip()
    match = _GLAIVE_CALL.fullmatch(text)
    if match is None:
        call = object_at(document(text, "bad_tool_arguments", where), where)
        return {"name": column_text(call, "name", f"{where}."), "arguments": call.get("arguments", {})}
    arguments_text = match[2].replace("\\'", "'")
    arguments = document(arguments_text, "bad_tool_arguments", f"{where}, arguments of {match[1]}")
    return {"name": match[1], "arguments": object_at(arguments, f"{where}: the arguments of {match[1]}")}


def _system_and_tools(text: str, where: str) -> tuple[str, list[Any]]:
    """What a system text says besides its functions, and these.

    Raises:
        RowError: `tools_in_text` where the sentence that introduces them is an unknown one.
    """
    text = re.sub(r"\A\s*SYSTEM:\s*", "", text).strip()
    start = text.find("{")
    tools = _objects(text[start:], where) if start >= 0 else []
    if not tools:
        return text, []
    introduction = text[:start].strip()
    words = _GLAIVE_ACCESS.sub("", introduction)
    if words == introduction and introduction:
        raise RowError("tools_in_text", f"{where}: functions behind an unknown sentence: {introduction[-60:]!r}")
    return f"{words}." if words and words[-1:].isalnum() else words, tools


def _objects(text: str, where: str) -> list[Any]:
    """The JSON objects that stand one behind the other in a text and make up all of it."""
    decoder, position, objects = json.JSONDecoder(), 0, []
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise RowError("bad_tools", f"{where}: no JSON object: {text[position : position + 40]!r}") from error
        objects.append(object_at(value, where))
    return objects


def toolace(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns whose calls are lists such as `[name(key="value")]`; the functions stand in the system text.

    Raises:
        RowError: `bad_tools`, `tools_in_text`, `calls_in_text`; a reason of `columns`.
    """
    system, tools = _expert_system(column_text(row, "system"))
    names = sorted((column_text(tool, "name", "system: a function's ") for tool in tools), key=len, reverse=True)
    turns: list[Turn] = [turn("system", system)] if system else []
    conversations = row.get("conversations")
    items = document(conversations, "bad_json", "conversations") if isinstance(conversations, str) else conversations
    calls: list[dict[str, Any]] = []
    for index, said in enumerate(column_list({"conversations": items}, "conversations")):
        where = f"conversations[{index}]"
        members = object_at(said, where)
        role, text = column_text(members, "from", f"{where}."), column_text(members, "value", f"{where}.")
        if role in {"assistant", "gpt"} and text.strip().startswith("[") and text.strip().endswith(")]"):
            calls = bracket_calls(text.strip()[1:-1], names, where)
            turns.append(turn("assistant", None, tool_calls=calls))
        elif role == "tool":
            turns += [turn("tool", result) for result in _results(text, len(calls))]
        else:
            turns.append(turn(role, text))
    return {"messages": turns, "tools": tools}


def _expert_system(text: str) -> tuple[str, list[Mapping[str, Any]]]:
    """What is said before and behind the functions and the way to call them, and the functions."""
    decoder = json.JSONDecoder()
    start = text.find("[{")
    try:
        value, end = decoder.raw_decode(text, max(start, 0))
    except (ValueError, RecursionError) as error:
        raise RowError("bad_tools", f"system: no list of functions in JSON ({error})") from error
    tools = [object_at(tool, "system: a function") for tool in value] if isinstance(value, list) else []
    if not tools:
        raise RowError("bad_tools", "system: no list of functions in JSON")
    words = text[: text.find(_EXPERT)].rstrip() if _EXPERT in text[:start] else text[:start]
    match = _FORMAT.match(text, end)
    rest = text[match.end() if match else end :].strip()
    if "function" in words.lower() or "function" in rest.lower():
        raise RowError("tools_in_text", "system: more is said of functions than their list and the way to call them")
    return "\n\n".join(part for part in (words.strip(), rest) if part), tools


def _results(text: str, calls: int) -> list[str]:
    """The results of several calls, each its own text, where the text is a list of as many; else the text."""
    if calls < 2:
        return [text]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    if not isinstance(value, list) or len(value) != calls:
        return [text]
    return [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in value]


def bracket_calls(text: str, names: list[str], where: str) -> list[dict[str, Any]]:
    """The calls that a text spells as `name(key=value), name()`.

    Args:
        text: the calls, without the brackets around them.
        names: of the functions, longer ones first: they may hold spaces and brackets themselves.
        where: the turn, for the sentence of an error.

    Raises:
        RowError: `calls_in_text`.
    """
    calls, position = [], 0
    while position < len(text):
        if text[position] in ", \t\r\n":
            position += 1
            continue
        name = next((name for name in names if _is_called(name, text, position)), None)
        if name is None:
            raise RowError("calls_in_text", f"{where}: no function of the row: {text[position : position + 40]!r}")
        opening = text.index("(", position + len(name))
        closing = _closing(text, opening, where)
        calls.append({"name": name, "arguments": _keywords(text[opening + 1 : closing], where)})
        position = closing + 1
    return calls


def _is_called(name: str, text: str, position: int) -> bool:
    end = position + len(name)
    return text.startswith(name, position) and text[end : end + _SPACES_MAX].lstrip().startswith("(")


def _closing(text: str, opening: int, where: str) -> int:
    depth = 0
    for position, character in _outside_quotes(text, opening):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            return position
    raise RowError("calls_in_text", f"{where}: a bracket is not closed")


def _outside_quotes(text: str, start: int) -> Iterator[tuple[int, str]]:
    """The characters of a text from a place on that stand outside quotes, each with its place."""
    quote, position = "", start
    while position < len(text):
        character = text[position]
        if quote:
            position += character == "\\"
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            yield position, character
        position += 1


def _keywords(text: str, where: str) -> dict[str, Any]:
    depth, starts = 0, [0]
    for position, character in _outside_quotes(text, 0):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            starts.append(position + 1)
    arguments: dict[str, Any] = {}
    for start, end in zip(starts, [*(start - 1 for start in starts[1:]), len(text)], strict=True):
        piece = text[start:end]
        match = _KEYWORD.match(piece)
        if match is None:
            if piece.strip():
                raise RowError("calls_in_text", f"{where}: no name and value: {piece.strip()[:40]!r}")
            continue
        value_text = json_of_python(piece[match.end() :].strip())
        if value_text is None:
            raise RowError("calls_in_text", f"{where}: no value: {piece[match.end() :].strip()[:40]!r}")
        arguments[match[1]] = document(value_text, "calls_in_text", f"{where}, {match[1]}")
    return arguments

"""MOSS: an object of numbered turns, whose texts carry their own marks, thoughts, commands and results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn, object_at
from tutelage.formats.row_shapes.columns import column_text, optional_text, turn

_TURN_NAME: Final = re.compile(r"turn_(\d+)")
_OPENING: Final = re.compile(r"\A\s*<\|[^|<>]+\|>:\s*")
_CLOSING: Final = re.compile(r"<eo[hmtcr]>\Z")
_CAPABILITIES: Final = re.compile(r"Capabilities and tools that MOSS can possess\.\s*\n(?:- [^\n]*\n?)+")
_TOOL: Final = re.compile(r"(?m)^- ([^:\n]+): enabled\. API: (\w+)\(([^)\n]*)\)")
_COMMAND: Final = re.compile(r'\b(\w++)\("((?:[^"\\]|\\.)*+)"\)')


def moss(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The turns by number; thoughts are reasoning, commands are calls of the tools that the system text enables.

    Raises:
        RowError: `unclear_turns`, `calls_in_text`; a reason of `columns`.
    """
    chat = object_at(row.get("chat"), "`chat`")
    numbered: dict[int, Any] = {}
    for name, value in chat.items():
        match = _TURN_NAME.fullmatch(name)
        if match is None:
            raise RowError("unclear_turns", f"chat: '{name}' is no turn_NUMBER")
        if value is not None:  # Arrow fills in the turns that longer rows have
            numbered[int(match[1])] = value
    if sorted(numbered) != list(range(1, len(numbered) + 1)):
        raise RowError("unclear_turns", f"chat: the turns are numbered {', '.join(map(str, sorted(numbered)[:12]))}")
    system = optional_text(row, "meta_instruction")
    parameters = {name: names for _, name, names in _TOOL.findall(system)}
    turns: list[Turn] = []
    for number in sorted(numbered):
        turns += _turns(object_at(numbered[number], f"chat.turn_{number}"), parameters, f"chat.turn_{number}.")
    tools = _tools(system) if any("tool_calls" in said for said in turns) else []
    if tools:  # the template lists them
        system = _CAPABILITIES.sub("", system)
    system_turns = [turn("system", system)] if system.strip() else []
    category = {"category": row["category"]} if isinstance(row.get("category"), str) else {}
    return {"messages": [*system_turns, *turns], "tools": tools or None, "metadata": category}


def _turns(members: Mapping[str, Any], parameters: Mapping[str, str], where: str) -> list[Turn]:
    question = _words(column_text(members, "Human", where))
    thought = _words(optional_text(members, "Inner Thoughts", where))
    commands = _words(optional_text(members, "Commands", where))
    results = _words(optional_text(members, "Tool Responses", where))
    reply = _words(column_text(members, "MOSS", where))
    reasoning = None if thought in {"", "None"} else thought
    if commands in {"", "None"}:
        return [turn("user", question), turn("assistant", reply, reasoning_content=reasoning)]
    calls, texts = _calls(commands, results, parameters, where)
    return [
        turn("user", question),
        turn("assistant", None, reasoning_content=reasoning, tool_calls=calls),
        *[turn("tool", text) for text in texts],
        turn("assistant", reply),
    ]


def _words(text: str) -> str:
    """What is said between the marks of a text."""
    return _CLOSING.sub("", _OPENING.sub("", text, count=1).strip()).strip()


def _calls(
    commands: str, results: str, parameters: Mapping[str, str], where: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """The calls that commands spell, and the result of each, which stands behind the command and an arrow."""
    matches = list(_COMMAND.finditer(commands))
    if not matches or _COMMAND.sub("", commands).strip(", \n"):
        raise RowError("calls_in_text", f"{where}Commands: no calls with one text each: {commands[:40]!r}")
    calls, starts = [], []
    position = 0
    for match in matches:
        if match[1] not in parameters:
            raise RowError("calls_in_text", f"{where}Commands: the system text enables no {match[1]}")
        argument = re.sub(r"\\(.)", r"\1", match[2])
        calls.append({"name": match[1], "arguments": {parameters[match[1]] or "input": argument}})
        start = results.find(f"{match[0]} =>", position)
        if start < 0:
            raise RowError("calls_in_text", f"{where}Tool Responses: no result of {match[0][:40]}")
        position = start + len(match[0]) + len(" =>")
        starts.append((start, position))
    ends = [start for start, _ in starts[1:]] + [len(results)]
    return calls, [results[position:end].strip() for (_, position), end in zip(starts, ends, strict=True)]


def _tools(system: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "description": title,
            "parameters": {
                "type": "object",
                "properties": {parameter or "input": {"type": "string"}},
                "required": [parameter or "input"],
            },
        }
        for title, name, parameter in _TOOL.findall(system)
    ]

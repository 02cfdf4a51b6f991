"""Fine-tuning files of vendors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn, call, list_at, object_at, result_content, text_at

_GEMINI_ROLES: Final = {"user": "user", "model": "assistant", "function": "user", "tool": "user"}
_GEMINI_TYPES: Final = frozenset({"STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"})
_GEMINI_MEDIA: Final = ("fileData", "file_data", "inlineData", "inline_data", "executableCode", "codeExecutionResult")


def openai_preference(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The prompt and the preferred side of a pair; what the assistant says in the prompt is context."""
    shared = row["input"]
    preferred = row.get("preferred_output") or row.get("preferred_completion")
    return {"prompt": shared["messages"], "completion": preferred, "tools": shared.get("tools")}


def vertex_gemini(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The turns of a Gemini tuning file.

    Raises:
        RowError: `unknown_role`, `unsupported_content` for files and images, `wrong_type`.
    """
    turns: list[Turn] = []
    instruction = row.get("systemInstruction") or row.get("system_instruction")
    if instruction is not None:
        turns.append({"role": "system", "content": _instruction_text(instruction)})
    for index, content in enumerate(row["contents"]):
        where = f"contents[{index}]"
        role = content.get("role")
        if role not in _GEMINI_ROLES:
            raise RowError("unknown_role", f"{where}: {role!r}; Gemini's roles are user and model")
        turns += _gemini_turns(content["parts"], _GEMINI_ROLES[role], where)
    return {"messages": turns, "tools": _gemini_tools(row.get("tools"))}


def _instruction_text(instruction: Any) -> str:
    if isinstance(instruction, str):
        return instruction
    parts = list_at(object_at(instruction, "systemInstruction").get("parts"), "systemInstruction.parts")
    texts = (object_at(part, "systemInstruction.parts").get("text") for part in parts)
    return "".join(text_at(text, "the text of systemInstruction.parts") for text in texts)


def _gemini_turns(parts: list[Any], role: str, where: str) -> list[Turn]:
    """The turn of one content, and before it a turn for each result of a function that stands in it."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls, results = [], []
    for number, item in enumerate(parts):
        part = object_at(item, f"{where}.parts[{number}]")
        if any(part.get(name) is not None for name in _GEMINI_MEDIA):
            raise RowError("unsupported_content", f"{where}.parts[{number}] is no text; only text is trained")
        function_call = part.get("functionCall") or part.get("function_call")
        response = part.get("functionResponse") or part.get("function_response")
        if function_call is not None:
            calls.append(call(function_call.get("name"), function_call.get("args") or {}, function_call.get("id")))
        elif response is not None:
            result = result_content(response.get("response"))
            turn = {"role": "tool", "name": response.get("name"), "content": result}
            results.append(turn | {"tool_call_id": response.get("id")})
        else:
            kind = thoughts if part.get("thought") is True else texts
            kind.append(text_at(part.get("text"), f"{where}.parts[{number}].text"))
    if (calls and role == "user") or (results and role == "assistant"):
        raise RowError("unsupported_content", f"{where}: a call of the user, or a result of the model")
    if not texts and not thoughts and not calls:
        return results
    turn = {"role": role, "content": "".join(texts) if texts else None}
    if thoughts:
        turn["reasoning_content"] = "".join(thoughts)
    if calls:
        turn["tool_calls"] = calls
    return [*results, turn]


def _gemini_tools(tools: Any) -> list[Any] | None:
    if not tools:
        return None
    declared: list[Any] = []
    for item in list_at(tools, "tools"):
        tool = object_at(item, "tools")
        declarations = tool.get("functionDeclarations") or tool.get("function_declarations")
        declared += list_at(declarations, "tools[].functionDeclarations")
    return [_with_schema_types(declaration) for declaration in declared]


def _with_schema_types(value: Any) -> Any:
    """The types of JSON Schema for those that Gemini writes in capitals."""
    if isinstance(value, list):
        return [_with_schema_types(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: inner.lower() if key == "type" and inner in _GEMINI_TYPES else _with_schema_types(inner)
        for key, inner in value.items()
    }

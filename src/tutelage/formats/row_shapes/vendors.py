"""Fine-tuning files of vendors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import (
    Turn,
    call,
    list_at,
    object_at,
    only_last_reply,
    result_content,
    text_at,
)

_GEMINI_ROLES: Final = {"user": "user", "model": "assistant", "function": "user", "tool": "user"}
_GEMINI_TYPES: Final = frozenset({"STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"})
_GEMINI_MEDIA: Final = ("fileData", "file_data", "inlineData", "inline_data", "executableCode", "codeExecutionResult")


_SEPARATOR: Final = re.compile(r"(?:\n\n###\n\n|\n\n\$\$\$\n\n|\s?->|\n\n===\n\n)\s*\Z")
_STOP: Final = re.compile(r"\s*(?:\bEND|\bSTOP|###)\s*\Z|\n\Z")


def openai_completions(row: Mapping[str, Any], context: RowContext) -> Mapping[str, Any]:
    """Prompt and completion without the marks that stood for a template."""
    context.remarks.note("the separators at the end of prompts and completions are marks of an older API; removed")
    completion = row["completion"].removeprefix(" ").removeprefix("\n")
    return {"prompt": _SEPARATOR.sub("", row["prompt"]), "completion": _STOP.sub("", completion)}


def openai_preference(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The prompt and the preferred side of a pair; what the assistant says in the prompt is context."""
    shared = row["input"]
    preferred = row.get("preferred_output") or row.get("preferred_completion")
    return {"prompt": shared["messages"], "completion": preferred, "tools": shared.get("tools")}


def vertex_palm(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Prompt and reply under other names."""
    return {"prompt": row["input_text"], "completion": row["output_text"]}


def vertex_chat_bison(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The context, the examples as turns that are not trained, and the messages."""
    turns: list[Turn] = []
    for example in list_at(row.get("examples") or [], "examples"):
        for side, role in (("input", "user"), ("output", "assistant")):
            content = object_at(object_at(example, "examples").get(side), f"examples[].{side}").get("content")
            turns.append({"role": role, "content": content, "weight": 0})
    turns += [{"role": message["author"], "content": message["content"]} for message in row["messages"]]
    return {"messages": turns, "system": row.get("context")}


def bedrock_pretraining(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A document."""
    return {"text": row["input"]}


def mistral_thinking(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Messages whose chunks of thinking are texts."""
    turns = []
    for index, message in enumerate(row["messages"]):
        turn = object_at(message, f"messages[{index}]")
        content = turn.get("content")
        if isinstance(content, list):
            turn = {**turn, "content": [_with_thinking_text(part, f"messages[{index}]") for part in content]}
        turns.append(turn)
    return {"messages": turns, "tools": row.get("tools")}


def _with_thinking_text(part: Any, where: str) -> Any:
    thinking = part.get("thinking") if isinstance(part, dict) else None
    if not isinstance(thinking, list):
        return part
    chunks = [object_at(chunk, f"a chunk of thinking of {where}").get("text") for chunk in thinking]
    return {"type": "thinking", "thinking": "".join(text_at(text, f"the thinking of {where}") for text in chunks)}


def llama_api(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Messages of which only the last reply is trained."""
    turns = only_last_reply(row["messages"])
    return {name: row[name] for name in ("system", "tools") if name in row} | {"messages": turns}


def openpipe(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Messages of the training split, without empty ids.

    Raises:
        RowError: `held_out_row`.
    """
    if row["split"] != "TRAIN":
        raise RowError("held_out_row", "`split` is TEST: the row was held out to test with")
    turns = []
    for index, message in enumerate(row["messages"]):
        turn = dict(object_at(message, f"messages[{index}]"))
        if turn.get("tool_call_id") == "":
            del turn["tool_call_id"]
        if isinstance(turn.get("tool_calls"), list):
            turn["tool_calls"] = [_without_empty_id(item) for item in turn["tool_calls"]]
        turns.append(turn)
    return {"messages": turns, "tools": row.get("tools")}


def _without_empty_id(item: Any) -> Any:
    if isinstance(item, dict) and item.get("id") == "":
        return {key: value for key, value in item.items() if key != "id"}
    return item


def swift_preference(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The chosen side: the last message; the replies before it are context.

    Raises:
        RowError: `no_reply` where the last message is not the assistant's.
    """
    turns = row["messages"]
    if not turns or not isinstance(turns[-1], dict) or turns[-1].get("role") != "assistant":
        raise RowError("no_reply", "the last message, which is the chosen one, must be the assistant's")
    kept = {name: row[name] for name in ("system", "tools") if row.get(name) is not None}
    return kept | {"messages": only_last_reply(turns)}


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
        if not isinstance(role, str) or role not in _GEMINI_ROLES:
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
            function_call = object_at(function_call, f"{where}.parts[{number}].functionCall")
            calls.append(
                call(
                    text_at(function_call.get("name"), f"{where}.parts[{number}].functionCall.name"),
                    function_call.get("args") or {},
                    function_call.get("id"),
                )
            )
        elif response is not None:
            response = object_at(response, f"{where}.parts[{number}].functionResponse")
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
        key: inner.lower()
        if key == "type" and isinstance(inner, str) and inner in _GEMINI_TYPES
        else _with_schema_types(inner)
        for key, inner in value.items()
    }

"""The tools a conversation offers: what formats and vendors write -> the form that templates are made for."""

from __future__ import annotations

import marshal
from collections.abc import Mapping
from typing import Any, Final

from tutelage.formats.nested import UNSHARED_MAX, document, holds_null, is_simple
from tutelage.formats.nulls import is_filled, without_nulls
from tutelage.formats.rawrow import RowError, json_type
from tutelage.formats.remarks import TOOL_BYTES_KEPT, RowContext, ToolList

_OPENING, _CLOSING = "<tools>", "</tools>"
_PYTHON_TYPES: Final = {
    "str": "string", "string": "string", "int": "integer", "integer": "integer", "float": "number", "number": "number",
    "complex": "number", "bool": "boolean", "boolean": "boolean", "dict": "object", "object": "object",
    "mapping": "object", "list": "array", "array": "array", "tuple": "array", "set": "array", "sequence": "array",
    "iterable": "array", "none": "null", "null": "null",
}  # fmt: skip
_NO_TYPE: Final = frozenset({"any", "union", "callable", "literal", "optional"})
"""Types of Python for which a schema states none."""


def tools_from(value: Any, context: RowContext) -> tuple[Mapping[str, Any], ...]:
    """The tools a conversation offers, from a list, the JSON string of one, or Bedrock's `toolConfig`.

    Each becomes `{"type": "function", "function": {"name", "description", "parameters"}}`, as templates have it. The
    schemas of `context` become theirs.

    Raises:
        RowError: `bad_tools`, or a reason of `nested.document`.
    """
    if value is None:
        return ()
    remarks = context.remarks
    # By identity where a reader gives equal lists as one; the list stays with its meaning, so its id stays its own.
    key = (context.filled, value if isinstance(value, str) else id(value))
    entry = remarks.tools.get(key)
    if entry is not None and (isinstance(value, str) or entry[0] is value):
        tool_list = entry[1]
        remarks.tools_unshared = max(0, remarks.tools_unshared - 1)
    else:
        tool_list = _parsed_tools(value, context)
        remarks.tools_unshared += 1
        if remarks.tools_unshared <= UNSHARED_MAX and (size_bytes := _size_bytes(value)) <= remarks.tool_bytes_left:
            remarks.tool_bytes_left -= size_bytes
            remarks.tools[key] = value, tool_list
    context.schemas = tool_list.schemas
    return tool_list.tools


def _size_bytes(value: Any) -> int:
    """What a list of tools takes, written down; more than is ever kept where it cannot be."""
    if isinstance(value, str):
        return len(value)
    try:
        return len(marshal.dumps(value, 2))
    except ValueError:
        return TOOL_BYTES_KEPT + 1


def _parsed_tools(value: Any, context: RowContext) -> ToolList:
    filled = context.filled and not isinstance(value, str)
    text = value if isinstance(value, str) else context.text
    if isinstance(value, str):
        value = document(value, "bad_tools", "`tools`", not_json="bad_tools") if value.strip() else []
    if isinstance(value, dict) and isinstance(value.get("tools"), list):
        context.remarks.unread("list of tools", [key for key in value if key != "tools" and value[key] is not None])
        value = value["tools"]
    items = [value] if isinstance(value, dict) and value else value or []
    if not isinstance(items, list):
        raise RowError("bad_tools", f"`tools` must be a list of objects, found {json_type(items)}")
    if any(isinstance(item, str) for item in items):
        text = None
        items = [
            document(item, "bad_tools", f"tool {index}") if isinstance(item, str) else item
            for index, item in enumerate(items)
        ]
    is_null_free = text is not None and is_simple(text)
    if not is_null_free and holds_null(items, "`tools`", not_json="bad_tools") and (filled or is_filled(items)):
        context.remarks.nulls("tools")
        items = without_nulls(items)
    tool_items = [item for item in items if not (isinstance(item, dict) and list(item) == ["cachePoint"])]
    tools = tuple(_tool(item, index, context) for index, item in enumerate(tool_items))
    bodies = [tool["function"] for tool in tools if isinstance(tool.get("function"), dict)]
    return ToolList(tools, {body["name"]: body.get("parameters") for body in bodies})


def has_tool_listing(text: str) -> bool:
    """Whether a system text spells a list of tools between `<tools>` and `</tools>`."""
    end = text.rfind(_CLOSING)
    pieces = text[:end].split(_OPENING)[1:] if end >= 0 else []
    return any(piece.lstrip()[:1] in ("[", "{") for piece in pieces)


def _tool(item: Any, index: int, context: RowContext) -> Mapping[str, Any]:
    if not isinstance(item, dict):
        raise RowError("bad_tools", f"tool {index} must be an object, found {json_type(item)}")
    if isinstance(item.get("toolSpec"), dict):
        item = _from_bedrock(item["toolSpec"])
    body = item.get("function", item)
    if not isinstance(body, dict):
        raise RowError("bad_tools", f"tool {index}: `function` must be an object, found {json_type(body)}")
    name = body.get("name")
    if not isinstance(name, str) or not name:
        kind = item.get("type")
        if body is not item or not isinstance(kind, str) or kind == "function":
            raise RowError("bad_tools", f"tool {index} names no function; its keys are {_keys(body)}")
        return item  # a tool of the server's own, such as {"type": "web_search"}
    if not isinstance(item.get("type", ""), str):
        raise RowError("bad_tools", f"tool {index}: `type` must be a string, found {json_type(item['type'])}")
    function = _with_json_schema(body, f"tool {index}", context)
    if body is not item:
        return item if function is body else {**item, "function": function}
    # Templates are written for the wrapped form; a bare {"name", "parameters"} means the same.
    if "type" not in item or function is not body:
        return {"type": "function", "function": {key: value for key, value in function.items() if key != "type"}}
    return item


def _from_bedrock(spec: Mapping[str, Any]) -> dict[str, Any]:
    schema = spec.get("inputSchema")
    parameters = schema.get("json") if isinstance(schema, dict) else schema
    members = {key: value for key, value in spec.items() if key != "inputSchema"}
    return members if parameters is None else {**members, "parameters": parameters}


def _with_json_schema(body: Mapping[str, Any], where: str, context: RowContext) -> Mapping[str, Any]:
    """A function's description with its parameters as a JSON Schema under that name; `body` itself if it is so."""
    parameters = body.get("parameters")
    if parameters is None and "input_schema" in body:
        members = {key: value for key, value in body.items() if key not in {"input_schema", "parameters"}}
        body, parameters = {**members, "parameters": body["input_schema"]}, body["input_schema"]
    if isinstance(parameters, str):
        parameters = document(parameters, "bad_tools", f"{where}, parameters") if parameters.strip() else {}
        body = {**body, "parameters": parameters}
    if parameters is not None and not isinstance(parameters, dict):
        raise RowError("bad_tools", f"{where}: `parameters` must be an object, found {json_type(parameters)}")
    if parameters and _is_flat(parameters):
        context.remarks.note("tools list their parameters by name and Python type; they are read as a JSON Schema")
        return {**body, "parameters": _schema_of(parameters, where)}
    return body


def _is_flat(parameters: Mapping[str, Any]) -> bool:
    """Whether parameters are a table name -> {"type": "str, optional", ...} and no JSON Schema."""
    if isinstance(parameters.get("properties"), dict) or isinstance(parameters.get("type"), str):
        return False
    return all(
        isinstance(value, dict) and isinstance(value.get("type"), str) and not key.startswith("$")
        for key, value in parameters.items()
    )


def _schema_of(table: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, Any]:
    properties, required = {}, []
    for name, parameter in table.items():
        text, *options = (piece.strip() for piece in _split_outside_brackets(parameter["type"]))
        optional = "optional" in (option.lower() for option in options) or text.lower().startswith("optional[")
        inner_type = text[text.index("[") + 1 : -1] if optional and text.endswith("]") and "[" in text else text
        json_kind = _json_type(
            inner_type if text.lower().startswith("optional[") else text, f"{where}, parameter {name}"
        )
        properties[name] = ({"type": json_kind} if json_kind else {}) | {
            key: value for key, value in parameter.items() if key != "type"
        }
        if not optional and "default" not in parameter:
            required.append(name)
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def _split_outside_brackets(text: str) -> list[str]:
    """The parts of `Dict[str, int], optional` between the commas that stand outside brackets."""
    pieces, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += character
    return pieces


def _json_type(text: str, where: str) -> str | None:
    name = text.split("[", 1)[0].strip().lower().removeprefix("typing.")
    if name in _NO_TYPE or "|" in text:
        return None
    if name not in _PYTHON_TYPES:
        raise RowError("bad_tools", f"{where}: '{text[:40]}' is a type of neither JSON Schema nor Python")
    return _PYTHON_TYPES[name]


def _keys(item: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, item))[:8]) or "none"

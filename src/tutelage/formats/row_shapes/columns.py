"""Values that a reader asks a row for by name, and the turns of a base form that it makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tutelage.formats.nested import document, json_of_python
from tutelage.formats.rawrow import RowError, json_type
from tutelage.formats.row_shapes.building import Turn


def column_text(row: Mapping[str, Any], name: str, where: str = "") -> str:
    """The text of a column, or of a member of what `where` names.

    Raises:
        RowError: `missing_field` where there is none or only white space; `wrong_type`.
    """
    text = optional_text(row, name, where)
    if not text:
        raise RowError("missing_field", f"`{where}{name}` is empty")
    return text


def optional_text(row: Mapping[str, Any], name: str, where: str = "") -> str:
    """The text of a column; empty where it is absent, null or only white space.

    Raises:
        RowError: `wrong_type`.
    """
    value = row.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError("wrong_type", f"`{where}{name}` must be a string, found {json_type(value)}")
    return "" if value.isspace() else value


def column_list(row: Mapping[str, Any], name: str, where: str = "") -> list[Any]:
    """The list of a column.

    Raises:
        RowError: `wrong_type`; `missing_field` where it is empty.
    """
    value = row.get(name)
    if not isinstance(value, list):
        raise RowError("wrong_type", f"`{where}{name}` must be a list, found {json_type(value)}")
    if not value:
        raise RowError("missing_field", f"`{where}{name}` is an empty list")
    return value


def turn(role: str, content: Any, **members: Any) -> Turn:
    """A turn of a base form; members that are None are left out."""
    return {"role": role, "content": content} | {name: value for name, value in members.items() if value is not None}


def exchange(prompt: str, reply: str, system: str = "") -> dict[str, list[Turn]]:
    """A row of one question and its reply, behind a system text where there is one."""
    turns = [turn("system", system)] if system else []
    return {"messages": [*turns, turn("user", prompt), turn("assistant", reply)]}


def paragraphs(*texts: str) -> str:
    """Texts with an empty line between them; those that say nothing are left out."""
    return "\n\n".join(text for text in texts if text and not text.isspace())


def alternating(texts: Sequence[Any], where: str) -> list[Turn]:
    """Turns of a list of texts in which the user and the assistant take turns, the user first.

    Raises:
        RowError: `wrong_type`.
    """
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise RowError("wrong_type", f"{where}[{index}] must be a string, found {json_type(text)}")
    return [turn("assistant" if index % 2 else "user", text) for index, text in enumerate(texts)]


def as_context(turns: Iterable[Mapping[str, Any]]) -> list[Turn]:
    """The turns with those of the assistant left untrained: nobody chose them, they only lead up to what was chosen."""
    roles = {"assistant", "gpt", "chatgpt", "model", "bot"}
    return [
        {**turn_, "weight": 0.0} if str(turn_.get("role", turn_.get("from"))).lower() in roles else dict(turn_)
        for turn_ in turns
    ]


def python_list(text: str, where: str) -> list[Any]:
    """The list that a text spells in Python's notation or JSON, even where the commas between its objects are missing.

    Arrays of objects that numpy printed have a line end in the place of each comma.

    Raises:
        RowError: `bad_json`, or a reason of `nested.document`.
    """
    json_text = text if _is_json(text) else json_of_python(text)
    if json_text is None:
        raise RowError("bad_json", f"{where}: neither JSON nor Python's notation: {text[:60]!r}")
    if not _is_json(json_text):
        json_text = _with_commas(json_text)
    value = document(json_text, "bad_json", where)
    if not isinstance(value, list):
        raise RowError("wrong_type", f"{where} must be a list, found {json_type(value)}")
    return value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _with_commas(json_text: str) -> str:
    """A list of JSON objects with a comma between each two; the text itself where it is no such list."""
    text = json_text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return json_text
    decoder, position, pieces = json.JSONDecoder(), 1, []
    end = len(text) - 1
    while position < end:
        if text[position] in ", \t\r\n":
            position += 1
            continue
        try:
            _, stop = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            return json_text
        pieces.append(text[position:stop])
        position = stop
    return f"[{','.join(pieces)}]"

"""The export of a ChatGPT account: one conversation a row, its messages a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tutelage.formats.nested import document
from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn, call, is_word, list_at, object_at, text_at
from tutelage.formats.row_shapes.trees import every_path, path_to

_ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
_SKIPPED: Final = frozenset({"reasoning_recap", "user_editable_context", "model_editable_context"})
"""Kinds of content that are no turn: how long it thought, and what the account remembers."""

_RESULTS: Final = {"execution_output": "text", "tether_browsing_display": "result", "tether_quote": "text"}


def conversations(row: Mapping[str, Any], context: RowContext) -> Iterator[Mapping[str, Any]]:
    """The path that was kept, or every path of the graph.

    Raises:
        RowError: `broken_tree`, `unsupported_content` for images and the like, `unknown_role`.
    """
    nodes = {name: object_at(node, f"mapping.{name}") for name, node in row["mapping"].items()}
    parents = {name: node.get("parent") for name, node in nodes.items()}
    if context.tree_paths == "all":
        replies = {name for name, node in nodes.items() if _role(node.get("message")) == "assistant"}
        for path, trained in every_path(parents, replies):
            yield {"messages": _turns(path, nodes, trained)}
        return
    current = row.get("current_node")
    if current is None:
        leaves = set(parents) - {parent for parent in parents.values() if parent is not None}
        if len(leaves) != 1:
            raise RowError("broken_tree", f"no `current_node` says which of {len(leaves)} paths was kept")
        current = leaves.pop()
    yield {"messages": _turns(path_to(current, parents), nodes, set())}


def _is_finished(status: Any) -> bool:
    return status is None or status == "finished_successfully"


def _role(message: Any) -> str | None:
    author = message.get("author") if isinstance(message, dict) else None
    role = author.get("role") if isinstance(author, dict) else None
    return role if role is None or isinstance(role, str) else str(role)


def _turns(path: list[str], nodes: Mapping[str, Any], trained: set[str]) -> list[Turn]:
    turns: list[Turn] = []
    thoughts: list[str] = []
    for name in path:
        message = nodes[name].get("message")
        if message is None or _is_hidden(object_at(message, f"the message of {name}")):
            continue
        content = object_at(message.get("content"), f"the content of {name}")
        kind, role = str(content.get("content_type")), _role(message)
        if kind in _SKIPPED:
            continue
        if role not in _ROLES:
            raise RowError("unknown_role", f"{name}: {role!r}")
        if kind == "thoughts":
            thoughts += [
                text_at(object_at(thought, name).get("content"), f"a thought of {name}")
                for thought in list_at(content.get("thoughts"), f"the thoughts of {name}")
            ]
            continue
        turn = _turn(message, role, content, name)
        if role == "assistant":
            if thoughts:
                turn["reasoning_content"] = "\n\n".join(thoughts)
                thoughts = []
            if name in trained or not _is_finished(message.get("status")):
                turn["weight"] = 0
        elif not (turn["content"] or role == "tool"):
            continue  # the empty system message that each conversation begins with
        turns.append(turn)
    return turns


def _is_hidden(message: Mapping[str, Any]) -> bool:
    metadata = message.get("metadata")
    is_marked = isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation") is True
    return is_marked or message.get("weight") in (0, 0.0)


def _turn(message: Mapping[str, Any], role: str, content: Mapping[str, Any], where: str) -> Turn:
    text = _text(content, where)
    recipient = message.get("recipient")
    if role == "assistant" and recipient is not None and not is_word(recipient, {"all", "assistant"}):
        return {"role": role, "content": None, "tool_calls": [call(recipient, _arguments(text))]}
    turn: Turn = {"role": role, "content": text}
    author_name = message["author"].get("name")
    if role == "tool" and author_name:
        turn["name"] = author_name
    return turn


def _text(content: Mapping[str, Any], where: str) -> str:
    kind = str(content.get("content_type"))
    if kind in {"text", "multimodal_text"}:
        parts = list_at(content.get("parts"), f"the parts of {where}")
        if any(not isinstance(part, str) for part in parts):
            raise RowError("unsupported_content", f"{where}: a part is no text; only text is trained")
        return "".join(parts)
    if kind == "code":
        return text_at(content.get("text"), f"the code of {where}")
    if kind in _RESULTS:
        return text_at(content.get(_RESULTS[kind]), f"the result of {where}")
    raise RowError("unsupported_content", f"{where}: content of the kind {kind!r} is not read")


def _arguments(text: str) -> Any:
    """What a tool was handed: an object where the text is the JSON of one, else the text as `input`."""
    if text.lstrip().startswith("{"):
        try:
            arguments = document(text, "bad_json", "a call")
        except RowError:
            return {"input": text}
        return arguments if isinstance(arguments, dict) else {"input": text}
    return {"input": text}

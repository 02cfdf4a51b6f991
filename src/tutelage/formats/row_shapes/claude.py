"""The export of a Claude account: one conversation a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.blocks import turns_of_blocks
from tutelage.formats.row_shapes.building import Turn, is_word, list_at, object_at, text_at
from tutelage.formats.row_shapes.trees import every_path, path_to

_ROLES: Final = {"human": "user", "assistant": "assistant"}


def conversations(row: Mapping[str, Any], context: RowContext) -> Iterator[Mapping[str, Any]]:
    """The path that was kept, or every path; all messages in order where none names its parent.

    Raises:
        RowError: `broken_tree`, `unsupported_content` for files without text, `unknown_role`.
    """
    messages = row["chat_messages"]
    by_id = {str(message.get("uuid") or index): message for index, message in enumerate(messages)}
    parents = {name: _parent(message, by_id) for name, message in by_id.items()}
    if not any(parents.values()):
        yield {"messages": _turns(messages, set())}
    elif context.tree_paths == "all":
        replies = {name for name, message in by_id.items() if message["sender"] == "assistant"}
        for path, trained in every_path(parents, replies):
            yield {"messages": _turns([by_id[name] for name in path], trained)}
    else:
        yield {"messages": _turns([by_id[name] for name in path_to(_kept_leaf(row, parents), parents)], set())}


def _parent(message: Mapping[str, Any], by_id: Mapping[str, Any]) -> str | None:
    """The message that this one answers; the first names an id that is no message."""
    parent = message.get("parent_message_uuid")
    return parent if isinstance(parent, str) and parent in by_id else None


def _kept_leaf(row: Mapping[str, Any], parents: Mapping[str, str | None]) -> str:
    leaf = row.get("current_leaf_message_uuid")
    if isinstance(leaf, str):
        return leaf
    leaves = [name for name in parents if name not in parents.values()]
    if len(leaves) != 1:
        raise RowError("broken_tree", f"no `current_leaf_message_uuid` says which of {len(leaves)} paths was kept")
    return leaves[0]


def _turns(messages: list[Mapping[str, Any]], trained: set[str]) -> list[Turn]:
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        where = f"chat_messages[{index}]"
        sender = message["sender"]
        if not is_word(sender, _ROLES):
            raise RowError("unknown_role", f"{where}: {sender!r}; the export has human and assistant")
        blocks = message.get("content")
        if isinstance(blocks, list) and blocks:
            # `text` is a shortened copy where there are blocks of other kinds.
            made = turns_of_blocks(blocks, _ROLES[sender], where)
        else:
            made = [{"role": _ROLES[sender], "content": text_at(message.get("text"), f"{where}.text")}]
        if documents := _documents(message, where):
            if not made or made[-1]["role"] != "user":
                raise RowError("unsupported_content", f"{where}: an attachment without words of the user")
            made[-1]["content"] = "\n\n".join([*documents, made[-1]["content"] or ""])
        if is_word(message.get("uuid"), trained):
            made = [turn | {"weight": 0} if turn["role"] == "assistant" else turn for turn in made]
        turns += made
    return turns


def _documents(message: Mapping[str, Any], where: str) -> list[str]:
    """The names and texts of the attachments, which the model read before the user's words."""
    texts = []
    names_with_text = set()
    for attachment in list_at(message.get("attachments") or [], f"{where}.attachments"):
        name = _file_name(attachment, f"{where}.attachments")
        text = attachment.get("extracted_content")
        if not text:
            raise RowError("unsupported_content", f"{where}: the attachment {name!r} has no text in the export")
        names_with_text.add(name)
        texts.append(f"{name}\n\n{text}" if name else text_at(text, f"{where}.attachments"))
    for file in list_at(message.get("files") or [], f"{where}.files"):
        name = _file_name(file, f"{where}.files")
        if name not in names_with_text:
            raise RowError("unsupported_content", f"{where}: the file {name!r} has no text in the export")
    return texts


def _file_name(value: Any, where: str) -> str | None:
    name = object_at(value, where).get("file_name")
    return None if name is None else text_at(name, f"{where}[].file_name")

"""Trees of OpenAssistant: nested, or a row for each message. A tree holds many conversations with one beginning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from tutelage.formats.rawrow import RawRow, RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import object_at
from tutelage.formats.row_shapes.columns import turn
from tutelage.formats.row_shapes.reading import GatheredRow, merged
from tutelage.formats.row_shapes.trees import every_path
from tutelage.types import Change, Drop

_ROLES: Final = {"prompter": "user", "assistant": "assistant"}
_SPAM_MIN: Final = 0.5
"""From this share of its readers on, a message is spam. Our choice: most of them."""

_BAD_STATES: Final = frozenset({"aborted_low_grade", "halted_by_moderator"})

Messages = dict[str, Mapping[str, Any]]
"""The messages of a tree that are kept, by name, each behind the one that it answers."""


def trees(row: Mapping[str, Any], context: RowContext) -> Iterator[Mapping[str, Any]]:
    """From the root down the best ranked reply of each message, or every path; only of messages that are kept.

    Left out are messages that were deleted, failed their review or are spam, and all that answers them.

    Raises:
        RowError: `unwanted_reply`, `unknown_role`.
    """
    root = object_at(row["prompt"], "`prompt`") if "prompt" in row else row
    for conversation, _path in _conversations(root, row, context):
        yield conversation


def _conversations(
    root: Mapping[str, Any], row: Mapping[str, Any], context: RowContext
) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    """The conversations of a tree, each with the names of its messages."""
    if str(row.get("tree_state")) in _BAD_STATES:
        raise RowError("unwanted_reply", f"`tree_state` is {row['tree_state']}: moderators stopped the tree")
    if not _is_kept(root):
        raise RowError("unwanted_reply", "the first message was deleted, failed its review or is spam")
    messages, parents = _kept(root)
    if context.tree_paths == "all":
        replies = {name for name, message in messages.items() if _role(message, name) == "assistant"}
        paths = list(every_path(parents, replies))
    else:
        paths = [(_best_path(messages, parents), set())]
    for path, trained in paths:
        turns = [
            turn(_role(messages[name], name), messages[name]["text"], weight=0.0 if name in trained else None)
            for name in path
        ]
        labels = {"id": row.get("message_tree_id") or root.get("message_id"), "language": root.get("lang")}
        yield {"messages": turns, "metadata": {key: value for key, value in labels.items() if value is not None}}, path


def _role(message: Mapping[str, Any], name: str) -> str:
    role = _ROLES.get(str(message.get("role")))
    if role is None:
        raise RowError("unknown_role", f"message {name}: {message.get('role')!r}")
    return role


def _is_kept(message: Mapping[str, Any]) -> bool:
    text = message.get("text")
    return (
        isinstance(text, str)
        and bool(text.strip())
        and message.get("deleted") is not True
        and message.get("review_result") is not False
        and _spam(message.get("labels")) < _SPAM_MIN
    )


def _spam(labels: Any) -> float:
    """The share of readers who called a message spam, of labels by name or in parallel lists; 0 where none says."""
    if not isinstance(labels, Mapping):
        return 0.0
    value = labels.get("spam")
    if isinstance(value, Mapping):
        value = value.get("value")
    names, values = labels.get("name"), labels.get("value")
    if isinstance(names, list) and isinstance(values, list) and "spam" in names[: len(values)]:
        value = values[names.index("spam")]
    return float(value) if isinstance(value, int | float) else 0.0


def _kept(root: Mapping[str, Any]) -> tuple[Messages, dict[str, str | None]]:
    """The messages of a tree that are kept, the best replies first, and the parent of each."""
    messages: Messages = {}
    parents: dict[str, str | None] = {}
    pending: list[tuple[Mapping[str, Any], str | None]] = [(root, None)]
    while pending:
        message, parent = pending.pop()
        name = f"{len(messages)} {message.get('message_id')}"  # ids are missing in some files
        messages[name], parents[name] = message, parent
        replies = [reply for reply in _listed(message.get("replies")) if isinstance(reply, Mapping) and _is_kept(reply)]
        pending += [(reply, name) for reply in sorted(replies, key=_rank)[::-1]]
    return messages, parents


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _rank(message: Mapping[str, Any]) -> float:
    """The rank of a reply, 0 for the best; replies without one come last, as they stand."""
    rank = message.get("rank")
    return float(rank) if isinstance(rank, int | float) and not isinstance(rank, bool) else math.inf


def _best_path(messages: Messages, parents: Mapping[str, str | None]) -> list[str]:
    best_reply: dict[str, str] = {}
    for name, parent in parents.items():
        if parent is not None:
            best_reply.setdefault(parent, name)  # the best stands first
    path = [next(iter(messages))]
    while path[-1] in best_reply:
        path.append(best_reply[path[-1]])
    # A question that nobody answered leads to nothing that could be learned.
    return path[:-1] if len(path) > 1 and messages[path[-1]].get("role") == "prompter" else path


def gather_trees(rows: Iterable[RawRow], context: RowContext) -> Iterator[GatheredRow | Change | Drop]:
    """The conversations of each tree whose messages are rows of a file, in the order in which the trees begin.

    A row whose message stands in one is taken up by it; any other of the tree is an alternative, and dropped as one.
    """
    by_tree: dict[str, list[RawRow]] = {}
    for row in rows:
        identifier = row.fields.get("message_tree_id") or row.fields.get("message_id")
        by_tree.setdefault(str(identifier), []).append(row)
    for tree_rows in by_tree.values():
        yield from _gathered(tree_rows, context)


def _gathered(tree_rows: list[RawRow], context: RowContext) -> Iterator[GatheredRow | Change | Drop]:
    nodes: dict[str, dict[str, Any]] = {}
    rows_by_id: dict[str, RawRow] = {}
    for row in tree_rows:
        identifier = str(row.fields.get("message_id"))
        if identifier in nodes:
            yield Drop(row.address, "duplicate_id", f"`message_id` {identifier} stands twice")
            continue
        nodes[identifier] = {**row.fields, "replies": []}
        rows_by_id[identifier] = row
    roots = _linked(nodes)
    conversations: list[tuple[Mapping[str, Any], list[str]]] = []
    error = None if len(roots) == 1 else RowError("broken_tree", f"the tree has {len(roots)} first messages")
    if error is None:
        try:
            conversations = list(_conversations(roots[0], roots[0], context))
        except RowError as raised:
            error = raised
    taken: dict[str, GatheredRow] = {}
    for fields, path in conversations:
        identifiers = [name.split(" ", 1)[1] for name in path]
        first = rows_by_id[identifiers[0]]
        gathered_row = GatheredRow(first.address, fields, first.filled)
        yield gathered_row
        for identifier in identifiers:
            taken.setdefault(identifier, gathered_row)
    for identifier, row in rows_by_id.items():
        if error is not None:
            yield Drop(row.address, error.reason, error.detail)
        elif identifier not in taken:
            yield Drop(row.address, "not_best_path", "a better reply is read, or it or one before it was not kept")
        elif row.address != taken[identifier].address:
            yield merged(row, taken[identifier])


def _linked(nodes: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The first messages, after each message has been put among the replies of the one that it answers."""
    for node in nodes.values():
        parent = nodes.get(str(node.get("parent_id")))
        if parent is not None and parent is not node:
            parent["replies"].append(node)
    return [node for node in nodes.values() if node.get("parent_id") is None]

"""Paths through trees of messages: the path that was kept, or every path, in which each reply is trained once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tutelage.formats.rawrow import RowError


def path_to(leaf: str, parents: Mapping[str, Any]) -> list[str]:
    """The nodes from the root to a leaf.

    Args:
        leaf: the last of them.
        parents: node -> its parent, None for a root.

    Raises:
        RowError: `broken_tree` where a node is not there, or the way up never ends.
    """
    path: list[str] = []
    passed: set[str] = set()
    node: Any = leaf
    while node is not None:
        if not isinstance(node, str) or node not in parents:
            raise RowError("broken_tree", f"the message {node!r} is named and not there")
        if node in passed:
            raise RowError("broken_tree", f"the message {node!r} is its own ancestor")
        path.append(node)
        passed.add(node)
        node = parents[node]
    return path[::-1]


def every_path(parents: Mapping[str, Any], replies: Collection[str]) -> Iterator[tuple[list[str], set[str]]]:
    """Every path from a root to a last reply, with those of its replies that stand in an earlier path.

    A path that another one continues is no path of its own; what follows its last reply is left out.

    Args:
        parents: node -> its parent, in the order of the file.
        replies: the nodes that are replies.

    Raises:
        RowError: as `path_to`.
    """
    inner_nodes = {parent for parent in parents.values() if isinstance(parent, str)}
    ends: dict[str, list[str]] = {}
    for leaf in parents:
        if leaf in inner_nodes:
            continue
        path = path_to(leaf, parents)
        while path and path[-1] not in replies:
            path.pop()
        if path:
            ends[path[-1]] = path
    continued = {node for path in ends.values() for node in path[:-1]}
    trained: set[str] = set()
    for end, path in ends.items():
        if end not in continued:
            yield path, trained.intersection(path)
            trained.update(node for node in path if node in replies)

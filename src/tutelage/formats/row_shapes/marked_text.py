"""Dialogs that a text spells with a mark before each turn, such as `Human:`, split back into their turns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from tutelage.formats.rawrow import RowError
from tutelage.formats.row_shapes.building import Turn
from tutelage.formats.row_shapes.columns import turn


def marked_turns(
    text: str, mark: re.Pattern[str], roles: Mapping[str, str], where: str, *, first_role: str = ""
) -> list[Turn]:
    """The turns of a text, each without the white space around it, which only parted it from its mark.

    A mark may also stand inside a turn, as a quotation. So the turns of user and assistant must alternate: where they
    do not, some mark is none, or some turn is lost, and nobody can say which.

    Args:
        text: the dialog.
        mark: what stands before each turn; its group is a key of `roles`.
        roles: mark, in lower case -> role.
        where: the column, for the sentence of an error.
        first_role: of the words before the first mark; empty where there may be none.

    Raises:
        RowError: `unclear_turns`.
    """
    prefix_text, *pieces = mark.split(text)
    turns = [turn(first_role, prefix_text.strip())] if first_role and prefix_text.strip() else []
    if not turns and prefix_text.strip():
        raise RowError("unclear_turns", f"{where}: words stand before the first mark: {prefix_text.strip()[:40]!r}")
    for name, content in zip(pieces[::2], pieces[1::2], strict=True):
        turns.append(turn(roles[name.lower()], content.strip()))
    if not turns:
        raise RowError("unclear_turns", f"{where}: no mark of a turn")
    require_alternating(turns, where)
    return turns


def require_alternating(turns: list[Turn], where: str) -> None:
    """Refuse turns of which two in a row are of one role, or of which the user's is not the first.

    Raises:
        RowError: `unclear_turns`.
    """
    roles = [said["role"] for said in turns if said["role"] != "system"]
    if roles[:1] == ["assistant"]:
        raise RowError("unclear_turns", f"{where}: the assistant begins")
    for index, (role, following) in enumerate(pairwise(roles)):
        if role == following and role != "tool":
            raise RowError(
                "unclear_turns", f"{where}: turns {index} and {index + 1} are both of the {role}; a mark may be quoted"
            )

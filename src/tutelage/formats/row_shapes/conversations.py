"""Conversations of several turns: lists of texts, pairs, dialogs in one text, and two sides of which one won."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.formats.rawrow import RowError, json_type
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import object_at
from tutelage.formats.row_shapes.columns import alternating, column_list, column_text, python_list, turn


def ultrachat(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A list of texts, the user's and the assistant's by turns."""
    return {"messages": alternating(column_list(row, "data"), "data")}


def capybara(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A list of pairs of input and output."""
    turns = []
    for index, pair in enumerate(column_list(row, "conversation")):
        where = f"conversation[{index}]."
        members = object_at(pair, where[:-1])
        turns += [
            turn("user", column_text(members, "input", where)),
            turn("assistant", column_text(members, "output", where)),
        ]
    return {"messages": turns}


def conversation_as_text(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns in one text, in Python's notation, of which the commas between the turns may be missing."""
    return _turns_as_text(row, "conversation")


def conversations_as_text(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The same under `conversations`."""
    return _turns_as_text(row, "conversations")


def _turns_as_text(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    side = {column: row[column] for column in ("system", "tools", "mask") if row.get(column) is not None}
    return {"messages": python_list(column_text(row, name), name), **side}


def chatbot_arena(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The conversation that won; a tie has no winner, whether both were good or both were bad.

    Raises:
        RowError: `no_preference`, `wrong_type`.
    """
    winner = row.get("winner")
    if winner not in {"model_a", "model_b"}:
        raise RowError("no_preference", f"`winner` is {str(winner)[:40]!r}: neither conversation was preferred")
    name = f"conversation_{winner[-1]}"
    turns = row.get(name)
    if not isinstance(turns, list):
        raise RowError("wrong_type", f"`{name}` must be a list of turns, found {json_type(turns)}")
    model = row.get(winner)
    return {"messages": turns, "metadata": {"model": model} if isinstance(model, str) else {}}


def smoltalk2(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns, and what one template takes as its arguments: tools and instructions become what every template writes.

    Raises:
        RowError: `bad_tools` for tools that are Python's, which no other template lists.
    """
    arguments = dict(object_at(row.get("chat_template_kwargs"), "`chat_template_kwargs`"))
    turns = column_list(row, "messages")
    instructions = arguments.pop("custom_instructions", None)
    tools = arguments.pop("xml_tools", None) or None
    if arguments.get("python_tools"):
        raise RowError("bad_tools", "`chat_template_kwargs.python_tools` offers tools that are called in Python's code")
    arguments.pop("python_tools", None)
    first = object_at(turns[0], "messages[0]")
    if isinstance(instructions, str) and instructions.strip():
        if str(first.get("role")) not in {"system", "developer"}:
            turns = [turn("system", instructions), *turns]
        elif first.get("content") != instructions:
            raise RowError("two_system_texts", "messages[0] and `custom_instructions` are two different system texts")
    return {"messages": turns, "tools": tools, "chat_template_kwargs": arguments}

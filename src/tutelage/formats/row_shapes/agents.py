"""Calls and whole runs of agents: arguments become objects, results their calls', and runs that failed are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tutelage.formats.nested import document
from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn, object_at
from tutelage.formats.row_shapes.columns import column_list, column_text, optional_text, turn

_SPEAKERS: Final = {"caller": "assistant", "conclusion": "assistant"}


def xlam(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A query, and the calls that answer it, in one turn of the assistant.

    Raises:
        RowError: `empty_reply` for no call; `bad_tool_arguments`; a reason of `columns`.
    """
    answers = row.get("answers")
    calls = document(answers, "bad_tool_arguments", "`answers`") if isinstance(answers, str) else answers
    calls = [calls] if isinstance(calls, Mapping) else calls
    if not isinstance(calls, list) or not calls:
        raise RowError("empty_reply", "`answers` holds no call")
    reply = turn("assistant", None, tool_calls=[object_at(call, "a call of `answers`") for call in calls])
    return {"messages": [turn("user", column_text(row, "query")), reply], "tools": row.get("tools")}


def toolbench_speakers(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns of an assistant in parts: who calls and who concludes are both the assistant."""
    turns = []
    for index, said in enumerate(column_list(row, "conversations")):
        members = object_at(said, f"conversations[{index}]")
        turns.append({**members, "from": _SPEAKERS.get(str(members.get("from")), members.get("from"))})
    return {"messages": turns}


def swe_agent(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A run whose patch passed the tests; the system's words stand in a member of their own.

    Raises:
        RowError: `unresolved_run`, `unknown_role`; a reason of `columns`.
    """
    require_resolved(row, "target")
    turns: list[Turn] = []
    trajectory = [object_at(said, f"trajectory[{index}]") for index, said in enumerate(column_list(row, "trajectory"))]
    is_masked = any(said.get("mask") is True for said in trajectory)
    for index, said in enumerate(trajectory):
        where = f"trajectory[{index}]."
        role = {"ai": "assistant"}.get(str(said.get("role")), said.get("role"))
        name = "system_prompt" if role == "system" and not optional_text(said, "text", where) else "text"
        # Where no turn is masked the mark says nothing; where one is, the base form finds out in which sense.
        mask = said.get("mask") if is_masked else None
        turns.append(turn(str(role), column_text(said, name, where), mask=mask))
    return {"messages": turns}


def openhands(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A run in turns with calls and results, joined by their ids; not one that the row says did not resolve its task.

    Raises:
        RowError: `unresolved_run`; a reason of `columns`.
    """
    require_resolved(row, "resolved")
    return {"messages": _run_turns(row, "trajectory"), "tools": row.get("tools")}


def resolved_messages(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The same under `messages`, which may be one JSON text.

    Raises:
        RowError: `unresolved_run`; a reason of `columns`.
    """
    require_resolved(row, "resolved")
    return {"messages": _run_turns(row, "messages"), "tools": row.get("tools")}


def require_resolved(row: Mapping[str, Any], name: str) -> None:
    """Refuse a run that did not do its task: what it shows is not to be learned. A row that does not say passes.

    Raises:
        RowError: `unresolved_run`.
    """
    value = row.get(name)
    if value is not None and value is not True and value != 1:
        raise RowError("unresolved_run", f"`{name}` is {value!r}: the run is not known to have done its task")


def _run_turns(row: Mapping[str, Any], name: str) -> list[Turn]:
    value = row.get(name)
    items = document(value, "bad_json", f"`{name}`") if isinstance(value, str) else value
    turns = []
    for index, said in enumerate(column_list({name: items}, name)):
        members = {key: member for key, member in object_at(said, f"{name}[{index}]").items() if member is not None}
        identifiers = members.pop("tool_call_ids", None)
        if isinstance(identifiers, list) and len(identifiers) == 1 and "tool_call_id" not in members:
            members["tool_call_id"] = identifiers[0]
        turns.append(members)
    return turns

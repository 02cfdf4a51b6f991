"""Sessions of coding agents: a line is an event, and several lines are one turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tutelage.formats.rawrow import RawRow, RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.blocks import turns_of_blocks
from tutelage.formats.row_shapes.building import Turn, is_word, text_at
from tutelage.formats.row_shapes.items import turns_of_items
from tutelage.formats.row_shapes.reading import GatheredRow, merged
from tutelage.formats.row_shapes.trees import every_path, path_to
from tutelage.types import Change, Drop

_NO_MESSAGE = "an event of the session that is no message"


def chained_events(rows: Iterable[RawRow], context: RowContext) -> Iterator[RawRow | Drop | Change]:
    """Events that name the event before them: of each session the path to its last message, or every path.

    Conversations beside the session are dropped (`side_chain`), and so are paths that were left (`other_path`).
    """
    sessions: dict[str, list[RawRow]] = {}
    for row in rows:
        if row.fields.get("isSidechain") is True:
            yield Drop(row.address, "side_chain", "it belongs to a conversation beside the session")
        elif not isinstance(row.fields.get("uuid"), str):
            yield Drop(row.address, "session_event", _NO_MESSAGE)
        else:
            sessions.setdefault(str(row.fields.get("sessionId")), []).append(row)
    for events in sessions.values():
        yield from _session(events, context)


def _session(events: list[RawRow], context: RowContext) -> Iterator[RawRow | Drop | Change]:
    by_id = {row.fields["uuid"]: row for row in events}
    # A session that was compacted, or begins in another file, has no event before its first one.
    parents = {name: parent if is_word(parent := row.fields.get("parentUuid"), by_id) else None
               for name, row in by_id.items()}  # fmt: skip
    messages = [name for name, row in by_id.items() if _message(row) is not None]
    accounted: set[str] = set()
    try:
        if context.tree_paths == "all":
            replies = {name for name in messages if by_id[name].fields["type"] == "assistant"}
            paths = list(every_path(parents, replies))
        else:
            paths = [(path_to(messages[-1], parents), set())] if messages else []
    except RowError as error:
        yield from (Drop(row.address, error.reason, error.detail) for row in events)
        return
    for path, trained in paths:
        said = [name for name in path if _message(by_id[name]) is not None]
        if not said:
            continue
        first = by_id[said[0]]
        try:
            turns = _turns([by_id[name] for name in said], trained)
            yield GatheredRow(first.address, {"messages": turns, "id": first.fields.get("sessionId")})
        except RowError as error:
            yield Drop(first.address, error.reason, error.detail)
        yield from (merged(by_id[name], first) for name in said[1:] if name not in accounted)
        accounted.update(said)
    for name, row in by_id.items():
        if name not in accounted:
            if name in messages:
                yield Drop(row.address, "other_path", "it stands on a path that was edited or left")
            else:
                yield Drop(row.address, "session_event", _NO_MESSAGE)


def _message(row: RawRow) -> Mapping[str, Any] | None:
    message = row.fields.get("message")
    return message if is_word(row.fields.get("type"), {"user", "assistant"}) and isinstance(message, dict) else None


def _turns(events: list[RawRow], trained: set[str]) -> list[Turn]:
    """The turns of events in order; those of one message of the model are put together again."""
    turns: list[Turn] = []
    last_id: Any = None
    for row in events:
        message = _message(row) or {}
        role = row.fields["type"]
        content = message.get("content")
        made = (
            [{"role": role, "content": text_at(content, "message.content")}]
            if not isinstance(content, list)
            else turns_of_blocks(content, role, "message.content")
        )
        is_context = row.fields["uuid"] in trained or row.fields.get("isApiErrorMessage") is True
        if role == "assistant" and is_context:
            made = [turn | {"weight": 0} for turn in made]
        if role == "assistant" and made and last_id is not None and message.get("id") == last_id and turns:
            _join(turns[-1], made.pop(0))
        turns += made
        last_id = message.get("id") if role == "assistant" else None
    return turns


def _join(turn: Turn, more: Turn) -> None:
    for key in ("content", "reasoning_content"):
        if more.get(key):
            turn[key] = (turn.get(key) or "") + more[key]
    if more.get("tool_calls"):
        turn["tool_calls"] = [*turn.get("tool_calls", ()), *more["tool_calls"]]
    if more.get("weight") == 0:
        turn["weight"] = 0


def response_items(rows: Iterable[RawRow], _context: RowContext) -> Iterator[RawRow | Drop | Change]:
    """A session whose turns are items of the Responses API, beside events that repeat their text."""
    items: list[tuple[RawRow, Mapping[str, Any]]] = []
    system, session_id = "", None
    for row in rows:
        payload = row.fields.get("payload")
        if row.fields.get("type") == "session_meta" and isinstance(payload, dict):
            instructions = payload.get("base_instructions") or payload.get("instructions") or ""
            system = instructions.get("text", "") if isinstance(instructions, dict) else instructions
            session_id = payload.get("id")
        if row.fields.get("type") == "response_item" and isinstance(payload, dict):
            items.append((row, payload))
        elif row.fields.get("type") == "compacted":
            yield Drop(row.address, "session_event", "a summary that took the place of earlier turns")
        else:
            yield Drop(row.address, "session_event", _NO_MESSAGE)
    if not items:
        return
    first = items[0][0]
    try:
        turns = turns_of_items([payload for _, payload in items], "payload")
        fields = {"messages": turns, "system": system, "id": session_id}
        yield GatheredRow(first.address, fields)
    except RowError as error:
        yield Drop(first.address, error.reason, error.detail)
    yield from (merged(row, first) for row, _ in items[1:])

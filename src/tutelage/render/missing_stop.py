"""Where a template writes no stop token behind a reply: the token that opens the next turn, or where the reply ends."""

from __future__ import annotations

import json
import re
from itertools import takewhile

from tutelage.render.chat_template.message_format import Seen
from tutelage.render.rendered_row import SeenRow
from tutelage.render.required_text import SHOWN_CHARACTERS, Unproven
from tutelage.render.text_spans import place_of
from tutelage.types import Message

PROBE = "qqprobeqq"
COMPARED_CHARACTERS = 32
"""So many of a turn's last characters must stand before a stop in both texts. Our choice: no two places by chance."""


def stop_of_next(row: SeenRow, index: int, text: str, stop: re.Pattern[str]) -> str | None:
    """The stop token that the template writes right behind a reply once there is a next message; None if none.

    So with GLM's templates: a reply has no end of its own, and the model emits `<|user|>` or `<|observation|>`. A
    template may write the turn otherwise once it is history (without its reasoning, say): what counts is what stands
    right behind the turn's last words.

    Args:
        row: the row.
        index: of the message.
        text: its served prompt and its reply.
        stop: finds a stop token.
    """
    calls = row.conversation.messages[index].tool_calls
    probe = Message("user", PROBE)
    if calls:
        probe = Message("tool", PROBE, name=calls[0].name, tool_call_id=calls[0].id)
    following = row.messages[index + 1 : index + 2] or [row.form.message(probe)]
    try:
        longer = row.render(index + 1, generation_prompt=False, following=following)
        if longer.startswith(text):
            found = stop.match(longer, len(text))
            return None if found is None else found.group()
        return _behind_words(row, index, text, stop, following)
    except Unproven:
        return None


def _behind_words(row: SeenRow, index: int, text: str, stop: re.Pattern[str], following: list[Seen]) -> str | None:
    message = row.conversation.messages[index]
    traced = row.trace(index + 1, generation_prompt=False, following=following)
    place = place_of(traced, index)
    if place is None and not message.tool_calls:  # nothing of the turn stays: a turn of plain words shows its end
        plain = row.form.message(Message("assistant", PROBE))
        traced = row.trace(index + 1, generation_prompt=False, last=plain, following=following)
        place = place_of(traced, index)
        found = None if place is None else stop.match(traced.text, place.last)
        return None if found is None else found.group()
    if place is None:
        return None
    found = stop.search(traced.text, place.last)
    if found is None:
        return None
    first = max(place.first, place.last - COMPARED_CHARACTERS)
    return found.group() if text.endswith(traced.text[first : found.start()]) else None


def without_end(row: SeenRow, index: int, body: str, after: str) -> str:
    """A reply less what the template writes between turns, where it writes no stop token.

    `body` is the reply through its last words, `after` what the finished conversation has behind them.
    """
    message = row.conversation.messages[index]
    if not message.tool_calls and (message.content or "").strip():
        return body
    plain = row.form.message(Message("assistant", PROBE))
    traced = row.trace(index + 1, generation_prompt=False, last=plain)
    place = place_of(traced, index)
    end = traced.text[place.last :] if place is not None else ""
    if end and after.endswith(end):
        return body + after[: len(after) - len(end)]
    return (body + after).rstrip()


def require_own_stop(
    row: SeenRow, index: int, after: str, stop: re.Match[str], control: re.Pattern[str] | None
) -> None:
    """The stop of a reply must be its own, not one that stands in what the template writes behind every conversation.

    Args:
        row: with the turn.
        index: the turn's message.
        after: what the finished turn has behind the reply's last words.
        stop: the first stop token in `after`.
        control: finds control tokens; None where there are none.

    Raises:
        Unproven: the reply would hold a control token of that ending before its stop.
    """
    if control is None or not control.search(after[: stop.start()]):
        return
    finished = row.render(index + 1, generation_prompt=False)
    asked = row.render(index, generation_prompt=False)
    pairs = zip(reversed(finished), reversed(asked), strict=False)
    shared = "".join(letter for letter, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))[::-1]
    first = control.search(shared)
    if first is None or len(shared) - first.start() <= len(after) - stop.start():
        return
    raise Unproven(
        "no_stop_token",
        f"message {index}: the first stop token ({stop.group()!r}) stands in what the template writes behind every "
        f"conversation, {shared[first.start() :][:SHOWN_CHARACTERS]!r}; render.stop_tokens could name one before it",
    )


def own_end(after: str, control: re.Pattern[str] | None) -> str:
    """The control token that the template writes behind a reply, `after`, as a setting; empty where it writes none."""
    found = control.search(after) if control is not None else None
    if found is None:
        return ""
    return f"; if the model is to stop at {found.group()}: render.stop_tokens = [{json.dumps(found.group())}]"

"""Where a template writes no stop token behind a reply: the token that opens the next turn, or where the reply ends."""

from __future__ import annotations

import json
import re
from itertools import takewhile

from tutelage.render.chat_template.message_format import TemplateMessage
from tutelage.render.rendered_row import RenderedRow
from tutelage.render.required_text import EXCERPT_CHARACTERS, Unproven
from tutelage.render.text_spans import span_of
from tutelage.types import Message

PROBE = "qqprobeqq"
COMPARED_CHARACTERS = 32
"""So many of a turn's last characters must stand before a stop in both texts. Our choice: no two places by chance."""


def stop_of_next_turn(row: RenderedRow, index: int, text: str, stop: re.Pattern[str]) -> str | None:
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
            match = stop.match(longer, len(text))
            return None if match is None else match.group()
        return _stop_after_text(row, index, text, stop, following)
    except Unproven:
        return None


def _stop_after_text(
    row: RenderedRow, index: int, text: str, stop: re.Pattern[str], following: list[TemplateMessage]
) -> str | None:
    message = row.conversation.messages[index]
    traced = row.trace(index + 1, generation_prompt=False, following=following)
    span = span_of(traced, index)
    if span is None and not message.tool_calls:  # nothing of the turn stays: a turn of plain words shows its end
        plain = row.form.message(Message("assistant", PROBE))
        traced = row.trace(index + 1, generation_prompt=False, last=plain, following=following)
        span = span_of(traced, index)
        match = None if span is None else stop.match(traced.text, span.end)
        return None if match is None else match.group()
    if span is None:
        return None
    match = stop.search(traced.text, span.end)
    if match is None:
        return None
    start = max(span.start, span.end - COMPARED_CHARACTERS)
    return match.group() if text.endswith(traced.text[start : match.start()]) else None


def without_separator(row: RenderedRow, index: int, body: str, suffix: str) -> str:
    """A reply less what the template writes between turns, where it writes no stop token.

    `body` is the reply through its last words, `suffix` what the finished conversation has behind them.
    """
    message = row.conversation.messages[index]
    if not message.tool_calls and (message.content or "").strip():
        return body
    plain = row.form.message(Message("assistant", PROBE))
    traced = row.trace(index + 1, generation_prompt=False, last=plain)
    span = span_of(traced, index)
    end = traced.text[span.end :] if span is not None else ""
    if end and suffix.endswith(end):
        return body + suffix[: len(suffix) - len(end)]
    return (body + suffix).rstrip()


def require_own_stop(
    row: RenderedRow, index: int, suffix: str, stop: re.Match[str], special_token: re.Pattern[str] | None
) -> None:
    """The stop of a reply must be its own, not one that stands in what the template writes behind every conversation.

    Args:
        row: with the turn.
        index: the turn's message.
        suffix: what the finished turn has behind the reply's last words.
        stop: the first stop token in `suffix`.
        special_token: finds special tokens; None where there are none.

    Raises:
        Unproven: the reply would hold a special token of that ending before its stop.
    """
    if special_token is None or not special_token.search(suffix[: stop.start()]):
        return
    finished = row.render(index + 1, generation_prompt=False)
    history = row.render(index, generation_prompt=False)
    pairs = zip(reversed(finished), reversed(history), strict=False)
    shared = "".join(character for character, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))[::-1]
    first = special_token.search(shared)
    if first is None or len(shared) - first.start() <= len(suffix) - stop.start():
        return
    raise Unproven(
        "no_stop_token",
        f"message {index}: the first stop token ({stop.group()!r}) stands in what the template writes behind every "
        f"conversation, {shared[first.start() :][:EXCERPT_CHARACTERS]!r}; render.stop_tokens could name one before it",
    )


def stop_hint(suffix: str, special_token: re.Pattern[str] | None) -> str:
    """The special token that the template writes behind a reply, `suffix`, as a setting; empty where it writes none."""
    match = special_token.search(suffix) if special_token is not None else None
    if match is None:
        return ""
    return f"; if the model is to stop at {match.group()}: render.stop_tokens = [{json.dumps(match.group())}]"

"""The oracle for `render.control_tokens = "escape"`: spelled control tokens are ordinary text, nothing else changes.

The control ids of an Example must be those of the same row with harmless words in place of the spelled tokens, and the
decoded text must still spell them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from benchmarks.masks.oracle import SHOWN, Facts, Finding, Opinion, trained_messages
from benchmarks.masks.served import Server, Way, ways_for
from msgspec.structs import replace

from tutelage.types import Conversation, Example, Message

HARMLESS = "harmless"


def judge_escaped(
    conversation: Conversation, examples: Sequence[Example], server: Server, facts: Facts, control: re.Pattern[str]
) -> Opinion:
    """The opinion about Examples of a row that spells control tokens in its messages' content or reasoning."""
    plain = replace(conversation, messages=tuple(_disarmed(message, control) for message in conversation.messages))
    findings: list[Finding] = []
    trained = sorted(turn.message for example in examples for turn in example.turns)
    if trained != trained_messages(conversation):
        findings.append(Finding("turns", f"messages {trained} are trained, expected {trained_messages(conversation)}"))
    best: tuple[Way | None, list[Finding]] = (None, [Finding("served prompt", "no way of writing it renders")])
    for way in ways_for(conversation):
        found = [
            one
            for example in examples
            for one in _controls((conversation, plain), example, server, facts, way, control)
        ]
        if not found:
            return Opinion(way, tuple(findings))
        if best[0] is None:
            best = (way, found)
    return Opinion(best[0], (*findings, *best[1]))


def _disarmed(message: Message, control: re.Pattern[str]) -> Message:
    return replace(
        message,
        content=None if message.content is None else control.sub(HARMLESS, message.content),
        reasoning=None if message.reasoning is None else control.sub(HARMLESS, message.reasoning),
    )


def _controls(
    rows: tuple[Conversation, Conversation],
    example: Example,
    server: Server,
    facts: Facts,
    way: Way,
    control: re.Pattern[str],
) -> Iterator[Finding]:
    """What is wrong with one Example; `rows` are the row and the same disarmed."""
    conversation, plain = rows
    for turn in example.turns:
        where = f"message {turn.message}"
        prompt = server.text(plain, turn.message, way, prompt=True)
        if not isinstance(prompt, str):
            yield Finding("served prompt", f"{where}: {prompt.why}")
            continue
        ids = example.ids[: turn.reply_end].tolist()
        wanted = control.findall(prompt)
        named = (_control_token(token_id, facts, control) for token_id in ids[: turn.prompt_end])
        found = [one for one in named if one is not None]
        if found != wanted:
            yield Finding("control ids", f"{where}: the prompt holds {found[:8]}, the same row disarmed {wanted[:8]}")
        text = facts.decode(ids)
        for message in conversation.messages[: turn.message + 1]:
            words = (message.content or "").strip()
            if control.search(words) and words not in text:
                yield Finding("own words", f"{where}: {words[:SHOWN]!r} is not in the decoded {text[-SHOWN:]!r}")
        if ids[-1] not in facts.stop_ids or any(token_id in facts.stop_ids for token_id in ids[turn.prompt_end : -1]):
            yield Finding("stop", f"{where}: {facts.decode(ids[turn.prompt_end :])[:SHOWN]!r}")


def _control_token(identifier: int, facts: Facts, control: re.Pattern[str]) -> str | None:
    token = facts.tokenizer.id_to_token(identifier)
    return token if token is not None and control.fullmatch(token) else None

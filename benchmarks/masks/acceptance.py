"""Does the template itself accept a conversation? Asked of transformers, apart from what tutelage did with it.

A pair is *accepted* when, in some accepted way of writing the messages, for every turn that is to be trained
- something stands before the turn, and its served prompt and the finished turn render without an error,
- the prompt holds the content, calls and results of every message before (the reasoning of earlier turns may be gone),
- the finished turn holds the turn's own content, calls and reasoning; or its prompt opens a block for the reasoning,
- the prompt does not close the block for reasoning when the turn has some.
It is *left to a policy* when text spells one of the checkpoint's control tokens, or when the prompt opens a block of
reasoning that the turn does not have. Everything else is *not accepted*, with what was lost.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from benchmarks.masks.opened import left_inside
from benchmarks.masks.oracle import trained_messages
from benchmarks.masks.served import INLINE, Refusal, Server, Way, ways_for
from benchmarks.masks.words import (
    CLOSED_BLOCK,
    INLINE_REASONING,
    OPENED_BLOCK,
    all_words,
    called,
    said_to_model,
    spoken,
)

from tutelage.types import Conversation, Message


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Whether the template takes the row, in which way, and if not, why not.

    `renders` says only that the whole conversation renders without an error in some way.
    """

    kind: Literal["accepted", "control token", "no reasoning", "not accepted"]
    why: str
    way: Way | None
    renders: bool


def accepts(conversation: Conversation, server: Server, control: re.Pattern[str] | None) -> Acceptance:
    """The template's own answer to a row."""
    renders, reasons, policy = False, [], None
    count = len(conversation.messages)
    for way in ways_for(conversation):
        if way.reasoning in INLINE:
            continue  # moving reasoning into the content is the data's choice, not the template's
        renders = renders or isinstance(server.text(conversation, count, way, prompt=False), str)
        problem = _problem(conversation, server, way)
        if problem is None:
            kind: Literal["accepted", "control token"] = (
                "control token" if _spells(conversation, control) else "accepted"
            )
            return Acceptance(kind, "", way, renders)
        if problem.startswith("no reasoning"):
            policy = policy or Acceptance("no reasoning", problem, way, renders)
        reasons.append(problem)
    if policy is not None:
        return Acceptance("control token", "", policy.way, renders) if _spells(conversation, control) else policy
    return Acceptance("not accepted", reasons[0], None, renders)


def _spells(conversation: Conversation, control: re.Pattern[str] | None) -> bool:
    if control is None:
        return False
    beside = json.dumps(
        [[dict(tool) for tool in conversation.tools], dict(conversation.template_arguments)], ensure_ascii=False
    )
    return any(control.search(text) for text in (beside, *map(all_words, conversation.messages)))


def _problem(conversation: Conversation, server: Server, way: Way) -> str | None:
    """What keeps the template from taking the row in this way. A missing reasoning comes last: it is the mildest."""
    mild = None
    for index in trained_messages(conversation):
        if index == 0:
            return "nothing stands before message 0, and no server takes an empty conversation"
        prompt = server.text(conversation, index, way, prompt=True)
        finished = server.text(conversation, index + 1, way, prompt=False)
        if isinstance(prompt, Refusal) or isinstance(finished, Refusal):
            return "refused: " + " ".join(one.why for one in (prompt, finished) if isinstance(one, Refusal))
        problem = _lost_from_prompt(conversation, index, prompt) or _lost_from_turn(
            conversation.messages[index], index, prompt, finished
        )
        if problem is None:
            continue
        if not problem.startswith("no reasoning"):
            return problem
        mild = problem
    return mild


def _lost_from_prompt(conversation: Conversation, index: int, prompt: str) -> str | None:
    if not prompt:
        return f"the prompt before message {index} is empty"
    for earlier, other in enumerate(conversation.messages[:index]):
        for piece in said_to_model(other):
            if piece.find(prompt) is None:
                return f"loses {other.role} {piece.kind} of message {earlier}"
    return None


def _lost_from_turn(message: Message, index: int, prompt: str, finished: str) -> str | None:
    opened, closed = OPENED_BLOCK.search(prompt), CLOSED_BLOCK.search(prompt)
    reasons = bool((message.reasoning or "").strip()) or INLINE_REASONING.match(message.content or "") is not None
    if closed and reasons and not finished.startswith(prompt):
        return f"the served prompt closes the reasoning that message {index} has"
    for piece in [*spoken(message), *called(message)]:
        if piece.find(finished) is None and not (opened and "reasoning" in piece.kind):
            return f"loses assistant {piece.kind} of message {index}"
    if opened and not reasons and (not finished.startswith(prompt) or left_inside(prompt, finished)):
        return f"no reasoning in message {index}, whose prompt opens a block for it"
    return None

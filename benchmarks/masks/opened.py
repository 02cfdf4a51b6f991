"""Turns behind a prompt that opens reasoning which the finished turn leaves out, or never leaves again."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import takewhile
from typing import Any

from benchmarks.masks.served import Refusal, Server, Way, as_served, render
from benchmarks.masks.words import OPENED_BLOCK
from msgspec import structs

from tutelage.types import Conversation

THOUGHT = "Probing thought"
WORDS_OF_REASONING = re.compile(r"[^<>\[\]|]*(?i:reason|think|thought)[^<>\[\]|]*")
FIELDS = ("reasoning_content", "reasoning", "thinking")


def closing_of(prompt: str) -> str:
    """What closes the block that a prompt opens at its end; empty when it opens none."""
    opened = OPENED_BLOCK.search(prompt)
    if opened is None:
        return ""
    tag, bracket, cohere, _ = opened.groups()
    return f"</{tag}>" if tag else f"[/{bracket}]" if bracket else f"<|END_{cohere}|>" if cohere else "<channel|>"


def left_inside(prompt: str, finished: str) -> bool:
    """Whether a finished turn goes on behind its prompt, inside the block that this opens, or opens it once more."""
    opened = OPENED_BLOCK.search(prompt)
    if opened is None or not finished.startswith(prompt):
        return False
    tail = finished[len(prompt) :]
    return closing_of(prompt) not in tail or tail.lstrip().startswith(opened.group().strip())


def finished_turn(conversation: Conversation, index: int, server: Server, way: Way, prompt: str) -> str | Refusal:
    """The finished turn; one that would stay inside the opened block has its reasoning, closed, in its content."""
    finished = server.text(conversation, index + 1, way, prompt=False)
    if isinstance(finished, Refusal) or not left_inside(prompt, finished):
        return finished
    message, opened, closing = conversation.messages[index], OPENED_BLOCK.search(prompt), closing_of(prompt)
    assert opened is not None, "left_inside found a block"
    tag = opened.group().rstrip()
    gap = opened.group()[len(tag) :]
    thought, content = (message.reasoning or "").strip(), message.content or ""
    if not thought and content.lstrip().startswith(tag):
        inner = content.lstrip()[len(tag) :]
        inner = inner.removeprefix(gap) if inner.startswith(gap) else inner.lstrip()
    else:
        inner = thought + (f"\n{closing}\n\n" if "\n" in gap else closing) + content
    return _with_last(
        conversation, index, server, way, as_served(structs.replace(message, content=inner, reasoning=None), way)
    )


def behind_reasoning(conversation: Conversation, index: int, server: Server, way: Way, texts: tuple[str, str]) -> str:
    """What the template writes for a turn without reasoning behind one that it is lent here.

    `texts` are its served prompt and the finished turn. Empty unless the prompt has words of reasoning where the
    finished turn has its own, and no tag; and where the turn has a reasoning, or the template writes none.
    """
    prompt, finished = texts
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, finished, strict=False)))
    beyond = prompt[same:]
    message = conversation.messages[index]
    if (message.reasoning or "").strip() or not WORDS_OF_REASONING.fullmatch(beyond):
        return ""
    for name in FIELDS:
        lent = as_served(structs.replace(message, reasoning=THOUGHT), replace(way, reasoning=name))
        text = _with_last(conversation, index, server, way, lent)
        if isinstance(text, str) and THOUGHT in text:
            return text[text.rindex(THOUGHT) + len(THOUGHT) :]
    return ""


def _with_last(conversation: Conversation, index: int, server: Server, way: Way, last: dict[str, Any]) -> str | Refusal:
    return render(
        server.tokenizer,
        [*(as_served(message, way) for message in conversation.messages[:index]), last],
        tools=[dict(tool) for tool in conversation.tools],
        arguments=conversation.template_arguments,
        prompt=False,
    )

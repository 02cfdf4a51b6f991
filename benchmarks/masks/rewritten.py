"""Rows as a server may have them too: reasoning taken out of the content, or asked for with a template's argument.

A server that parses what a model emitted hands reasoning back in a field of its own; one that is asked to reason hands
the request's argument to the template. Nothing here comes from `tutelage.render`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from benchmarks.masks.oracle import Facts, Opinion, judge
from benchmarks.masks.served import Refusal, Server, ways_for
from benchmarks.masks.words import CLOSED_BLOCK, INLINE_REASONING
from msgspec.structs import replace

from tutelage.types import Conversation, Example, Message

ARGUMENTS = ("enable_thinking", "thinking")
"""The arguments by which chat servers are asked to reason."""


def judge_rewritten(
    conversation: Conversation, examples: Sequence[Example], server: Server, facts: Facts, *, opens: bool
) -> Opinion:
    """The opinion of a row as it stands, or as it is written anew where that alone is right.

    `opens` says whether turns whose served prompt closes the block of their reasoning are served with an argument.
    """
    first = judge(conversation, examples, server, facts)
    if first.is_right:
        return first
    others = [*_in_field(conversation), *(_asked(conversation, server, facts) if opens else ())]
    for other in others:
        opinion = judge(server.keep(other), examples, server, facts)
        if opinion.is_right:
            return opinion
    return first


def reasons(message: Message) -> bool:
    """Whether a message holds reasoning, in a field or in its content."""
    match = INLINE_REASONING.match(message.content or "")
    return bool((message.reasoning or "").strip()) or (match is not None and bool(match[1].strip()))


def _in_field(conversation: Conversation) -> Iterator[Conversation]:
    messages = []
    for message in conversation.messages:
        match = INLINE_REASONING.match(message.content or "") if message.role == "assistant" else None
        if match is not None and match[1].strip() and not (message.reasoning or "").strip():
            messages.append(replace(message, reasoning=match[1].strip(), content=match[2].lstrip()))
        else:
            messages.append(message)
    if tuple(messages) != tuple(conversation.messages):
        yield replace(conversation, messages=tuple(messages))


def _asked(conversation: Conversation, server: Server, facts: Facts) -> Iterator[Conversation]:
    """With each argument that the template reads, where a prompt closes the block that its turn needs without it."""
    turns = [
        index for index, message in enumerate(conversation.messages) if message.role == "assistant" and reasons(message)
    ]
    way = ways_for(conversation)[0]
    prompts = [server.text(conversation, index, way, prompt=True) for index in turns]
    if not any(not isinstance(prompt, Refusal) and CLOSED_BLOCK.search(prompt) for prompt in prompts):
        return
    for name in ARGUMENTS:
        if re.search(rf"\b{name}\b", facts.template) and name not in conversation.template_arguments:
            yield replace(conversation, template_arguments={**conversation.template_arguments, name: True})

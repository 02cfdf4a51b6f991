"""What a template writes behind every conversation, whoever spoke last: no part of any reply."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile

from benchmarks.masks.served import Refusal, Server, render

from tutelage.types import Conversation

QUESTION = {"role": "user", "content": "Probing question"}


def standing_end(
    conversation: Conversation, finished: str, server: Server, control: Collection[str], stops: Sequence[str]
) -> str:
    """The end that a finished turn shares with a bare question, from its first control token to its last stop.

    Empty where they share a stop token alone, as they do in most templates.
    """
    asked = render(
        server.tokenizer,
        [QUESTION],
        tools=[dict(tool) for tool in conversation.tools],
        arguments=conversation.template_arguments,
        prompt=False,
    )
    if isinstance(asked, Refusal):
        return ""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(reversed(asked), reversed(finished), strict=False))
    shared = "".join(one for one, _ in same)[::-1]
    first = min((shared.index(one) for one in control if one in shared), default=len(shared))
    last = max((shared.rindex(stop) for stop in stops if stop in shared), default=first)
    return shared[first:last].strip()

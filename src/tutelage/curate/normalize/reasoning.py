"""Tags of reasoning in a reply that has no pair of them: a template or an export left out the other one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from msgspec.structs import replace

from tutelage.curate.excerpts import excerpt
from tutelage.curate.normalize.special_texts import special_texts
from tutelage.curate.prose import outside_backticks
from tutelage.types import Message


@dataclass(frozen=True, slots=True)
class Unmendable:
    """Why a reply cannot be kept, and the words that show it."""

    reason: str
    detail: str


def mend_reasoning(message: Message) -> Message | Unmendable:
    """A reply with its stray tag of reasoning resolved.

    Text before a lone closing tag is the reasoning, as the opening tag was part of the prompt; a tag at the edge of a
    reply whose reasoning stands apart goes, and so does an empty pair; a pair at the start is left to the renderer,
    which knows how the model wants it.

    Returns:
        The message, itself where nothing is stray; or that it cannot be kept, as its reasoning never ends, or its tags
        can be read in several ways.
    """
    content = message.content or ""
    tags = _tags()
    met = ("<" in content or "[" in content) and tags.search(content) and tags.findall(outside_backticks(content))
    if not met:
        return message
    opening, closing = special_texts("reasoning"), set(special_texts("reasoning").values())
    if met == [tag for first in met[::2] for tag in (first, opening.get(first))]:
        return _without_empty_pair(message, content, met)
    if len(met) == 1 and met[0] in closing and (closed := _closed(message, *content.split(met[0]))) is not None:
        return closed
    if met[-1] in opening and content.lstrip().startswith(met[0]):
        return Unmendable("reasoning_unfinished", f"{met[-1]} is not closed: {excerpt(content)}")
    return Unmendable("reasoning_tags_unclear", f"tags of reasoning that do not pair: {' '.join(met[:6])}")


def _closed(message: Message, before: str, after: str, *more: str) -> Message | None:
    """The reply around a lone closing tag; None where it can be read in several ways."""
    before, after = before.strip(), after.strip()
    if more or not (before or after):
        return None
    if before and after:
        return replace(message, content=after, reasoning=before) if message.reasoning is None else None
    return replace(message, content=before or after) if after or message.reasoning is not None else None


def _without_empty_pair(message: Message, content: str, met: list[str]) -> Message:
    empty = re.match(rf"\s*{re.escape(met[0])}\s*{re.escape(met[1])}\s*", content)
    if len(met) == 2 and empty and content[empty.end() :].strip():
        return replace(message, content=content[empty.end() :])
    return message


@cache
def _tags() -> re.Pattern[str]:
    pairs = special_texts("reasoning")
    return re.compile("|".join(map(re.escape, (*pairs, *pairs.values()))))

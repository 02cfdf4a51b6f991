"""Blocks of reasoning in a served prompt: opened, closed, or none; and how a template closes one.

Known by their tags, which `reasoning.toml` lists.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

TAIL_CHARACTERS = 120
"""Characters at the end of a prompt in which an opening tag and the white space behind it must fit."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Patterns for the tags of reasoning.

    Attributes:
        shapes: a pattern of an opening tag, its name in a group, and the closing tag with `{}` for the name.
        opened_end: an opening tag and white space at the end of a text.
        closed_end: a closing tag at the end, with the opening one if the block is empty.
        empty_start: the same at the beginning.
        empty_block: an opening and a closing tag at the beginning with nothing but white space between.
        any: any tag, in a group.
        word: a word that names reasoning.
    """

    shapes: tuple[tuple[re.Pattern[str], str], ...]
    opened_end: re.Pattern[str]
    closed_end: re.Pattern[str]
    empty_start: re.Pattern[str]
    empty_block: re.Pattern[str]
    any: re.Pattern[str]
    word: re.Pattern[str]


@cache
def tags() -> Tags:
    """The tags of `reasoning.toml`."""
    facts = tomllib.loads(files("tutelage.render.chat_template").joinpath("reasoning.toml").read_text(encoding="utf-8"))
    name = rf"(?i:[\w:]*(?:{'|'.join(facts['words'])})[\w:]*)"
    written = [
        (re.escape(opening).replace(r"\{\}", "{}"), closing) for opening, closing in (*facts["shapes"], *facts["pairs"])
    ]
    opens = "|".join(opening.replace("{}", name) for opening, _ in written)
    closes = "|".join(re.escape(closing).replace(r"\{\}", name) for _, closing in written)
    return Tags(
        shapes=tuple((re.compile(opening.replace("{}", f"({name})")), closing) for opening, closing in written),
        opened_end=re.compile(rf"({opens})(\s*)\Z"),
        closed_end=re.compile(rf"(?:(?:{opens})\s*)?(?:{closes})\s*\Z"),
        empty_start=re.compile(rf"\A\s*(?:(?:{opens})\s*)?(?:{closes})\s*"),
        empty_block=re.compile(rf"\A\s*(?:{opens})\s*(?:{closes})\s*"),
        any=re.compile(rf"({opens}|{closes})"),
        word=re.compile("|".join(facts["words"]), re.IGNORECASE),
    )


def closing_of(tag: str) -> str:
    """The tag that closes a block which `tag` opens."""
    for shape, closing in tags().shapes:
        if match := shape.fullmatch(tag):
            return closing.replace("{}", "".join(match.groups()))
    raise AssertionError(f"{tag!r} opens no block")


@dataclass(frozen=True, slots=True)
class OpenBlock:
    """A block of reasoning that a prompt leaves open.

    Attributes:
        tag: the opening tag, such as `<think>`.
        closing: the closing tag.
        gap: the white space between the opening tag and the end of the prompt.
    """

    tag: str
    closing: str
    gap: str

    def close(self, reasoning: str) -> str:
        """What follows the prompt up to the reply proper, where the template itself never writes the closing tag.

        White space is mirrored: a tag that opens a line closes on a line of its own, with a blank line after it.
        Source: the form in which DeepSeek-R1 and its successors emit reasoning (DeepSeek-AI 2025, table 1; model card).
        """
        inner = reasoning.strip()
        if "\n" not in self.gap:
            return f"{inner}{self.closing}"
        return f"{inner}\n{self.closing}\n\n"

    def continuation(self, content: str) -> str | None:
        """`content` without the opening tag it begins with, as the prompt has it already; None if it begins otherwise.

        The content must close the block, or the reply would never leave it.
        """
        text = content.lstrip()
        if not text.startswith(self.tag) or self.closing not in text:
            return None
        remainder = text[len(self.tag) :]
        return remainder[len(self.gap) :] if remainder.startswith(self.gap) else remainder.lstrip()


def open_block_at_end(text: str) -> OpenBlock | None:
    """The block that `text` (a prompt, or its end) leaves open at its very end; None if it leaves none open."""
    match = tags().opened_end.search(text[-TAIL_CHARACTERS:])
    if match is None:
        return None
    tag, gap = match.groups()
    return OpenBlock(tag, closing_of(tag), gap)


def text_before_closed_block(text: str) -> str | None:
    """`text` less the closed block that it ends with, an empty one say; None if it ends with none."""
    start = max(0, len(text) - TAIL_CHARACTERS)
    match = tags().closed_end.search(text, start)
    return None if match is None else text[: match.start()]


def strip_empty_block(text: str) -> str:
    """`text` less an empty block at its very beginning, and the white space around that."""
    return tags().empty_start.sub("", text)


def without_empty_block(content: str) -> str:
    """`content` less the empty block that it begins with, if it begins with one: it holds no words."""
    match = tags().empty_block.match(content)
    return content if match is None else content[match.end() :]


def leading_block(content: str) -> tuple[str, str] | None:
    """What the block of reasoning holds that `content` begins with, and what follows it; None if there is none."""
    text = content.lstrip()
    for shape, closing in tags().shapes:
        if match := shape.match(text):
            inner, tag, remainder = text[match.end() :].partition(closing.replace("{}", "".join(match.groups())))
            return (inner, remainder) if tag else None
    return None


def names_reasoning(text: str) -> bool:
    """Whether `text` names reasoning with one of the words that tags of reasoning are made of."""
    return tags().word.search(text) is not None


def has_reasoning_tags(text: str) -> bool:
    """Whether a tag of reasoning stands in `text`."""
    return tags().any.search(text) is not None


def contains_pieces(text: str, required: str) -> bool:
    """Whether `text` contains `required`, which has reasoning tags, piece by piece, white space around each aside."""
    if not has_reasoning_tags(required):
        return False
    position = 0
    for piece in tags().any.split(required):
        start = text.find(piece.strip(), position)
        if start < 0:
            return False
        position = start + len(piece.strip())
    return True

"""Blocks of reasoning in a served prompt: opened, closed, or none; and how a template closes one.

Known by their tags: `<think>`, `<thought>`, `<thinking>`, `[THINK]`, `<seed:think>` and the like, closed by the same
name behind a slash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NAME = r"(?:\w+:)?(?:think|thinking|thought|thoughts|reason|reasoning)"
_OPEN = re.compile(rf"([<\[])({_NAME})([>\]])(\s*)", re.IGNORECASE)
_TAG = re.compile(rf"[<\[]/?{_NAME}[>\]]", re.IGNORECASE)
_CLOSED_END = re.compile(rf"(?:[<\[]{_NAME}[>\]]\s*)?[<\[]/{_NAME}[>\]]\s*\Z", re.IGNORECASE)
_EMPTY_START = re.compile(rf"\A\s*(?:[<\[]{_NAME}[>\]]\s*)?[<\[]/{_NAME}[>\]]\s*", re.IGNORECASE)


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

    def continued(self, content: str) -> str | None:
        """`content` without the opening tag it begins with, as the prompt has it already; None if it begins otherwise.

        The content must close the block, or the reply would never leave it.
        """
        words = content.lstrip()
        if not words.startswith(self.tag) or self.closing not in words:
            return None
        after = words[len(self.tag) :]
        return after[len(self.gap) :] if after.startswith(self.gap) else after.lstrip()


def opened_by(text: str) -> OpenBlock | None:
    """The block that `text` (a prompt, or its end) leaves open at its very end; None if it leaves none open."""
    last = None
    for match in _OPEN.finditer(text):
        last = match
    if last is None or last.end() != len(text):
        return None
    left, name, right, gap = last.groups()
    return OpenBlock(f"{left}{name}{right}", f"{left}/{name}{right}", gap)


def before_closed(text: str) -> str | None:
    """`text` less the closed block that it ends with, such as `<think>\n\n</think>\n\n`; None if it ends with none."""
    found = _CLOSED_END.search(text)
    return None if found is None else text[: found.start()]


def less_empty_block(text: str) -> str:
    """`text` less an empty block at its very beginning, and the white space around that."""
    return _EMPTY_START.sub("", text)


def has_tags(text: str) -> bool:
    """Whether a tag of reasoning stands in `text`."""
    return _TAG.search(text) is not None


def holds_pieces(text: str, words: str) -> bool:
    """Whether `text` holds `words`, which have tags of reasoning, tag by tag and piece by piece, white space aside."""
    if not has_tags(words):
        return False
    position = 0
    for piece in re.split(rf"({_TAG.pattern})", words, flags=re.IGNORECASE):
        found = text.find(piece.strip(), position)
        if found < 0:
            return False
        position = found + len(piece.strip())
    return True

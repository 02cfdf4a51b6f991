"""Which form a reply has: JSON, a title, bullets, highlights, sections, one of three answers."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from tutelage.evaluate.instructions.instruction import Count, Instruction, Phrase

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
"""Source: the options of the published checks."""

_BULLET = re.compile(r"^[ \t]*[*+-][ \t]+\S", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*([*-])(?:[ \t]*\1){2,}[ \t]*$", re.MULTILINE)
_HIGHLIGHT = re.compile(r"(?<!\*)(\*{1,3})(?=[^\n*]*[^\s*])[^\n*]+\1(?!\*)")
_FENCE = re.compile(r"\A```(?:json)?(?![\w])(.*?)(?:```)?\Z", re.IGNORECASE | re.DOTALL)


class JsonFormat(Instruction):
    """The whole reply is JSON, which a Markdown code block may hold."""

    def _follows(self, reply: str) -> bool:
        fenced = _FENCE.match(reply.strip())
        try:
            json.loads(fenced[1] if fenced else reply, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):  # a model that loops can open brackets without end
            return False
        return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class Title(Instruction):
    """A title in double angular brackets, such as <<poem of joy>>."""

    def _follows(self, reply: str) -> bool:
        return any(_title(line) for line in reply.split("\n"))


def _title(line: str) -> str:
    start, end = line.find("<<"), line.rfind(">>")
    return line[start:end].strip("<>").strip() if 0 <= start < end else ""


class NumberBulletLists(Instruction):
    """Exactly so many Markdown bullet points.

    Source: CommonMark 0.31, list items: a bullet is `*`, `-` or `+` and a space; three or more alone are a rule.
    """

    num_bullets: Count

    def _follows(self, reply: str) -> bool:
        return len(_BULLET.findall(_RULE.sub("", reply))) == self.num_bullets


class NumberHighlightedSections(Instruction):
    """At least so many passages between asterisks, one to three on each side, on one line; each counts once."""

    num_highlights: Count

    def _follows(self, reply: str) -> bool:
        return len(_HIGHLIGHT.findall(reply)) >= self.num_highlights


class MultipleSections(Instruction):
    """At least so many sections, each marked by the word, as it is spelled, and a number."""

    section_spliter: Phrase
    num_sections: Count

    def _follows(self, reply: str) -> bool:
        return len(re.findall(re.escape(self.section_spliter.strip()) + r"\s?\d+", reply)) >= self.num_sections


class ConstrainedResponse(Instruction):
    """One of the three answers is there, as it is spelled."""

    def _follows(self, reply: str) -> bool:
        return any(option in reply for option in OPTIONS)

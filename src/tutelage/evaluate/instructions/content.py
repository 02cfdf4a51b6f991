"""What a reply must contain beside its answer: placeholders, a postscript."""

from __future__ import annotations

import re

from tutelage.evaluate.instructions.instruction import Count, Instruction, Phrase

_PLACEHOLDER = re.compile(r"\[([^\[\]\n]+)\]")


class NumberPlaceholders(Instruction):
    """At least so many placeholders in square brackets, such as [address]; empty brackets hold no place."""

    num_placeholders: Count

    def _follows(self, reply: str) -> bool:
        return sum(bool(name.strip()) for name in _PLACEHOLDER.findall(reply)) >= self.num_placeholders


class Postscript(Instruction):
    """A postscript that starts with the marker, in any case; white space behind its points is allowed."""

    postscript_marker: Phrase

    def _follows(self, reply: str) -> bool:
        marker = re.escape(self.postscript_marker.strip()).replace(r"\.", r"\.[^\S\n]?")
        return re.search(rf"(?<!\w)(?<!\w\.){marker}", reply, re.IGNORECASE) is not None

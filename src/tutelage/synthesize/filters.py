"""Instructions that are not taken whatever else there is: too short, too long, beyond what a text model can do.

Both originals also leave out what begins with a character that is not ASCII, and with it most languages; here it may.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from tutelage.types import Address, Drop
from tutelage.words import plain_words

RULES = "filters.toml"


@dataclass(frozen=True, slots=True)
class Filters:
    """The rules of `filters.toml`.

    Attributes:
        fewest_words: an instruction has at least so many.
        most_words: and at most so many.
        unsuited: finds a word for what a text model cannot do.
        beginnings: beginnings that are not taken, in small letters.
    """

    fewest_words: int
    most_words: int
    unsuited: re.Pattern[str]
    beginnings: tuple[str, ...]

    def drop(self, instruction: str, address: Address) -> Drop | None:
        """Why an instruction is not taken; None where it may be."""
        words = len(plain_words(instruction))
        if words < self.fewest_words:
            return Drop(address, "instruction_too_short", f"{words} words, at least {self.fewest_words}: {instruction}")
        if words > self.most_words:
            return Drop(address, "instruction_too_long", f"{words} words, at most {self.most_words}")
        if match := self.unsuited.search(instruction):
            return Drop(address, "beyond_text", f"'{match[0]}' in: {instruction}")
        if unicodedata.category(instruction.lstrip()[0]).startswith(("P", "S")):
            return Drop(address, "begins_with_punctuation", instruction)
        if instruction.casefold().lstrip().startswith(self.beginnings):
            return Drop(address, "asks_for_a_program", instruction)
        return None


@cache
def published_filters() -> Filters:
    """Those of `filters.toml`."""
    rules = tomllib.loads((files(__package__) / RULES).read_text(encoding="utf-8"))
    words = sorted(word for group in rules["unsuited"].values() for word in group)
    return Filters(
        fewest_words=rules["limits"]["fewest_words"],
        most_words=rules["limits"]["most_words"],
        unsuited=re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE),
        beginnings=tuple(text for group in rules["beginnings"].values() for text in group),
    )

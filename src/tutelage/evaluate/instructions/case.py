"""Capitals and small letters."""

from __future__ import annotations

import re

from tutelage.evaluate.instructions.instruction import Count, Instruction, Relation, holds
from tutelage.evaluate.instructions.languages import likeliest_languages
from tutelage.evaluate.instructions.words import joined_words


class CapitalWordFrequency(Instruction):
    """Words in capitals only are there less often than so many times, or at least so often; "I" is such a word."""

    capital_frequency: Count
    capital_relation: Relation

    def _follows(self, reply: str) -> bool:
        words = (re.sub(r"['’]s$", "", word) for word in joined_words(reply))
        return holds(sum(word.isupper() for word in words), self.capital_relation, self.capital_frequency)


class EnglishCapital(Instruction):
    """No letter is small, and nothing says that it is not in English, as nothing does in a list of names."""

    def _follows(self, reply: str) -> bool:
        return reply.isupper() and "en" in likeliest_languages(reply)


class EnglishLowercase(Instruction):
    """No letter is a capital, and nothing says that it is not in English."""

    def _follows(self, reply: str) -> bool:
        return reply.islower() and "en" in likeliest_languages(reply)

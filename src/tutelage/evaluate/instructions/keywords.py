"""Which words and letters stand in a reply, and how often."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from tutelage.evaluate.instructions.instruction import Count, Instruction, Phrase, Phrases, Relation, holds
from tutelage.evaluate.instructions.words import is_whole_word_in


class Existence(Instruction):
    """All keywords are there, in any case, also inside longer words."""

    keywords: Phrases

    def _follows(self, reply: str) -> bool:
        return all(keyword.casefold() in reply.casefold() for keyword in self.keywords)


class Frequency(Instruction):
    """The keyword is there less often than so many times, or at least so often; in any case, also in longer words."""

    keyword: Phrase
    frequency: Count
    relation: Relation

    def _follows(self, reply: str) -> bool:
        return holds(reply.casefold().count(self.keyword.casefold()), self.relation, self.frequency)


class ForbiddenWords(Instruction):
    """None of the words is there as a whole word, in any case."""

    forbidden_words: Phrases

    def _follows(self, reply: str) -> bool:
        return not any(is_whole_word_in(word, reply) for word in self.forbidden_words)


class LetterFrequency(Instruction):
    """The character, a letter in any case or a sign, is there less often than so many times, or at least so often."""

    letter: Annotated[str, StringConstraints(pattern=r"^\S$")]
    let_frequency: Count
    let_relation: Relation

    def _follows(self, reply: str) -> bool:
        return holds(reply.lower().count(self.letter.lower()), self.let_relation, self.let_frequency)

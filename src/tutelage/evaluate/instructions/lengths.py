"""How long a reply is: words, sentences, paragraphs."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import StringConstraints, model_validator

from tutelage.evaluate.instructions.instruction import Count, Instruction, Relation, holds
from tutelage.evaluate.instructions.sentences import count_sentences
from tutelage.evaluate.instructions.words import count_words

_DIVIDER = re.compile(r"(?<!\S)\*\*\*(?!\S)")


class NumberWords(Instruction):
    """Fewer words than so many, or at least so many."""

    num_words: Count
    relation: Relation

    def _follows(self, reply: str) -> bool:
        return holds(count_words(reply), self.relation, self.num_words)


class NumberSentences(Instruction):
    """Fewer sentences than so many, or at least so many."""

    num_sentences: Count
    relation: Relation

    def _follows(self, reply: str) -> bool:
        return holds(count_sentences(reply), self.relation, self.num_sentences)


class NumberParagraphs(Instruction):
    """Exactly so many paragraphs, divided by `***`; a divider before the first or behind the last divides nothing."""

    num_paragraphs: Count

    def _follows(self, reply: str) -> bool:
        paragraphs = _DIVIDER.split(reply)
        inner = paragraphs[1:-1]
        filled = [paragraph for paragraph in paragraphs if paragraph.strip()]
        return all(paragraph.strip() for paragraph in inner) and len(filled) == self.num_paragraphs


class NthParagraphFirstWord(Instruction):
    """Exactly so many paragraphs, divided by blank lines, and one of them, counted from 1, begins with the word."""

    num_paragraphs: Count
    nth_paragraph: Count
    first_word: Annotated[str, StringConstraints(pattern=r"^\S+$")]

    @model_validator(mode="after")
    def _is_among_them(self) -> Self:
        if self.nth_paragraph > self.num_paragraphs:
            raise ValueError(f"nth_paragraph is {self.nth_paragraph} of {self.num_paragraphs}")
        return self

    def _follows(self, reply: str) -> bool:
        paragraphs = [paragraph.strip() for paragraph in reply.split("\n\n") if paragraph.strip()]
        if len(paragraphs) != self.num_paragraphs:
            return False
        pattern = rf"""[\s"'“‘«(]*{re.escape(self.first_word)}(?![\w-])"""
        return re.match(pattern, paragraphs[self.nth_paragraph - 1], re.IGNORECASE) is not None

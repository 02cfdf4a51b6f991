"""Replies that break off in the middle of a sentence: the writer's limit was reached, or a file was cut."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_quality import CutSettings
from tutelage.curate.prose import is_json, is_program
from tutelage.curate.quality.open_marks import left_open
from tutelage.curate.quality.rule import ChunkTexts, RowTexts, RuleDefinition
from tutelage.curate.texts import words

_TAIL: Final = 400
"""Characters at the end that tell the language."""
_LEAST_WORDS: Final = 8
"""A reply of fewer words is an answer, a title or a name, and needs no full stop."""
_LEAST_FUNCTION_WORDS: Final = 2
"""Different ones that show a language: a letter in a formula may be a word of some."""
_SIGN_OFF_WORDS: Final = 6
"""A last line of so few words that ends in a comma is the end of a letter ("Best regards,")."""
_OPEN_END: Final = re.compile(r"[,，、([{“«‘¿¡（「『]\Z|(?<=[a-zà-ÿа-яё])-\Z")
_LAST_WORD: Final = re.compile(r"(?<![\w'’-])([a-zà-öø-ÿąćęłńóśźżа-яё]+)\Z")
_FIRST_WORD: Final = re.compile(r"\w[.!?][\"”)]*\s+([A-ZÀ-ÞА-Я][a-zà-öø-ÿąćęłńóśźżа-яё]*)\Z")
_TABLE: Final = "a row of a table"
_CHOICE: Final = re.compile(r"\A\W*(?:\w{1,3}[.):]|\S)\s*[a-z]\Z|:\s*(?:if|or|and|not)\Z")
"""Last lines that are the letter of an answer (`5. a`), or name a connective."""
_WORD: Final = re.compile(r"[^\W\d_]+")
_CLOSING: Final = '.!?。！？؟।…`"”»)]}>*_:|'
"""Last characters of what is no cut: ends of sentences, and of code, quotes, brackets, tables and emphasis."""
_NO_SENTENCE: Final = re.compile(r"\|[^\n]*\Z|https?://\S+\Z|\\[a-zA-Z]+\S*\Z|[=<>+*/^]\s*\S+\Z|\A\s*[-\w.]+\s*[=:]\s")
"""Last lines that are rows of tables, addresses, formulas or entries of a form."""
_ENDS_SENTENCE: Final = re.compile(r"[.!?。！？؟।…][\"'”’»)\]*_]*\Z")


_INNER_END: Final = re.compile(r"(?<=\w\w)[.!?][\"”')]*\s+(?=[\"“'(]?[A-ZÀ-ÞА-Я])")
_LEAST_SENTENCES: Final = 3
"""Ends of sentences in a reply of which the last one's is missing: with fewer it is no habit of the writer."""
_LAST_WORDS: Final = re.compile(r"(?i)\b(?:the end|to be continued|fin|ende|fim|fine|конец)\Z|#\w+\Z|\s--\w+[ \d:.]*\Z")
"""What stands under a story, with or without a full stop; hashtags, and options of a command."""
_ENTRY: Final = re.compile(r"\A\W*\d{1,3}\s?[.):-]")
"""An entry of a numbered list: of eight real ones without a full stop, the last of their lists, one was cut."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Finds an end that no sentence has: a comma, an article, conjunction or preposition, the first word of a sentence.

    An end inside of a bracket, a quotation, emphasis, code in a line, or a row of a table is none, either.

    Code, JSON, tables, formulas and URLs are left alone, and so is a missing full stop by itself: lists, titles, and
    languages such as Thai go without. `missing_full_stop` takes it for a cut where all other lines of the reply that
    are as long end with one.
    """

    settings: CutSettings

    def screen(self, chunk: ChunkTexts) -> NDArray[np.bool_]:
        """Rows whose last reply is no short one and ends in none of the marks that a sentence, or code, ends in."""
        last = chunk.last_learned
        ends = [text.rstrip()[-1:] for text in last.flat]
        open_ended = np.fromiter((end not in _CLOSING for end in ends), np.bool_, len(ends))
        return last.rows_of(open_ended & (last.lengths >= 3 * _LEAST_WORDS))

    def __call__(self, row: RowTexts) -> str | None:
        """The last words, and what is wrong with them."""
        if not row.replies:
            return None
        text = row.replies[-1].rstrip()
        if not text or text[-1] in _CLOSING or len(text) < 3 * _LEAST_WORDS:
            return None
        line = text[text.rfind("\n") + 1 :]
        problem = self._problem(text, line)
        if problem is None or len(words(text[:_TAIL])) < _LEAST_WORDS:
            return None
        if _NO_SENTENCE.search(line) and not problem.endswith(_TABLE):
            return None
        return None if row.prose[-1].rstrip() != text and _ends_in_code(row) else f"{problem}: ...{line[-60:]!r}"

    def _problem(self, text: str, line: str) -> str | None:
        if _OPEN_END.search(line) is not None:
            if line[-1] == "," and len(line.split()) <= _SIGN_OFF_WORDS:
                return None
            return None if is_json(text) or is_program(text) else f"ends with {line[-1]!r}"
        word = _LAST_WORD.search(line)
        if word is not None and _CHOICE.search(line) is None and _breaks_off(word[1], text, line):
            return None if is_program(text) else f"ends with the word {word[1]!r}"
        if (problem := _unended(text, line)) is not None:
            return problem
        if self.settings.missing_full_stop and line[-1].isalnum():
            return _without_full_stop(text, line)
        return None


def _unended(text: str, line: str) -> str | None:
    """What the last line began and does not end: a sentence of which one word is there, or a pair of marks."""
    first = _FIRST_WORD.search(line)
    if first is not None and _breaks_off(first[1].lower(), text, line):
        return f"ends with the first word of a sentence, {first[1]!r}"
    opened = left_open(text, line)
    return None if opened is None or is_json(text) or is_program(text) else f"ends inside of {opened}"


def _ends_in_code(row: RowTexts) -> bool:
    return not row.prose[-1].rstrip().endswith(row.replies[-1].rstrip()[-10:])


def _breaks_off(word: str, text: str, line: str) -> bool:
    """Whether no sentence of the text's language ends with a word, or few do and the text is prose."""
    if word not in _languages_of("never") and word not in _languages_of("seldom"):
        return False
    language = _language(text[-_TAIL:], _LEAST_FUNCTION_WORDS + (len(word) == 1))
    if language in _languages_of("never").get(word, ()):
        return True
    return language in _languages_of("seldom").get(word, ()) and _other_sentences_end(text, line, least=1)


def _language(tail: str, least: int) -> str | None:
    """The language of a text by its function words, of which it has to have so many."""
    counts = Counter[str]()
    for token in dict.fromkeys(_WORD.findall(tail.lower())):  # a set has another order in every process
        for language in _languages_of("never").get(token, ()):
            counts[language] += 1
    likeliest = counts.most_common(1)
    return likeliest[0][0] if likeliest and likeliest[0][1] >= least else None


def _other_sentences_end(text: str, line: str, *, least: int) -> bool:
    """Whether the last line is a long one, and all other long lines end as sentences do; so many ends there are."""
    if len(line.split()) < _LEAST_WORDS:
        return False
    others = [other.rstrip() for other in text.split("\n")[:-1] if len(other.split()) >= _LEAST_WORDS]
    return len(_INNER_END.findall(line)) + len(others) >= least and all(map(_ENDS_SENTENCE.search, others))


def _without_full_stop(text: str, line: str) -> str | None:
    """A last paragraph of sentences whose last does not end, in a reply whose other paragraphs do."""
    if _INNER_END.search(line) is None or not _other_sentences_end(text, line, least=_LEAST_SENTENCES):
        return None
    return None if _LAST_WORDS.search(line) or _ENTRY.match(line) else "no full stop, which all other sentences have"


@cache
def _languages_of(list_name: str) -> dict[str, tuple[str, ...]]:
    """Languages by word, of one of the two lists."""
    table = tomllib.loads((files(__package__) / "cut.toml").read_text(encoding="utf-8"))
    languages: dict[str, tuple[str, ...]] = {}
    for language, line in table[list_name].items():
        for word in line.split():
            languages[word] = (*languages.get(word, ()), language)
    return languages


CUT = RuleDefinition("cut", "a reply that breaks off in the middle of a sentence", Cut)

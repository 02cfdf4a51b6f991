"""The 25 kinds by their names in IFEval, and an instruction from its name and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tutelage.evaluate.instructions.case import CapitalWordFrequency, EnglishCapital, EnglishLowercase
from tutelage.evaluate.instructions.content import NumberPlaceholders, Postscript
from tutelage.evaluate.instructions.format import (
    ConstrainedResponse,
    JsonFormat,
    MultipleSections,
    NumberBulletLists,
    NumberHighlightedSections,
    Title,
)
from tutelage.evaluate.instructions.instruction import Instruction
from tutelage.evaluate.instructions.keywords import Existence, ForbiddenWords, Frequency, LetterFrequency
from tutelage.evaluate.instructions.languages import ResponseLanguage
from tutelage.evaluate.instructions.lengths import (
    NthParagraphFirstWord,
    NumberParagraphs,
    NumberSentences,
    NumberWords,
)
from tutelage.evaluate.instructions.start_end import EndChecker, NoComma, Quotation, RepeatPrompt, TwoResponses

INSTRUCTIONS: Mapping[str, type[Instruction]] = {
    "change_case:capital_word_frequency": CapitalWordFrequency,
    "change_case:english_capital": EnglishCapital,
    "change_case:english_lowercase": EnglishLowercase,
    "combination:repeat_prompt": RepeatPrompt,
    "combination:two_responses": TwoResponses,
    "detectable_content:number_placeholders": NumberPlaceholders,
    "detectable_content:postscript": Postscript,
    "detectable_format:constrained_response": ConstrainedResponse,
    "detectable_format:json_format": JsonFormat,
    "detectable_format:multiple_sections": MultipleSections,
    "detectable_format:number_bullet_lists": NumberBulletLists,
    "detectable_format:number_highlighted_sections": NumberHighlightedSections,
    "detectable_format:title": Title,
    "keywords:existence": Existence,
    "keywords:forbidden_words": ForbiddenWords,
    "keywords:frequency": Frequency,
    "keywords:letter_frequency": LetterFrequency,
    "language:response_language": ResponseLanguage,
    "length_constraints:nth_paragraph_first_word": NthParagraphFirstWord,
    "length_constraints:number_paragraphs": NumberParagraphs,
    "length_constraints:number_sentences": NumberSentences,
    "length_constraints:number_words": NumberWords,
    "punctuation:no_comma": NoComma,
    "startend:end_checker": EndChecker,
    "startend:quotation": Quotation,
}


def instruction_of(name: str, arguments: Mapping[str, Any]) -> Instruction:
    """The instruction of that name with these arguments.

    Args:
        name: a key of `INSTRUCTIONS`.
        arguments: by their names in IFEval; None stands for none, as rows of the hub have all names.

    Raises:
        ValueError: no such name, or an argument that is missing, unknown, of another type or impossible; in one line.
    """
    if name not in INSTRUCTIONS:
        raise ValueError(f"'{name}' is no instruction; known are {', '.join(INSTRUCTIONS)}")
    given = {key: value for key, value in arguments.items() if value is not None}
    try:
        return INSTRUCTIONS[name].model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first["msg"].removeprefix("Value error, ")
        raise ValueError(": ".join([name, *map(str, first["loc"]), cause])) from error

"""The kinds of checks that a machine can make of a reply, one strict model each."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from tutelage.evaluate.answer_checks import Code, Equals, Json, JsonSchema, Number
from tutelage.evaluate.check_model import CheckModel
from tutelage.evaluate.checkers.timed import fits
from tutelage.evaluate.instructions.instruction import Instruction
from tutelage.evaluate.instructions.kinds import instruction_of
from tutelage.words import has_word

Words = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class ContainsAny(CheckModel):
    """At least one of the words stands in the reply, whole, in any case."""

    kind: Literal["contains_any"]
    values: Words

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return any(has_word(text, value) for value in self.values)


class ContainsAll(CheckModel):
    """All of the words stand in the reply, whole, in any case."""

    kind: Literal["contains_all"]
    values: Words

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return all(has_word(text, value) for value in self.values)


class Excludes(CheckModel):
    """None of the words stands in the reply, whole, in any case."""

    kind: Literal["excludes"]
    values: Words

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return not any(has_word(text, value) for value in self.values)


class Regex(CheckModel):
    """Python's re.search finds the pattern; ^ and $ match at lines."""

    kind: Literal["regex"]
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern, re.MULTILINE)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    def passes(self, text: str) -> bool:
        """Look at a stripped reply.

        Raises:
            TimeoutError: the pattern takes too long on it.
        """
        return fits("regex", self.pattern, text)


class MaxWords(CheckModel):
    """At most so many words, split at white space."""

    kind: Literal["max_words"]
    count: int

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return len(text.split()) <= self.count


class MinWords(CheckModel):
    """At least so many words, split at white space."""

    kind: Literal["min_words"]
    count: int

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return len(text.split()) >= self.count


class Lines(CheckModel):
    """From `min` to `max` lines that are not empty."""

    kind: Literal["lines"]
    min: int
    max: int

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return self.min <= sum(bool(line.strip()) for line in text.split("\n")) <= self.max


class Case(CheckModel):
    """All letters are capitals, or none is."""

    kind: Literal["case"]
    value: Literal["upper", "lower"]

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return text == (text.upper() if self.value == "upper" else text.lower())


class StartsWith(CheckModel):
    """The reply begins with exactly this."""

    kind: Literal["starts_with"]
    value: str

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return text.startswith(self.value)


class EndsWith(CheckModel):
    """The reply ends with exactly this."""

    kind: Literal["ends_with"]
    value: str

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return text.endswith(self.value)


class PlainText(CheckModel):
    """The reply is not empty and does not begin as JSON does."""

    kind: Literal["plain_text"]

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return bool(text) and not text.startswith(("{", "["))


class FollowsInstruction(CheckModel):
    """The reply follows one of IFEval's instructions."""

    kind: Literal["instruction"]
    id: str
    arguments: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _arguments_fit(self) -> Self:
        _ = self.instruction
        return self

    @property
    def instruction(self) -> Instruction:
        """The instruction that its name and arguments make."""
        return instruction_of(self.id, self.arguments)

    def passes(self, text: str) -> bool:
        """Look at a stripped reply."""
        return self.instruction.follows(text)


Check = (
    ContainsAny
    | ContainsAll
    | Excludes
    | Regex
    | MaxWords
    | MinWords
    | Lines
    | Case
    | StartsWith
    | EndsWith
    | PlainText
    | FollowsInstruction
    | Equals
    | Number
    | Json
    | JsonSchema
    | Code
)
CHECKS: dict[str, type[CheckModel]] = {
    get_args(check_type.model_fields["kind"].annotation)[0]: check_type for check_type in get_args(Check)
}
"""Each kind by its name."""

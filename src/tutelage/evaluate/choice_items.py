"""Multiple choice: questions with their possible answers, as rows of a general set hold them. Imports without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tutelage.errors import DataError
from tutelage.types import Address, Message, Unit

MARK = "choices"
"""The key that tells such a row from one with checks."""
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class ChoiceItem:
    """A question, and the replies that are weighed against each other.

    Attributes:
        address: the row it came from.
        topic: what it is about; empty where the row does not say.
        messages: the conversation up to the reply.
        choices: at least two different replies, none with white space around it.
        answer: the place of the right one.
        id: of the row; empty where it has none.
        source: what it shares with other items, such as a passage; empty = nothing.
    """

    address: Address
    topic: str
    messages: tuple[Message, ...]
    choices: tuple[str, ...]
    answer: int
    id: str = ""
    source: str = ""

    @property
    def chance(self) -> float:
        """How often a guess is right."""
        return 1 / len(self.choices)

    @property
    def counts_the_end(self) -> bool:
        """One choice begins another, so that only the end of the reply tells them apart."""
        return any(other != choice and other.startswith(choice) for choice in self.choices for other in self.choices)


class _Turn(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class _Line(BaseModel):
    model_config = ConfigDict(strict=True)

    prompt: Text | None = None
    messages: Annotated[list[_Turn], Field(min_length=1)] | None = None
    choices: Annotated[list[Text], Field(min_length=2)]
    answer: int | str
    topic: str = ""
    id: str | int = ""
    source: str = ""
    checks: Any = None

    @model_validator(mode="after")
    def _agrees(self) -> _Line:
        if self.checks is not None:
            raise ValueError("a row has choices or checks, not both")
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("expected one of prompt and messages")
        if self.messages is not None and self.messages[-1].role != "user":
            raise ValueError("the last of messages is not the user's")
        stripped = [choice.strip() for choice in self.choices]
        if not all(stripped) or len(set(stripped)) < len(stripped):
            raise ValueError("choices are empty or the same, but for white space around them")
        if isinstance(self.answer, str):
            if self.answer.strip() not in stripped:
                raise ValueError("answer is none of the choices")
        elif not 0 <= self.answer < len(stripped):
            raise ValueError(f"answer is not the place of a choice, from 0 to {len(stripped) - 1}")
        return self


def is_choice_row(line: bytes) -> bool:
    """Whether a line of a general set is a question with choices; one that is no JSON object is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and MARK in row


def read_choices(path: str, shown: str | None = None, unit: Unit = "line") -> list[ChoiceItem]:
    """The questions with choices of a general set, which may be none; its other rows are left to `read_general`.

    Args:
        path: of the file, which is there.
        shown: what addresses call it; None for its path.
        unit: what they count, lines from 1 or items from 0.

    Raises:
        DataError: a line with `choices` is not such an object, with its address.
    """
    items = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n"), start=1 if unit == "line" else 0):
        if not is_choice_row(line):
            continue
        address = Address(path if shown is None else shown, number, unit)
        try:
            items.append(_item(address, _Line.model_validate_json(line)))
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                "A question with choices cannot be read",
                where=str(address),
                found=f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg'].removeprefix('Value error, ')}",
                expected='{"prompt": ..., "choices": [text, text, ...], "answer": the place of one, or its text}',
                fix="mend this line",
            ) from error
    return items


def _item(address: Address, row: _Line) -> ChoiceItem:
    choices = tuple(choice.strip() for choice in row.choices)
    answer = choices.index(row.answer.strip()) if isinstance(row.answer, str) else row.answer
    turns = row.messages or []
    messages = tuple(Message(turn.role, turn.content) for turn in turns) or (Message("user", row.prompt),)
    return ChoiceItem(address, row.topic, messages, choices, answer, str(row.id), row.source)

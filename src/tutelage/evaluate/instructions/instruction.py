"""What every verifiable instruction is: its arguments, held to their types, and whether a reply follows it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Count = Annotated[int, Field(ge=1)]
Relation = Literal["less than", "at least"]
Phrase = Annotated[str, StringConstraints(pattern=r"\S")]
Phrases = Annotated[list[Phrase], Field(min_length=1)]


class Instruction(BaseModel):
    """One instruction with its arguments.

    Source: Zhou et al. 2023 (arXiv 2311.07911), table 1; where its sentence leaves a choice, the verdict of the checks
    published with it. docs/evaluate.md has the readings, and where these differ from an implementation.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def follows(self, reply: str) -> bool:
        """Whether `reply` follows the instruction; a reply without a character to see follows none."""
        return bool(reply.strip()) and self._follows(reply)

    @abstractmethod
    def _follows(self, reply: str) -> bool: ...


def holds(count: int, relation: Relation, threshold: int) -> bool:
    """Whether `count` stands in the relation to the threshold."""
    return count < threshold if relation == "less than" else count >= threshold

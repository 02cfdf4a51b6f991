"""What a checker of the task's replies is: a score from 0 to 1 for a reply beside its row's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tutelage.types import Prompt


def without_reference(prompt: Prompt) -> str | None:
    """Why the row cannot be scored: it has no words to compare with; None where it has."""
    return None if prompt.reference.strip() else "an empty reply"


@dataclass(frozen=True, slots=True)
class Checker:
    """One way to score a reply.

    Attributes:
        name: as `evaluate.checkers` has it.
        score: (prompt, reply) -> from 0 to 1.
        graded: whether there are scores between 0 and 1; otherwise a reply is right or wrong.
        unusable: what the row has in the place of a reference that can be used; None where it has one.
    """

    name: str
    score: Callable[[Prompt, str], float]
    graded: bool = False
    unusable: Callable[[Prompt], str | None] = without_reference

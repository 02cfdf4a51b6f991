"""Strict and loose verdicts, and the four accuracies of IFEval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.evaluate.instructions.instruction import Instruction


@dataclass(frozen=True, slots=True)
class InstructionAccuracy:
    """Shares from 0 to 1: of the prompts whose instructions are all followed, and of all single instructions."""

    prompt_strict: float
    prompt_loose: float
    instruction_strict: float
    instruction_loose: float


def loose_variants(reply: str) -> tuple[str, ...]:
    """The eight replies that a loose verdict tries: lines cut off, with and without asterisks.

    Source: Zhou et al. 2023, section 2.3: without the first line, the last line, or both; and without `*`.
    """
    lines = reply.split("\n")
    cut = (reply, *("\n".join(kept).strip() for kept in (lines[1:], lines[:-1], lines[1:-1])))
    return (*cut, *(text.replace("*", "") for text in cut))


def follows_loosely(instruction: Instruction, reply: str) -> bool:
    """Whether any of the eight variants of `reply` follows the instruction."""
    return any(instruction.follows(variant) for variant in loose_variants(reply))


def instruction_accuracy(prompts: Sequence[Sequence[Instruction]], replies: Sequence[str]) -> InstructionAccuracy:
    """The four accuracies.

    Args:
        prompts: the instructions of each; at least one prompt, each with at least one.
        replies: one for each prompt.
    """
    strict: list[list[bool]] = []
    loose: list[list[bool]] = []
    for instructions, reply in zip(prompts, replies, strict=True):
        strict.append([instruction.follows(reply) for instruction in instructions])
        loose.append([follows_loosely(instruction, reply) for instruction in instructions])
    return InstructionAccuracy(
        prompt_strict=_share([all(verdicts) for verdicts in strict]),
        prompt_loose=_share([all(verdicts) for verdicts in loose]),
        instruction_strict=_share([verdict for verdicts in strict for verdict in verdicts]),
        instruction_loose=_share([verdict for verdicts in loose for verdict in verdicts]),
    )


def _share(verdicts: Sequence[bool]) -> float:
    return sum(verdicts) / len(verdicts)

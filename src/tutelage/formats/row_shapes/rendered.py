"""Documents that are dialogs as some template wrote them: its marks are taken off, as the model's own has others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn
from tutelage.formats.row_shapes.columns import column_text, paragraphs, turn
from tutelage.formats.row_shapes.marked_text import marked_turns, require_alternating

_GUANACO_MARK: Final = re.compile(r"###\s?(Human|Assistant)\s*:")
_GUANACO_ROLES: Final = {"human": "user", "assistant": "assistant"}
_CHATML_TURN: Final = re.compile(r"\s*<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)
_LLAMA2_TURN: Final = re.compile(
    r"\s*(?:<s>)?\s*\[INST\](.*?)\[/INST\](.*?)(?=</s>|<s>|\[INST\]|\Z)(?:</s>)?", re.DOTALL
)
_LLAMA2_SYSTEM: Final = re.compile(r"\A\s*<<SYS>>(.*?)<</SYS>>", re.DOTALL)
_INSTRUCTION, _INPUT, _RESPONSE = "### Instruction:\n", "\n### Input:\n", "\n### Response:"
_LEFTOVER: Final = re.compile(
    r"<\|im_(?:start|end)\|>|\[/?INST\]|<</?SYS>>|</?s>|<\|(?:start|end)_header_id\|>|<\|eot_id\|>"
)
_ROLES: Final = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def guanaco_text(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """`### Human:` and `### Assistant:` by turns."""
    return {"messages": marked_turns(column_text(row, "text"), _GUANACO_MARK, _GUANACO_ROLES, "text")}


def chatml_text(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns between `<|im_start|>` and `<|im_end|>`.

    Raises:
        RowError: `unclear_turns`, `unknown_role`.
    """
    text, turns, position = column_text(row, "text"), [], 0
    while match := _CHATML_TURN.match(text, position):
        if match[1] not in _ROLES:
            raise RowError("unknown_role", f"text: '{match[1]}'")
        turns.append(turn(_ROLES[match[1]], match[2].strip()))
        position = match.end()
    return {"messages": _checked(turns, text[position:])}


def llama2_text(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns between `[INST]` and `[/INST]`, the first with its system text.

    Raises:
        RowError: `unclear_turns`.
    """
    text, position = column_text(row, "text"), 0
    turns: list[Turn] = []
    while match := _LLAMA2_TURN.match(text, position):
        question = match[1]
        system = _LLAMA2_SYSTEM.match(question)
        if system and not turns:
            turns += [turn("system", system[1].strip())] if system[1].strip() else []
            question = question[system.end() :]
        turns += [turn("user", question.strip()), turn("assistant", match[2].strip())]
        position = match.end()
    return {"messages": _checked(turns, text[position:])}


def alpaca_text(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """`### Instruction:`, perhaps `### Input:`, and `### Response:`.

    Raises:
        RowError: `unclear_turns`.
    """
    text = column_text(row, "text")
    introduction, instruction_mark, body = text.partition(_INSTRUCTION)
    question, response_mark, response = body.partition(_RESPONSE)
    # One line at most stands before: the template's own sentence.
    if not (instruction_mark and response_mark) or "\n" in introduction.strip():
        raise RowError("unclear_turns", "text: not one instruction and its response")
    if any(mark.strip() in part for mark in (_INSTRUCTION, _RESPONSE) for part in (question, response)):
        raise RowError("unclear_turns", "text: a mark of the template stands inside a text")
    instruction, _, added_text = question.partition(_INPUT)
    prompt = paragraphs(instruction.strip(), added_text.strip())
    return {"messages": [turn("user", prompt), turn("assistant", response.strip())]}


def _checked(turns: list[Turn], remaining_text: str) -> list[Turn]:
    if not turns or remaining_text.strip():
        raise RowError("unclear_turns", f"text: no turn here: {remaining_text.strip()[:40]!r}")
    if any(_LEFTOVER.search(said["content"]) for said in turns):
        raise RowError("unclear_turns", "text: a mark of turns stands inside a turn")
    require_alternating(turns, "text")
    return turns

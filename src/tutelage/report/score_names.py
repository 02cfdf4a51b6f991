"""What the checkers of the task's replies are called in tables and on pages."""

from __future__ import annotations

SCORE_NAMES = {
    "exact_match": "exact match",
    "normalized_match": "normalized match",
    "token_f1": "token F1",
    "rouge_l": "ROUGE-L",
    "number": "final number",
    "json": "JSON at all",
    "tool_calls": "tool calls",
    "tool_names": "names of tools",
}


def score_name(checker: str) -> str:
    """In words; of a checker that this version does not know, its name."""
    return SCORE_NAMES.get(checker, checker)

"""Scores replies that should be a JSON object: is it JSON at all, and does each field equal the demonstration's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from tutelage.types import Prompt


@dataclass(frozen=True, slots=True)
class JsonScores:
    """Shares of the rows, from 0 to 1: `valid_json` parse whole, `exact_match` equal in every field."""

    valid_json: float
    exact_match: float
    fields: dict[str, float]


def parse_object(reply: str) -> dict[str, Any] | None:
    """The JSON object that `reply` is, or None; text before or after it makes it something else."""
    try:
        value = json.loads(reply, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # a model that loops can open brackets without end
        return None
    return value if isinstance(value, dict) else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def score_json(prompts: Sequence[Prompt], replies: Sequence[str]) -> JsonScores:
    """Compare each reply with its prompt's reference, field by field and whole.

    Args:
        prompts: their references are JSON objects; `builders.dataset` has seen to it.
        replies: one for each prompt.
    """
    valid = exact = 0
    correct: dict[str, int] = {}
    totals: dict[str, int] = {}
    for prompt, reply in zip(prompts, replies, strict=True):
        reference = parse_object(prompt.reference)
        assert reference is not None, f"{prompt.address}: the reference is not a JSON object"
        parsed = parse_object(reply)
        valid += parsed is not None
        exact += parsed is not None and _written(parsed) == _written(reference)
        for key, value in reference.items():
            totals[key] = totals.get(key, 0) + 1
            same = parsed is not None and key in parsed and _written(parsed[key]) == _written(value)
            correct[key] = correct.get(key, 0) + same
    rows = len(prompts)
    return JsonScores(valid / rows, exact / rows, {key: correct[key] / count for key, count in totals.items()})


def _written(value: Any) -> str:
    """JSON in one spelling: Python holds that True equals 1, JSON does not."""
    return json.dumps(value, sort_keys=True)

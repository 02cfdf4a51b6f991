"""Scores replies that should be a JSON object: is it JSON at all, and does each field equal the demonstration's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.evaluate.checkers.json_schema import decoded
from tutelage.types import Prompt


@dataclass(frozen=True, slots=True)
class JsonRow:
    """Of one reply: is it JSON, is it right in every field and without another, and is each wanted field right."""

    valid: bool
    exact: bool
    fields: dict[str, bool]


def parse_object(reply: str) -> dict[str, Any] | None:
    """The JSON object that `reply` is, or None; text before or after it makes it something else."""
    try:
        value = decoded(reply)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def score_rows(prompts: Sequence[Prompt], replies: Sequence[str]) -> list[JsonRow]:
    """Compare each reply with its prompt's reference, field by field and whole, in their order.

    Args:
        prompts: their references are JSON objects; `builders.task` has seen to it.
        replies: one for each prompt.
    """
    rows = []
    for prompt, reply in zip(prompts, replies, strict=True):
        reference = parse_object(prompt.reference)
        assert reference is not None, f"{prompt.address}: the reference is not a JSON object"
        parsed = parse_object(reply)
        rows.append(
            JsonRow(
                valid=parsed is not None,
                exact=parsed is not None and _written(parsed) == _written(reference),
                fields={
                    key: parsed is not None and key in parsed and _written(parsed[key]) == _written(value)
                    for key, value in reference.items()
                },
            )
        )
    return rows


def _written(value: Any) -> str:
    """JSON in one spelling: Python holds that True equals 1, JSON does not."""
    return json.dumps(value, sort_keys=True)

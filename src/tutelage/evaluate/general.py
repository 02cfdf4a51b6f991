"""A general set: short prompts whose answers a machine can check. What falls here after training was forgotten."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import DataError, SourceNotFoundError
from tutelage.types import Address


@dataclass(frozen=True, slots=True)
class GeneralItem:
    """One prompt and the checks that its reply must all pass."""

    address: Address
    topic: str
    prompt: str
    checks: tuple[Mapping[str, Any], ...]


def _words(text: str) -> list[str]:
    return text.split()


def _has_word(reply: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", reply, re.IGNORECASE) is not None


CHECKS: dict[str, tuple[frozenset[str], Callable[[str, Mapping[str, Any]], bool]]] = {
    "contains_any": (frozenset({"values"}), lambda text, check: any(_has_word(text, one) for one in check["values"])),
    "contains_all": (frozenset({"values"}), lambda text, check: all(_has_word(text, one) for one in check["values"])),
    "excludes": (frozenset({"values"}), lambda text, check: not any(_has_word(text, one) for one in check["values"])),
    "regex": (frozenset({"pattern"}), lambda text, check: re.search(check["pattern"], text, re.MULTILINE) is not None),
    "max_words": (frozenset({"count"}), lambda text, check: len(_words(text)) <= check["count"]),
    "min_words": (frozenset({"count"}), lambda text, check: len(_words(text)) >= check["count"]),
    "lines": (
        frozenset({"min", "max"}),
        lambda text, check: check["min"] <= sum(bool(one.strip()) for one in text.split("\n")) <= check["max"],
    ),
    "case": (
        frozenset({"value"}),
        lambda text, check: text == (text.upper() if check["value"] == "upper" else text.lower()),
    ),
    "starts_with": (frozenset({"value"}), lambda text, check: text.startswith(check["value"])),
    "ends_with": (frozenset({"value"}), lambda text, check: text.endswith(check["value"])),
    "plain_text": (frozenset(), lambda text, _check: bool(text) and not text.startswith(("{", "["))),
}
"""Kinds of checks, the fields each needs, and the question each asks of a stripped reply."""


def passes(item: GeneralItem, reply: str) -> bool:
    """Whether `reply` passes every check of `item`."""
    text = reply.strip()
    return all(CHECKS[check["kind"]][1](text, check) for check in item.checks)


def score_general(items: Sequence[GeneralItem], replies: Sequence[str]) -> float:
    """Share of the items whose reply passes, from 0 to 1."""
    return sum(passes(item, reply) for item, reply in zip(items, replies, strict=True)) / len(items)


def read_general(path: str) -> list[GeneralItem]:
    """Read a general set: JSONL with `prompt`, `checks` and optionally `topic`.

    Raises:
        SourceNotFoundError: no such file.
        DataError: a line that is not such an object, with its address.
    """
    file = Path(path)
    if not file.is_file():
        raise SourceNotFoundError("The general set is missing", where=path, fix="check evaluate.general")
    items = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        address = Address(path, number)
        try:
            row = json.loads(line)
            checks = tuple(row["checks"])
            for check in checks:
                missing = CHECKS[check["kind"]][0] - set(check)
                if missing:
                    raise ValueError(f"check {check['kind']!r} lacks {', '.join(sorted(missing))}")
            items.append(GeneralItem(address, str(row.get("topic", "")), row["prompt"], checks))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                "A row of the general set cannot be read",
                where=str(address),
                found=f"{type(error).__name__}: {error}",
                expected=f'{{"prompt": ..., "checks": [{{"kind": one of {", ".join(CHECKS)}}}]}}',
                fix="mend this line",
            ) from error
    if not items:
        raise DataError("The general set is empty", where=path, expected="one JSON object a line", fix="add prompts")
    return items

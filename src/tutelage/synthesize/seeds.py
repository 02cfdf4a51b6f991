"""Seed tasks: instructions with instances that people wrote, which a generator is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import DataError, SourceNotFoundError, cause_of
from tutelage.words import plain_words


@dataclass(frozen=True, slots=True)
class Seed:
    """One task: its instruction, one input (empty where it has none) with its output, and its kind where it is told."""

    instruction: str
    input: str
    output: str
    is_classification: bool | None = None


def read_seeds(path: Path) -> list[Seed]:
    """The tasks of a file of JSON lines.

    A line has `instruction`, and either `instances`, a list of objects with `input` and `output`, of which the first is
    taken, as Self-Instruct's seeds have them, or `input` and `output` itself. `is_classification` may be left out.

    Raises:
        SourceNotFoundError: there is no such file.
        DataError: a line is something else, with its number; or there are none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SourceNotFoundError("There are no such seed tasks", where=str(path), fix="check --seeds") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("The seed tasks cannot be read", where=str(path), found=cause_of(error)) from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise DataError("There is no seed task", where=str(path), expected="a task a line", fix="check --seeds")
    return [_seed(line, f"{path}:{number}") for number, line in lines]


def _seed(line: str, where: str) -> Seed:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _error(where, cause_of(error) if isinstance(error, ValueError) else "nested too deep") from error
    if not isinstance(row, Mapping):
        raise _error(where, f"a {type(row).__name__}")
    first = row.get("instances", [row])
    instance = first[0] if isinstance(first, list) and first else None
    if not isinstance(instance, Mapping):
        raise _error(where, "instances that are no list of objects")
    texts = {"instruction": row.get("instruction"), "output": instance.get("output"), "input": instance.get("input")}
    for name, text in texts.items():
        if name == "input" and text is None:
            continue
        if not isinstance(text, str) or (name != "input" and not text.strip()):
            raise _error(where, f"no text in {name}")
    if not plain_words(texts["instruction"] or ""):
        raise _error(where, "an instruction without a word")
    kind: Any = row.get("is_classification")
    if kind is not None and not isinstance(kind, bool):
        raise _error(where, "is_classification that is neither true nor false")
    return Seed(
        (texts["instruction"] or "").strip(), (texts["input"] or "").strip(), (texts["output"] or "").strip(), kind
    )


def _error(where: str, found: str) -> DataError:
    return DataError(
        "This line is no seed task",
        where=where,
        found=found,
        expected='{"instruction": "…", "instances": [{"input": "…", "output": "…"}], "is_classification": false}',
        fix="mend the line, or take it out",
    )

"""Questions with choices: the choices belong to the prompt, and the answer may be an index, a letter or a text."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from tutelage.formats.rawrow import RowError, json_type
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.columns import column_text, exchange, optional_text, paragraphs


def multiple_choice(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The question with its choices, a line each, and the choice that is right, behind its explanation if there is one.

    Raises:
        RowError: `unclear_answer` where the answer is none of the choices, or two of them; a reason of `columns`.
    """
    question_name = "question" if row.get("question") is not None else "question_stem"
    labels, texts = _choices(row.get("choices"))
    lines = [f"{label}. {text}" for label, text in zip(labels, texts, strict=True)]
    name = next(name for name in ("answerKey", "answer", "solution") if row.get(name) is not None)
    index = _index(row[name], labels, texts, name)
    prompt = paragraphs(column_text(row, question_name), "\n".join(lines))
    return exchange(prompt, paragraphs(optional_text(row, "explanation"), lines[index]))


def _choices(value: Any) -> tuple[list[str], list[str]]:
    """Labels and texts of the choices."""
    if isinstance(value, Mapping):
        labels, texts = value.get("label"), value.get("text")
    elif isinstance(value, list) and value and all(isinstance(choice, Mapping) for choice in value):
        labels, texts = [choice.get("label") for choice in value], [choice.get("text") for choice in value]
    else:
        texts, labels = value, list(string.ascii_uppercase[: len(value)]) if isinstance(value, list) else None
    for items in (labels, texts):
        if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
            raise RowError("wrong_type", f"`choices` must hold labels and texts, or texts, found {json_type(value)}")
    assert isinstance(labels, list)
    assert isinstance(texts, list)
    if len(labels) != len(texts):
        raise RowError("wrong_type", f"`choices` has {len(texts)} texts and {len(labels)} labels")
    return labels, texts


def _index(answer: Any, labels: list[str], texts: list[str], name: str) -> int:
    """Which choice the answer means: a whole number counts from 0, a text is a label or one of the texts."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(texts):
            raise RowError("unclear_answer", f"`{name}` is {answer}, and the choices are {len(texts)}, counted from 0")
        return answer
    if not isinstance(answer, str):
        raise RowError("wrong_type", f"`{name}` must be a number or a string, found {json_type(answer)}")
    word = answer.strip()
    indexes = {index for index, label in enumerate(labels) if label == word}
    if name != "answerKey":  # which is always a label
        indexes |= {index for index, text in enumerate(texts) if text.strip() == word}
    if len(indexes) != 1:
        kinds = "several of the choices" if indexes else "none of the choices"
        raise RowError("unclear_answer", f"`{name}` is {word[:40]!r}, {kinds}")
    return indexes.pop()

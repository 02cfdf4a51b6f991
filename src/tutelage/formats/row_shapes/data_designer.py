"""Rows of data-designer: a trace is what a model was asked and said for one column; other columns are labels of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import list_at

TRACE: Final = "__trace"
"""What data-designer puts behind the name of a column for its trace."""
LONGEST_LABEL: Final = 200


def traced(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The conversation of the row's only trace; short values of other columns and a judge's scores are metadata.

    Raises:
        RowError: `unclear_prompt` where several columns have traces: each is a conversation of its own.
    """
    names = [name for name, value in row.items() if name.endswith(TRACE) and value]
    if len(names) > 1:
        raise RowError(
            "unclear_prompt", f"the traces {', '.join(names)}: no one of them is known to be meant; name it with "
            f"--columns messages={names[-1]}",
        )  # fmt: skip
    turns = list_at(row[names[0]], f"`{names[0]}`")
    return {"messages": turns, "metadata": _labels(row, list(_texts(turns)))}


def _texts(turns: list[Any]) -> Iterator[str]:
    for turn in turns:
        content = turn.get("content") if isinstance(turn, Mapping) else None
        for part in content if isinstance(content, list) else [{"text": content}]:
            text = part.get("text") if isinstance(part, Mapping) else None
            if isinstance(text, str):
                yield text


def _labels(row: Mapping[str, Any], said: list[str]) -> dict[str, Any]:
    """Values of the columns that are no whole turn of the conversation; of a judge its scores, by the names of both."""
    labels: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith(TRACE) or value is None or value in said:
            continue
        if isinstance(value, Mapping):
            scores = {
                f"{name}.{score}": judged["score"]
                for score, judged in value.items()
                if isinstance(judged, Mapping) and judged.get("score") is not None
            }
            labels |= scores
        elif not isinstance(value, str) or len(value) <= LONGEST_LABEL:
            labels[name] = value
    return labels

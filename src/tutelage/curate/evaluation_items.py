"""The items of evaluation files: what each asks, and what answers it, with its address.

Rows of any file that the reader opens; texts are taken from columns whose names evaluation sets use
(`evaluation_columns.toml`), so prompts without replies are read, too. A file of which no texts are found is an error:
rows are never decontaminated against nothing.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from tutelage import formats
from tutelage.curate.texts import prompt_text, reply_text
from tutelage.errors import DataError, TutelageError
from tutelage.formats.names import fields_for
from tutelage.formats.rawrow import RawRow, RawRows
from tutelage.formats.shapes import ShapeTable
from tutelage.formats.sniff import sniff
from tutelage.formats.sources import SourceFile, find_files
from tutelage.formats.survey import raw_rows
from tutelage.ledger import Ledger
from tutelage.types import Drop

Part = Literal["prompt", "answer"]
LEAST_SHARE = 0.5
"""Of a file's rows that have to hold a text: in a file of fewer the columns mean something else."""


@dataclass(frozen=True, slots=True)
class EvaluationText:
    """One text of an item.

    Attributes:
        address: of the item, as text.
        part: whether it is asked, or answers.
        text: as the file has it.
        file: the name of its file, as users know it.
    """

    address: str
    part: Part
    text: str
    file: str


def evaluation_files(sources: Sequence[str]) -> list[SourceFile]:
    """The files behind what was named.

    Raises:
        SourceNotFoundError, DataError: as `find_files`.
    """
    return find_files(sources, lambda _note: None) if sources else []


def evaluation_items(file: SourceFile, columns: Sequence[str] = ()) -> list[EvaluationText]:
    """The texts of a file's items.

    Args:
        file: an evaluation set, or rows that are held out.
        columns: that hold what is asked, beside the known ones.

    Raises:
        DataError: the file is empty, or too few of its rows hold a text that is recognized.
    """
    rows, items = 0, 0
    met: list[EvaluationText] = []
    names: set[str] = set()
    refused: Counter[str] = Counter()
    for row in _rows(file):
        if isinstance(row, Drop):
            refused[row.reason] += 1
            continue
        rows += 1
        names.update(row.fields)
        texts = list(_texts_of(row, columns))
        items += bool(texts)
        met += texts
    if items < max(1, LEAST_SHARE * rows):
        met = _conversations(file) or met if rows else met
        if not met or items == rows == 0:
            raise _unread(file, rows, items, sorted(names), refused)
    return met


def _rows(file: SourceFile) -> RawRows:
    kind = sniff(file.path, file.display_name).kind
    return raw_rows(file, kind, table=ShapeTable(fields_for(None)), columns=None, note=lambda _note: None)


def _texts_of(row: RawRow, columns: Sequence[str]) -> Iterator[EvaluationText]:
    address, name, facts = str(row.address), row.address.file, _facts()
    for column in dict.fromkeys((*columns, *facts["asked"])):
        for part, text in _spoken(row.fields.get(column), "prompt"):
            yield EvaluationText(address, part, text, name)
    for column in facts["answer"]:
        for part, text in _spoken(row.fields.get(column), "answer"):
            yield EvaluationText(address, part, text, name)


def _spoken(value: Any, part: Part) -> Iterator[tuple[Part, str]]:
    """The texts of a column: a text, or turns in lists, each said by someone or by nobody in particular."""
    facts = _facts()
    if isinstance(value, str):
        if value.strip():
            yield part, value
    elif isinstance(value, list):
        for inner in value:
            yield from _spoken(inner, part)
    elif isinstance(value, Mapping):
        speaker = next((value[key] for key in facts["speaker"] if isinstance(value.get(key), str)), None)
        if speaker in facts["not_compared"]:
            return
        replied = speaker in facts["repliers"]
        for key in facts["said"]:
            yield from _spoken(value.get(key), "answer" if replied else part)
        for key in facts["answered"]:
            yield from _spoken(value.get(key), "answer")


def _conversations(file: SourceFile) -> list[EvaluationText]:
    """The texts of rows in a shape that training reads."""
    try:
        conversations = list(formats.read([], ledger=Ledger(), files=[file]))
    except TutelageError:
        return []
    texts = []
    for conversation in conversations:
        address = str(conversation.address)
        texts.append(EvaluationText(address, "prompt", prompt_text(conversation), file.display_name))
        texts.append(EvaluationText(address, "answer", reply_text(conversation), file.display_name))
    return [text for text in texts if text.text.strip()]


def _unread(file: SourceFile, rows: int, items: int, names: Sequence[str], refused: Mapping[str, int]) -> DataError:
    if not rows:
        return DataError(
            "An evaluation file holds no rows, so nothing would be decontaminated against it",
            where=file.display_name,
            found=", ".join(f"{count:,} rows with {reason}" for reason, count in refused.items()) or "no row",
            expected="objects with a column that holds what is asked" if refused else "",
            fix="name the file that holds the evaluation set, or take this one out of curate.decontaminate.evaluations",
        )
    return DataError(
        "An evaluation file is in a shape that is not recognized, so nothing would be decontaminated against it",
        where=file.display_name,
        found=f"{items:,} of {rows:,} rows with a text; the columns are {', '.join(names)}",
        expected=f"a column such as {', '.join(_facts()['asked'][:6])}",
        fix="name the columns that hold what is asked: curate.decontaminate.columns=[...]",
    )


@cache
def _facts() -> dict[str, list[str]]:
    text = files("tutelage.curate").joinpath("evaluation_columns.toml").read_text(encoding="utf-8")
    return {key: list(names) for key, names in tomllib.loads(text).items()}

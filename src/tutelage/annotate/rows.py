"""Texts that people wrote -> rows that are trained on: the file `demonstrations.jsonl`, and the card beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tutelage.annotate.workspace import Rated, Workspace
from tutelage.curate.row_json import row_json, with_metadata
from tutelage.errors import SaveError, cause_of, remedy
from tutelage.formats.dataset_card import CARD
from tutelage.system.files import write_bytes
from tutelage.types import Conversation, Message

ROWS = "demonstrations.jsonl"

_CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: {rows}
---

# Demonstrations

{count} demonstrations of {prompts} prompts, written by {people}.
Every one, and each version before it, is in `events.jsonl`; `{rows}` holds those that count.
"""
"""The head tells readers of data sets, ours too, which of the files hold the rows."""


def demonstration(rated: Rated) -> Conversation:
    """The prompt and the text that a person wrote, which alone is trained."""
    prompt = rated.prompt.conversation
    before = tuple(
        replace(message, weight=0.0) if message.role == "assistant" else message for message in prompt.messages
    )
    return replace(prompt, messages=(*before, Message("assistant", rated.revision.text)))


def metadata_of(rated: Rated) -> dict[str, Any]:
    """What stands beside a row and is never trained."""
    revision = rated.revision
    said = {"annotator": rated.whose, "revision": revision.number, "written": revision.time}
    return {**rated.prompt.metadata, **said, **({"began": revision.began} if revision.began else {})}


def row_lines(texts: Sequence[Rated]) -> str:
    """The rows as JSON lines."""
    lines = [with_metadata(row_json(demonstration(rated)), metadata_of(rated)) for rated in texts]
    return "".join(f"{line}\n" for line in lines)


def write_rows(folder: Path, workspace: Workspace) -> int:
    """Write the rows and the card, each in one move.

    Returns:
        How many rows there are.

    Raises:
        SaveError: the disk is full or refuses.
    """
    texts = workspace.standing()
    authors = sorted({rated.whose for rated in texts})
    card = _CARD.format(
        rows=ROWS,
        count=len(texts),
        prompts=len({rated.prompt.key for rated in texts}),
        people=f"{len(authors)} people" if len(authors) != 1 else "one person",
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / ROWS, row_lines(texts).encode("utf-8", "backslashreplace"))
        write_bytes(folder / CARD, card.encode())
    except OSError as error:
        raise SaveError(
            "The rows could not be written; what was written by people is in events.jsonl",
            where=str(folder / ROWS),
            found=cause_of(error),
            fix=remedy(error, elsewhere="choose another folder with -o"),
        ) from error
    return len(texts)

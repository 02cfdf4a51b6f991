"""What people wrote in the forms that other programs read; what a form cannot say is left out, and counted."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tutelage.annotate.rows import demonstration, metadata_of, row_lines
from tutelage.annotate.workspace import Rated, Workspace
from tutelage.curate.parquet_rows import parquet_batch, parquet_schema
from tutelage.curate.row_json import row_json
from tutelage.errors import SaveError, cause_of, remedy
from tutelage.system.files import write_bytes
from tutelage.types import Message

FOLDER = "exports"
Form = Literal["messages", "prompt_completion", "alpaca", "sharegpt", "parquet", "dpo"]
SENDERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


class UnsayableError(Exception):
    """A row that a form cannot say, and why."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A file of one form: its bytes, the rows in it, and by reason those that it cannot say."""

    content: bytes
    rows: int
    left_out: Counter[str]


def export(workspace: Workspace, form: Form) -> Exported:
    """All texts that count in one form."""
    texts = workspace.standing()
    if form == "messages":
        return Exported(_bytes(row_lines(texts)), len(texts), Counter())
    if form == "parquet":
        return Exported(_parquet(texts), len(texts), Counter())
    rows: list[Mapping[str, Any]] = []
    left_out: Counter[str] = Counter()
    for rated in texts:
        try:
            rows.append(_pair(rated, workspace) if form == "dpo" else _READERS[form](rated))
        except UnsayableError as error:
            left_out[str(error)] += 1
    if form == "alpaca":
        return Exported(_bytes(json.dumps(rows, ensure_ascii=False, indent=1) + "\n"), len(rows), left_out)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return Exported(_bytes(lines), len(rows), left_out)


def file_name(form: Form) -> str:
    """What the file of a form is called."""
    ending = {"alpaca": "json", "parquet": "parquet"}.get(form, "jsonl")
    return f"{form}.{ending}"


def write_export(folder: Path, workspace: Workspace, form: Form) -> tuple[Path, Exported]:
    """Write the file of a form beside the others, in one move.

    Raises:
        SaveError: the disk is full or refuses.
    """
    exported = export(workspace, form)
    path = folder / FOLDER / file_name(form)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, exported.content)
    except OSError as error:
        raise SaveError(
            "The export could not be written",
            where=str(path),
            found=cause_of(error),
            fix=remedy(error, elsewhere="choose another folder with -o"),
        ) from error
    return path, exported


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _parquet(texts: Sequence[Rated]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [(row_json(demonstration(rated)), metadata_of(rated)) for rated in texts]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_batches([parquet_batch(rows)], schema=parquet_schema()), stream)
    return stream.getvalue()


def _prompt_completion(rated: Rated) -> Mapping[str, Any]:
    turns = json.loads(row_json(rated.prompt.conversation))
    return {
        "prompt": turns.pop("messages"),
        "completion": [{"role": "assistant", "content": rated.revision.text}],
        **turns,
    }


def _alpaca(rated: Rated) -> Mapping[str, Any]:
    messages = rated.prompt.messages
    if rated.prompt.conversation.tools:
        raise UnsayableError("offers tools")
    system = messages[0].content if messages[0].role == "system" else None
    asked = messages if system is None else messages[1:]
    if len(asked) != 1 or asked[0].role != "user":
        raise UnsayableError("more than one turn before the reply")
    row = {"instruction": asked[0].content, "input": "", "output": rated.revision.text}
    return row if system is None else {"system": system, **row}


def _sharegpt(rated: Rated) -> Mapping[str, Any]:
    if rated.prompt.conversation.tools or any(message.tool_calls for message in rated.prompt.messages):
        raise UnsayableError("offers tools")
    return {"conversations": [_said(message) for message in demonstration(rated).messages]}


def _said(message: Message) -> dict[str, Any]:
    turn = {"from": SENDERS[message.role], "value": message.content or ""}
    return turn if message.weight is None else turn | {"weight": message.weight}


def _pair(rated: Rated, workspace: Workspace) -> Mapping[str, Any]:
    """A row for DPO: the text that counts over the one that it was made from."""
    rejected = before_revision(rated, workspace)
    if rejected is None:
        raise UnsayableError("no other text that it was made from")
    row = dict(_prompt_completion(rated))
    chosen = row.pop("completion")
    return {**row, "chosen": chosen, "rejected": [{"role": "assistant", "content": rejected}]}


def before_revision(rated: Rated, workspace: Workspace) -> str | None:
    """The text that a person found wanting: the model's or the row's reply, else the own first revision.

    None where the text that counts began from nothing, or says the same.
    """
    began, text = rated.revision.began, rated.revision.text.strip()
    first: str | None = None
    if began == "row":
        first = rated.prompt.reply
    elif began:
        name, suggested = workspace.suggestions.get(rated.prompt.key, ("", ""))
        first = suggested if name == began else None
    else:
        first = workspace.work(rated.whose, rated.prompt.key).revisions[0].text
    return None if first is None or not first.strip() or first.strip() == text else first


_READERS: Mapping[Form, Callable[[Rated], Mapping[str, Any]]] = {
    "prompt_completion": _prompt_completion,
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
}

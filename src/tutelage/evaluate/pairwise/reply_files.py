"""A file of replies: JSON lines with a prompt and what some model replied to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from tutelage.errors import DataError, SourceNotFoundError, cause_of
from tutelage.evaluate.pairwise.pairs import Answered, Replies
from tutelage.types import Address, Message

REPLY_NAMES = ("reply", "response", "completion", "output", "answer")
EXPECTED = '{"prompt": ..., "reply": ...}, or {"messages": [...], "reply": ...}'
SHOWN_CHARACTERS = 120


class _Turn(BaseModel):
    model_config = ConfigDict(strict=True)

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class _Line(BaseModel):
    """A row; an empty reply is a reply, too."""

    model_config = ConfigDict(strict=True)

    prompt: str | list[_Turn] | None = None
    messages: Annotated[list[_Turn], Field(min_length=1)] | None = None
    reply: str | None = Field(default=None, validation_alias=AliasChoices(*REPLY_NAMES))


def read_reply_file(path: Path, *, name: str) -> Replies:
    """Read it whole.

    Args:
        path: of a file in UTF-8. A reply is under one of `REPLY_NAMES`, or is the last of the messages.
        name: of the model.

    Raises:
        SourceNotFoundError: no such file.
        DataError: it cannot be read, a line holds no prompt or no reply, or there is no line.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise SourceNotFoundError(
            "There is no such run and no such file",
            where=str(path),
            expected="the folder of a run, or a file of JSON lines with prompts and replies",
            fix="check the name",
        ) from error
    except OSError as error:
        raise DataError("The replies cannot be read", where=str(path), found=cause_of(error), fix="check it") from error
    rows = tuple(
        _answered(Address(str(path), number), line)
        for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
        if line.strip()
    )
    if not rows:
        raise DataError(
            "The file of replies is empty", where=str(path), expected=EXPECTED, fix="generate replies first"
        )
    return Replies(name, rows)


def _answered(address: Address, line: bytes) -> Answered:
    try:
        row = _Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(key) for key in first["loc"])
        raise _unusable(address, f"{f'{place}: ' if place else ''}{first['msg']}") from error
    turns = row.messages if row.prompt is None else row.prompt
    if turns is None or not turns:
        raise _unusable(address, f"no prompt: {_shown(line)}")
    prompt = (
        [Message("user", turns)] if isinstance(turns, str) else [Message(turn.role, turn.content) for turn in turns]
    )
    if row.reply is not None:
        return Answered(str(address), tuple(prompt), row.reply)
    if len(prompt) < 2 or prompt[-1].role != "assistant":
        raise _unusable(address, f"no reply: {_shown(line)}")
    return Answered(str(address), tuple(prompt[:-1]), prompt[-1].content or "")


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."


def _unusable(address: Address, found: Any) -> DataError:
    return DataError(
        "A line of the replies cannot be used",
        where=str(address),
        found=str(found),
        expected=f"{EXPECTED}; for `reply` also {', '.join(REPLY_NAMES[1:])}, or messages that end with the reply",
        fix="mend or remove this line",
    )

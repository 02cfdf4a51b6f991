"""Messages that a program writes -> `Message`, by the same reading of turns as rows of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.errors import DataError
from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import FileRemarks, RowContext
from tutelage.formats.turns import turns_from
from tutelage.types import Message

SHOWN = "<prompt>"


def messages_from(items: Sequence[Message | Mapping[str, Any]]) -> list[Message]:
    """The messages in order; those that are `Message` already stand as they are.

    Raises:
        DataError: one of them is no turn: no known role, content of another type.
    """
    context = RowContext(FileRemarks(SHOWN, lambda _sentence: None))
    messages: list[Message] = []
    for number, item in enumerate(items):
        if isinstance(item, Message):
            messages.append(item)
            continue
        try:
            context.begin(filled=False, text=None)
            messages += turns_from([dict(item)], "messages", context)
        except RowError as error:
            raise DataError(
                "A message of the prompt cannot be read",
                where=f"{SHOWN}[{number}]",
                found=f"{error.reason}: {error.detail}",
                expected="role and content, such as {'role': 'user', 'content': 'Hello'}",
                fix="mend this message",
            ) from error
    return messages

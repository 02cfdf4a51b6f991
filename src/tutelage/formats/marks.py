"""Marks on a turn that say whether it is trained, in the several names and senses the field has for them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from tutelage.formats.names import MARKS, TURN_LISTS
from tutelage.formats.rawrow import RowError, json_type
from tutelage.formats.remarks import FileRemarks
from tutelage.types import Message

_WEIGHT_MAX: Final = 1e300
"""Numbers beyond are no weights, and a whole number beyond does not become a float at all."""

_NUMBER: Final = re.compile(r"-?[0-9]{1,300}(\.[0-9]{0,300})?")
_CONTEXT_ROLES: Final = frozenset({"system", "user", "tool"})


def weight_of(turn: Mapping[str, Any], names: Sequence[str], where: str, *, mask_hides: bool) -> float | None:
    """The weight that the marks of a turn give it, their product; None where none of them says anything.

    Args:
        turn: the turn.
        names: the keys of it that are marks.
        where: the turn, for the sentence of an error.
        mask_hides: whether the row shows that `mask` hides a turn from the loss.

    Raises:
        RowError: `wrong_type`; `unclear_mark` for a mark that can be taken in two senses.
    """
    weight: float | None = None
    for name in names:
        value = turn[name]
        if value is None:
            continue
        factor = _turn_weight(MARKS[name], name, value, where, mask_hides=mask_hides)
        if factor is not None:
            weight = factor if weight is None else weight * factor
    return weight


def mask_hides(turns: Sequence[Any], roles: Mapping[str, str], role_keys: Sequence[str]) -> bool:
    """Whether `mask` hides a turn from the loss: it is then true on a turn that is never trained, such as the user's.

    Without such a turn the word has two senses: others write the mask of what counts, true on the replies.
    """
    for turn in turns:
        if isinstance(turn, dict) and _as_bool(turn.get("mask")) is True:
            name = next((turn[key] for key in role_keys if isinstance(turn.get(key), str)), "")
            if roles.get(name.strip().lower()) in _CONTEXT_ROLES:
                return True
    return False


def row_weight_of(raw: Mapping[str, Any], names: Sequence[str], remarks: FileRemarks) -> float | None:
    """The weight that columns beside a conversation give all its replies, their product; None where none says anything.

    Columns have such names for other things, too: those whose value is of another type are named in a note.

    Args:
        raw: the row.
        names: the columns that may be marks.
        remarks: takes the note.

    Raises:
        RowError: `wrong_type` for a weight below 0; `unclear_mark` for a list, which marks parts of the row.
    """
    weight: float | None = None
    for name in names:
        value = raw.get(name)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            continue
        if isinstance(value, list | dict):
            if value:
                raise RowError(
                    "unclear_mark", f"`{name}` marks parts of the row; only whole turns and rows are weighed"
                )
            continue
        factor = _row_weight(name, value)
        if factor is None:
            remarks.unread("row", [name])
            continue
        remarks.note(f"`{name}` of a row says how much its replies are trained, 0 or false not at all")
        weight = factor if weight is None else weight * factor
    return weight


def train_listed_turns(messages: list[Message], raw: Mapping[str, Any]) -> list[Message]:
    """The messages, weighed as a list beside them says, which has true or false for each message of the row.

    Nemotron-SFT-Instruction-Following-Chat-v3 has it as `train_turns` in the column `metadata`, an object or its JSON.

    Raises:
        RowError: `unclear_mark` where the list is of another length, or holds something else.
    """
    name, trained = _turn_list(raw)
    if trained is None:
        return messages
    if (
        not isinstance(trained, list)
        or len(trained) != len(messages)
        or any(_as_bool(mark) is None for mark in trained)
    ):
        expected = f"true or false for each of the {len(messages)} turns"
        raise RowError("unclear_mark", f"`{name}` must hold {expected}, found {_value_text(trained)}")
    return [
        message if bool(mark) == (message.role == "assistant") else replace(message, weight=float(mark))
        for message, mark in zip(messages, trained, strict=True)
    ]


def _turn_list(raw: Mapping[str, Any]) -> tuple[str, Any]:
    metadata = raw.get("metadata")
    if isinstance(metadata, str) and any(name in metadata for name in TURN_LISTS):
        try:
            metadata = json.loads(metadata)
        except ValueError:
            metadata = None
    for name in TURN_LISTS:
        if raw.get(name) is not None:
            return name, raw[name]
        if isinstance(metadata, Mapping) and metadata.get(name) is not None:
            return f"metadata.{name}", metadata[name]
    return "", None


def _row_weight(name: str, value: Any) -> float | None:
    if MARKS[name] == "weight":
        if isinstance(value, str):  # as tables have it
            value = float(value) if _NUMBER.fullmatch(value.strip()) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return _number(name, value, "the row")
    if isinstance(value, str):
        truth = {"true": True, "false": False}.get(value.strip().lower())
    else:
        # A number named so is more likely what some model lost on the row.
        truth = None if name == "loss" and not isinstance(value, bool) else _as_bool(value)
    return None if truth is None else float(truth if MARKS[name] == "trained" else not truth)


def _turn_weight(sense: str, name: str, value: Any, where: str, *, mask_hides: bool) -> float | None:
    if sense == "weight":
        return _number(name, value, where)
    if sense == "parts":
        if value in ([], "", {}):
            return None
        raise RowError("unclear_mark", f"{where}: `{name}` marks parts of a turn; only whole turns are weighed")
    truth = _as_bool(value)
    if sense == "label" and truth is None:
        return None
    if truth is None:
        expected = "true or false" if isinstance(value, str | list | dict) else "true, false, 1 or 0"
        raise RowError("wrong_type", f"{where}: `{name}` must be {expected}, found {_value_text(value)}")
    if sense == "mask" and not mask_hides:
        raise RowError(
            "unclear_mark",
            f"{where}: `mask` may mean that the turn is trained or that it is not; write `train` with true or false",
        )
    return float(truth if sense in {"trained", "label"} else not truth)


def is_mark(name: str, value: Any) -> bool:
    """Whether this key with this value is a mark; `label` holds other things, too."""
    return MARKS[name] != "label" or value is None or _as_bool(value) is not None


def _as_bool(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def _number(name: str, value: Any, where: str) -> float:
    number = isinstance(value, int | float) and not (isinstance(value, bool) and name != "loss_scale")
    # Compared before it is converted: a whole number of 400 digits cannot become a float.
    if not number or not 0 <= value <= _WEIGHT_MAX or not math.isfinite(value):
        raise RowError("wrong_type", f"{where}: `{name}` must be a number from 0 up, found {_value_text(value)}")
    return float(value)


def _value_text(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, int | float) else json_type(value)

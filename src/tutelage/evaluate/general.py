"""A general set: short prompts whose answers a machine can check. What falls here after training was forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from tutelage.errors import DataError, SourceNotFoundError
from tutelage.evaluate.checks import CHECKS, Check, FollowsInstruction
from tutelage.evaluate.choice_items import is_choice_row
from tutelage.evaluate.instructions.rows import MARK, IFEvalRow
from tutelage.types import Address, Unit


@dataclass(frozen=True, slots=True)
class GeneralItem:
    """One prompt and the checks that its reply must all pass; `reference` is a reply that does, where one is given."""

    address: Address
    topic: str
    prompt: str
    checks: tuple[Check, ...]
    id: str = ""
    reference: str | None = None
    source: str = ""
    """What it shares with other items, such as a passage; empty = nothing."""

    @property
    def name(self) -> str:
        """Its id, or where it stands."""
        return self.id or str(self.address)


class _Line(BaseModel):
    model_config = ConfigDict(strict=True)

    prompt: Annotated[str, Field(min_length=1)]
    checks: Annotated[list[Annotated[Check, Field(discriminator="kind")]], Field(min_length=1)]
    topic: str = ""
    id: str | int = ""
    reference: str | None = None
    source: str = ""


def _form(row: Any) -> str:
    return "IFEval" if isinstance(row, dict) and MARK in row else "checks"


_ROW: TypeAdapter[_Line | IFEvalRow] = TypeAdapter(
    Annotated[Annotated[_Line, Tag("checks")] | Annotated[IFEvalRow, Tag("IFEval")], Discriminator(_form)]
)
_EXPECTED = {
    "checks": f'{{"prompt": ..., "checks": [{{"kind": one of {", ".join(CHECKS)}}}]}}',
    "IFEval": f'{{"key": ..., "prompt": ..., "{MARK}": [name, ...], "kwargs": [{{argument: value}}, ...]}}',
}


def passes(item: GeneralItem, reply: str) -> bool:
    """Whether `reply` passes every check of `item`."""
    text = reply.strip()
    return all(check.passes(text) for check in item.checks)


def read_general(path: str, shown: str | None = None, unit: Unit = "line") -> list[GeneralItem]:
    """Read a general set: JSONL with `prompt`, `checks` and optionally `topic`, `id`, `reference`; or IFEval's rows.

    Questions with choices are left to `choice_items.read_choices`.

    Args:
        path: of the file.
        shown: what addresses call it; None for its path.
        unit: what they count, lines from 1 or items from 0.

    Raises:
        SourceNotFoundError: no such file.
        DataError: a line that is not such an object, with its address.
    """
    file = Path(path)
    if not file.is_file():
        raise SourceNotFoundError("The general set is missing", where=path, fix="check evaluate.general")
    items = []
    has_choices = False
    shown = path if shown is None else shown
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1 if unit == "line" else 0):
        if not line.strip():
            continue
        if is_choice_row(line):
            has_choices = True
            continue
        address = Address(shown, number, unit)
        try:
            items.append(_item(address, _ROW.validate_json(line)))
        except ValidationError as error:
            first = error.errors()[0]
            form, *field = map(str, first["loc"] or ["checks"])
            raise DataError(
                "A row of the general set cannot be read",
                where=str(address),
                found=f"{'.'.join(field) or 'the line'}: {first['msg'].removeprefix('Value error, ')}",
                expected=_EXPECTED[form],
                fix="mend this line",
            ) from error
    if not (items or has_choices):
        raise DataError("The general set is empty", where=shown, expected="one JSON object a line", fix="add prompts")
    return items


def _item(address: Address, row: _Line | IFEvalRow) -> GeneralItem:
    if isinstance(row, _Line):
        return GeneralItem(address, row.topic, row.prompt, tuple(row.checks), str(row.id), row.reference, row.source)
    checks = (
        FollowsInstruction(kind="instruction", id=name, arguments=arguments) for name, arguments in row.instructions
    )
    return GeneralItem(address, row.topic, row.prompt, tuple(checks), id=str(row.key))

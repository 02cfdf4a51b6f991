"""A row of an IFEval file: a prompt, the names of its instructions, and the arguments of each."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tutelage.evaluate.instructions.kinds import instruction_of

MARK = "instruction_id_list"
"""The key by which such a row is known."""


class IFEvalRow(BaseModel):
    """One row; an argument that does not fit its instruction makes it invalid."""

    model_config = ConfigDict(strict=True)

    key: int | str
    prompt: Annotated[str, Field(min_length=1)]
    instruction_id_list: Annotated[list[str], Field(min_length=1)]
    kwargs: list[dict[str, Any]]

    @model_validator(mode="after")
    def _arguments_fit(self) -> Self:
        if len(self.kwargs) != len(self.instruction_id_list):
            raise ValueError(f"{len(self.instruction_id_list)} instructions, and arguments for {len(self.kwargs)}")
        for name, arguments in self.instructions:
            instruction_of(name, arguments)
        return self

    @property
    def instructions(self) -> list[tuple[str, dict[str, Any]]]:
        """The name and the arguments of each."""
        return list(zip(self.instruction_id_list, self.kwargs, strict=True))

    @property
    def topic(self) -> str:
        """The families of its instructions, each once, sorted."""
        return " + ".join(sorted({name.partition(":")[0] for name in self.instruction_id_list}))

"""What every kind of check is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class CheckModel(BaseModel):
    """A strict row of data, with a method `passes` that looks at a stripped reply."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

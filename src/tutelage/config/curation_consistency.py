"""The `[curate.consistency]` table: what is told of style and contradictions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tutelage.config.sections import LARGEST_COUNT, Section


class ConsistencySettings(Section):
    """When sources and rows count as contradictory."""

    contradictions: Literal["report", "drop"] = Field(
        default="report",
        description="What becomes of rows whose prompt has different final answers, or JSON beside another form.",
        json_schema_extra={"source": "our choice: which of them is right is for people to say"},
    )
    difference: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Two sources differ in a mark of style where its shares are so far apart.",
        json_schema_extra={"source": "our choice: half of the rows", "usual": [0.3, 0.8]},
    )
    rows: int = Field(
        default=50,
        ge=1,
        le=LARGEST_COUNT,
        description="Fewest rows of a source that is compared with others.",
        json_schema_extra={"source": "our choice: below, a share is known to 0.14 at best (95 % of a binomial)"},
    )

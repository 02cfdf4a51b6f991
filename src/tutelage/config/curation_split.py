"""The `[curate.split]` table: which share of the rows is held out, and which rows stay together."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import Field, model_validator

from tutelage.config.sections import LARGEST_COUNT, Section, Text

_SUM_SLACK: Final = 1e-6


def _share(default: float, what: str, *, gt: float | None = None) -> Any:
    return Field(
        default=default,
        gt=gt,
        ge=None if gt is not None else 0,
        le=1,
        description=f"The share of the rows {what}; the three sum to one.",
        json_schema_extra={"source": "common practice, not from a paper"},
    )


class SplitSettings(Section):
    """How rows are divided into files. Off unless it is named in curate.steps."""

    train: float = _share(0.8, "to train on", gt=0)
    validation: float = _share(0.1, "to choose by, such as held-out loss; 0 makes no such file")
    test: float = _share(0.1, "to report on; 0 makes no such file")
    similarity: float = Field(
        default=0.7,
        ge=0.3,
        le=1,
        description="Prompts stay together whose Jaccard similarity (shared runs of five words over all) reaches this: "
        "no two files share such a pair.",
        json_schema_extra={
            "source": "our choice: below the 0.8 of near_duplicates (Lee et al. 2022, section 4.2), as a row held "
            "apart costs nothing",
            "usual": [0.5, 0.8],
        },
    )
    first_turn_words: int = Field(
        default=5,
        ge=1,
        le=LARGEST_COUNT,
        description="Conversations that begin with the same question of so many words or more stay together; rows of "
        "one prompt always do.",
        json_schema_extra={"source": "our choice: a greeting is shared by conversations about anything"},
    )
    field: Text | None = Field(
        default=None,
        description="A field of the rows' metadata, such as id, source or file: rows with one value stay together.",
        json_schema_extra={"source": "the user's data: rows that one document or one person made"},
    )
    template_share: float = Field(
        default=0.001,
        gt=0,
        le=1,
        description="A run of five words in more than this share of a source's different prompts is a template and is "
        "not compared; 1 compares all.",
        json_schema_extra={"source": "as curate.near_duplicates.template_share", "usual": [0.0005, 0.05]},
    )
    template_rows: int = Field(
        default=50,
        ge=2,
        le=LARGEST_COUNT,
        description="And in at least this many different prompts of the source.",
        json_schema_extra={"source": "as curate.near_duplicates.template_rows", "usual": [20, 1000]},
    )

    @property
    def shares(self) -> dict[str, float]:
        """The share of each file that is written, by its name."""
        shares = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: share for name, share in shares.items() if share > 0}

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > _SUM_SLACK:
            raise ValueError(
                f"has shares (train {self.train:g}, validation {self.validation:g}, test {self.test:g}) that sum to "
                f"{total:g}, not to 1"
            )
        return self

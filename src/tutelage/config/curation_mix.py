"""The `[curate.mix]` table: how much of each source is in the result."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tutelage.config.sections import LARGEST_COUNT, Section, Text

Share = Annotated[float, Field(gt=0, lt=1)]


class MixSettings(Section):
    """How often the rows of each source go on. Off unless it is named in curate.steps."""

    field: Text | None = Field(
        default=None,
        description="A field of the rows' metadata, such as category, whose values are the sources that are mixed; "
        "file takes each file by itself; left out, they are what was named to read.",
        json_schema_extra={"source": "the user's data: FLAN (Wei et al. 2022, section 2.1) mixes by data set"},
    )
    weights: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(
        default={},
        description="How often each row of a source goes on, such as 'small.jsonl' = 2.0; 0.5 draws half of them; a "
        "source without a weight has 1; where a total is set, only how they stand to each other counts.",
        json_schema_extra={"source": "the user's choice: T5 (Raffel et al. 2020, section 3.5.2) compares mixtures"},
    )
    caps: dict[str, Annotated[int, Field(ge=1, le=LARGEST_COUNT)]] = Field(
        default={},
        description="The most different rows of a source that go on, drawn by the seed; '*' is for each source that is "
        "not named.",
        json_schema_extra={"source": "none by default; FLAN (Wei et al. 2022, section 2.1): 30,000 of each data set"},
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_COUNT,
        description="A source of more rows counts as if it had so many: its rate is that of min(rows, limit).",
        json_schema_extra={
            "source": "examples-proportional mixing: Raffel et al. 2020, section 3.5.2; FLAN (Wei et al. 2022, section "
            "2.1): 3,000; none by default",
            "usual": [1000, 1000000],
        },
    )
    temperature: float = Field(
        default=1.0,
        ge=1,
        le=1e6,
        description="Rates are raised to 1/temperature and made to sum to one again: 1 leaves them, more brings them "
        "nearer to each other, with as many rows in all.",
        json_schema_extra={
            "source": "temperature-scaled mixing: Raffel et al. 2020, section 3.5.2, which tries 2",
            "usual": [1, 5],
        },
    )
    replay: dict[str, Share] = Field(
        default={},
        description="Sources of general data, each with the share of the result that it makes up, such as "
        "'general.jsonl' = 0.1; the other sources make up the rest.",
        json_schema_extra={"source": "the user's choice; Bethune et al. 2025 (arXiv 2502.06042): 1 % halts forgetting"},
    )
    rows: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_COUNT,
        description="Rows of the result; left out, as many as weights, caps and limit come to.",
        json_schema_extra={"source": "the user's choice", "usual": [1000, 10000000]},
    )
    trained_tokens: int | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="Or about how many tokens of replies the result has, by the tokenizer.",
        json_schema_extra={"source": "our choice: mixtures are compared at equal trained tokens"},
    )
    tokenizer: Text | None = Field(
        default=None,
        description="A tokenizer.json, or a folder with one, that trained_tokens are counted by.",
        json_schema_extra={"source": "the user's model: tokens of another are others"},
    )
    noted_epochs: float = Field(
        default=4.0,
        ge=1,
        le=1e6,
        description="A source whose rows go on more often than this, on average, is named in a note.",
        json_schema_extra={
            "source": "Muennighoff et al. 2023 (arXiv 2305.16264), section 6: up to 4 epochs are about as good as new "
            "data",
            "usual": [2, 16],
        },
    )
    shuffle: bool = Field(
        default=True,
        description="Put the rows of all sources in one random order; without, they stay in that of the sources, and "
        "repeats of a row stand side by side.",
        json_schema_extra={"source": "our choice: a trainer that reads in order sees the mixture all along"},
    )

    @model_validator(mode="after")
    def _leaves_room_beside_replay(self) -> Self:
        if (total := sum(self.replay.values())) >= 1:
            raise ValueError(f"has shares of replay that sum to {total:g}; nothing of the other sources would be left")
        if both := [name for name in self.weights if name in self.replay]:
            raise ValueError(f"names {both[0]!r} in weights and in replay, which says how much of it goes on; keep one")
        if self.rows is not None and self.trained_tokens is not None:
            raise ValueError("has both rows and trained_tokens; keep one of them")
        return self

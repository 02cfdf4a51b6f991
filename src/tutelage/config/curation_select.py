"""The `[curate.select]` table: how many rows go on, and by which rule they are chosen."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tutelage.config.curation_scores import SCORING_MODEL
from tutelage.config.sections import LARGEST_COUNT, Section, Text

SelectMethod = Literal["random", "longest", "score", "diversity", "score_first", "rds"]


class SelectSettings(Section):
    """Which rows are chosen, when fewer are to go on than there are. Off unless it is named in curate.steps."""

    keep: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_COUNT,
        description="How many rows go on; the step needs this or trained_tokens.",
        json_schema_extra={"source": "the user's choice; Zhou et al. 2023 (LIMA) took 1,000", "usual": [100, 100000]},
    )
    trained_tokens: int | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="Or how many tokens of replies go on, by the tokenizer: rows are taken as long as they fit.",
        json_schema_extra={"source": "our choice: methods that prefer long rows are compared at equal trained tokens"},
    )
    tokenizer: Text | None = Field(
        default=None,
        description="A tokenizer.json, or a folder with one, that trained_tokens are counted by.",
        json_schema_extra={"source": "the user's model: tokens of another are others"},
    )
    method: SelectMethod = Field(
        default="random",
        description="Which rows: drawn (random), those with the longest replies (longest), the highest scores (score), "
        "those that are like as many rows as can be, or far apart (diversity), the highest scores that are like no row "
        "chosen before (score_first), or the nearest to examples of yours (rds).",
        json_schema_extra={
            "source": "random and longest are what others are held against: Xia et al. 2024 (2410.09335), Zhao et al. "
            "2024 (2402.04833); score_first: Liu et al. 2024 (2312.15685), section 3; rds: Ivison et al. 2025 "
            "(2503.01807), RDS+ with algorithm 1"
        },
    )
    score: Text = Field(
        default="score",
        description="The field of a row's metadata that holds its score: its own, or what a step before gave, such as "
        "model_scores.ifd; more is better.",
        json_schema_extra={"source": "the user's choice"},
    )
    diversity: Literal["facility_location", "k_center"] = Field(
        default="facility_location",
        description="Choose so that every row has a chosen one that is like it (facility_location), or each time the "
        "row that is least like those chosen (k_center), which takes outliers first.",
        json_schema_extra={"source": "Lin and Bilmes 2011, section 4; Sener and Savarese 2018 (k-center), section 4"},
    )
    vectors: Literal["hashed", "wordllama"] = Field(
        default="hashed",
        description="What rows are compared by: their words and pairs of words, hashed, or the vectors that "
        "wordllama brings.",
        json_schema_extra={"source": "Weinberger et al. 2009 (hashing); wordllama 0.4: an extra package"},
    )
    target_rows: list[Text] = Field(
        default=[],
        description="For rds: files of rows such as the model is to become good at; never those that you measure on.",
        json_schema_extra={"source": "the user's choice; none by default"},
    )
    model: Text = Field(
        default=SCORING_MODEL,
        description="For rds: the model whose hidden states rows are compared by: a short name, a local folder, or a "
        "hub id.",
        json_schema_extra={"source": "our choice, as it is at hand; Ivison et al. 2025 take the model to be trained"},
    )
    template: Text | None = Field(
        default=None,
        description="For rds: the chat template that rows are written in: a Jinja file or a format by name; without it "
        "the model's own.",
        json_schema_extra={"source": "the checkpoint's own; pretrained models often have none"},
    )
    most_tokens: int = Field(
        default=2048,
        ge=16,
        le=LARGEST_COUNT,
        description="For rds: the first tokens of a row that are read.",
        json_schema_extra={"source": "Ivison et al. 2025 (2503.01807): 2,048 in their code", "usual": [512, 4096]},
    )
    similarity: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="For score_first: a row whose cosine similarity to a chosen one reaches this is passed over.",
        json_schema_extra={"source": "Liu et al. 2024 (2312.15685), section 3.4: 0.9", "usual": [0.7, 0.95]},
    )
    quotas: dict[str, Annotated[int, Field(ge=0, le=LARGEST_COUNT)]] = Field(
        default={},
        description="The most rows of a source, such as 'alpaca.json' = 300; '*' is for each source that is not named.",
        json_schema_extra={"source": "the user's choice; none by default"},
    )

"""The tables of `[curate]` that say what a duplicate is, and which of several is kept."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tutelage.config.sections import LARGEST_COUNT, Section, Text

On = Literal["both", "prompt", "reply"]
Keep = Literal["first", "last", "longest", "score"]


def _score() -> Any:
    return Field(
        default="score",
        description="For keep = 'score': the field of a row's metadata that holds it, or what a step before gave, such "
        "as model_scores.ifd; more is better.",
        json_schema_extra={"source": "the user's choice"},
    )


class ExactDuplicatesSettings(Section):
    """Which rows are the same, so that one of them goes on."""

    on: On = Field(
        default="both",
        description="What has to be the same: the whole conversation with its system turns and tools (both), what the "
        "users say (prompt), or what is learned (reply).",
        json_schema_extra={"source": "our choice: the same prompt with several good replies is no duplicate"},
    )
    normalize: Literal["nothing", "space", "case", "words"] = Field(
        default="space",
        description="Which differences do not count: none; Unicode form and white space (space); letter case, too "
        "(case); or all but the words (words).",
        json_schema_extra={"source": "our choice: case and punctuation mean something in code"},
    )
    keep: Keep = Field(
        default="first",
        description="Which of several is kept: the first or the last in the order of the sources, the longest, or the "
        "one that a step before scored highest; of equals the first.",
        json_schema_extra={"source": "our choice: the order of the sources is the user's own ranking"},
    )
    score: Text = _score()
    field: Text | None = Field(
        default=None,
        description="Rows with the same value in this field of their metadata, such as id, are copies as well, "
        "whatever their texts; parts of one row are not.",
        json_schema_extra={"source": "the cleaning of Vicuna's data drops conversations whose id came before"},
    )


class NearDuplicatesSettings(Section):
    """Which rows are nearly the same, by the runs of five words that they share."""

    on: On = Field(
        default="both",
        description="What is compared: prompts and replies, prompts alone, or replies alone.",
        json_schema_extra={"source": "our choice: the same prompt with several good replies is no duplicate"},
    )
    similarity: float = Field(
        default=0.8,
        ge=0.7,
        le=1,
        description="Least Jaccard similarity (shared runs of five words over all) of a near-duplicate.",
        json_schema_extra={
            "source": "Lee et al. 2022, section 4.2: 0.8; below 0.7 the bands miss more than one pair in thirteen",
            "usual": [0.8, 0.95],
        },
    )
    side_similarity: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Least similarity of the prompts alone and of the replies alone, where both are compared.",
        json_schema_extra={
            "source": "our choice: a long shared prompt does not make duplicates of rows whose replies differ",
            "usual": [0.3, 0.8],
        },
    )
    keep: Keep = Field(
        default="first",
        description="Which of several is kept: the first or the last in the order of the sources, the longest, or the "
        "one that a step before scored highest; of equals the first.",
        json_schema_extra={"source": "our choice: the order of the sources is the user's own ranking"},
    )
    score: Text = _score()
    template_share: float = Field(
        default=0.001,
        gt=0,
        le=1,
        description="A run of five words in more than this share of a source's rows is a template and is not compared; "
        "1 compares all.",
        json_schema_extra={
            "source": "our choice: marin-community issues 6851 and 6854, where templates made one cluster of a source",
            "usual": [0.0005, 0.05],
        },
    )
    template_rows: int = Field(
        default=50,
        ge=2,
        le=LARGEST_COUNT,
        description="And in at least this many rows of the source.",
        json_schema_extra={"source": "our choice: near-copies rarely come by the dozens", "usual": [20, 1000]},
    )
    cluster_share: float = Field(
        default=0.01,
        gt=0,
        le=1,
        description="Stop with an error where one cluster takes more than this share of a source; 1 never stops.",
        json_schema_extra={"source": "our choice: such a cluster is a template more often than copies"},
    )
    cluster_rows: int = Field(
        default=20,
        ge=2,
        le=LARGEST_COUNT,
        description="And more than this many rows of the source.",
        json_schema_extra={"source": "our choice: in a small source a few copies are a large share"},
    )


class SemanticDuplicatesSettings(Section):
    """Which rows mean nearly the same, by packaged vectors of words."""

    on: On = Field(
        default="both",
        description="What has to be alike: prompts and replies, prompts alone, or replies alone.",
        json_schema_extra={"source": "our choice: the same prompt with several good replies is no duplicate"},
    )
    similarity: float = Field(
        default=0.9,
        ge=0.5,
        le=1,
        description="Least cosine similarity of duplicates; of both sides, where both are compared.",
        json_schema_extra={
            "source": "our choice, by reading pairs of 5,003 published instructions: at 0.9 most ask for the same "
            "program, at 0.8 many for another one; similarities of other vectors mean other things",
            "usual": [0.85, 0.97],
        },
    )
    keep: Keep = Field(
        default="first",
        description="Which of several is kept: the first or the last in the order of the sources, the longest, or the "
        "one that a step before scored highest; of equals the first.",
        json_schema_extra={"source": "our choice: the order of the sources is the user's own ranking"},
    )
    score: Text = _score()

"""The table `[curate.decontaminate]`: against which evaluation sets, and how much may be shared with them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tutelage.config.sections import LARGEST_COUNT, Section, Text


class DecontaminateSettings(Section):
    """Which rows hold questions or answers of evaluation sets. Rows held out of the run are always among these."""

    evaluations: list[Text] = Field(
        default=[],
        description="Files, folders or hub data sets of evaluation sets, in any shape with texts.",
        json_schema_extra={"source": "the user's choice: what the model will be measured by"},
    )
    columns: list[Text] = Field(
        default=[],
        description="Columns of these files that hold what is asked, beside those whose names are known.",
        json_schema_extra={"source": "the evaluation set"},
    )
    rules: list[Literal["ngram", "coverage", "longest"]] = Field(
        default=["ngram", "coverage"],
        min_length=1,
        description="What makes a row contaminated: a shared run of `ngram_words` words (ngram), shared runs of eight "
        "that make up a share of the item's text (coverage), or one run that does (longest).",
        json_schema_extra={
            "source": "Brown et al. 2020 (GPT-3), appendix C (13 words); Lambert et al. 2024 (Tulu 3), section 3.2 "
            "(eight words, half of the text); Singh et al. 2024 (ConTAM) (longest)"
        },
    )
    ngram_words: int = Field(
        default=13,
        ge=8,
        le=1000,
        description="Words of a run that is enough by itself, for the rule ngram.",
        json_schema_extra={"source": "Brown et al. 2020 (GPT-3), appendix C", "usual": [8, 50]},
    )
    coverage: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of an item's text in shared runs that is enough, for the rules coverage and longest.",
        json_schema_extra={"source": "Lambert et al. 2024 (Tulu 3), section 3.2", "usual": [0.3, 0.8]},
    )
    template_items: int = Field(
        default=10,
        ge=1,
        le=1_000_000,
        description="A run of eight words that more items than this hold is a template of the set and is no sign.",
        json_schema_extra={
            "source": "our choice: the same item in several files stays, the table of BIG-Bench's penguins goes",
            "usual": [3, 100],
        },
    )
    template_share: float = Field(
        default=0.001,
        gt=0,
        le=1,
        description="A run of eight words in more than this share of the rows is a template of theirs and is no sign "
        "either; an item that a row holds whole is one all the same.",
        json_schema_extra={
            "source": "our choice: rows held out share their instruction's words with the rows they were taken from",
            "usual": [0.0005, 0.05],
        },
    )
    template_rows: int = Field(
        default=50,
        ge=2,
        le=LARGEST_COUNT,
        description="And in at least this many rows.",
        json_schema_extra={"source": "our choice", "usual": [20, 1000]},
    )

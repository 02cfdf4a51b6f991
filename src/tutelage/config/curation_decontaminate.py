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
        description="Words of a run that is enough by itself, for the rule ngram, if it is `ngram_share` of the text.",
        json_schema_extra={"source": "Brown et al. 2020 (GPT-3), appendix C", "usual": [8, 50]},
    )
    ngram_share: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="Share of an item's text that such a run must be; 0 takes every run, and one of `long_words` words "
        "is enough whatever its share.",
        json_schema_extra={
            "source": "our choice, by reading: of 20 such runs in 29,390 real rows the 13 below it are no item",
            "usual": [0, 0.5],
        },
    )
    long_words: int = Field(
        default=30,
        ge=8,
        le=1000,
        description="Words of a run that is enough by itself, whatever its share of the text.",
        json_schema_extra={"source": "our choice: the longest phrase met that is no item had 22", "usual": [20, 100]},
    )
    coverage: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of an item's text in shared runs that is enough, for the rules coverage and longest.",
        json_schema_extra={"source": "Lambert et al. 2024 (Tulu 3), section 3.2", "usual": [0.3, 0.8]},
    )
    short_words: int = Field(
        default=20,
        ge=8,
        le=1000,
        description="An item's text of fewer words must be shared to `short_coverage`: half of it is often a phrase.",
        json_schema_extra={"source": "our choice, by reading what 29,390 real rows share with 15 evaluation sets"},
    )
    short_coverage: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Share of such a text that is enough.",
        json_schema_extra={"source": "our choice, as short_words", "usual": [0.5, 1]},
    )
    phrase_rows: int = Field(
        default=5,
        ge=2,
        le=LARGEST_COUNT,
        description="A run of eight words in so many rows, and in one of 10,000, is a phrase that people use and no "
        "sign of such a text; nor is a question of fewer than eight words that is one turn of several in so many.",
        json_schema_extra={"source": "our choice: 'is there anything i can help you with', 'how are you'"},
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

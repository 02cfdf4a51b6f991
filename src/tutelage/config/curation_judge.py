"""The `[curate.judge]` table: which model at an endpoint scores rows, by what, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tutelage.config.sections import LARGEST_COUNT, Section, Text


class JudgeSettings(Section):
    """A model behind an OpenAI-compatible endpoint gives each row scores. Off unless it is named in curate.steps."""

    url: Text | None = Field(
        default=None,
        description="Base URL of any OpenAI-compatible server, such as http://127.0.0.1:8000/v1; the step needs it.",
        json_schema_extra={"source": "the user's choice: nothing is sent anywhere without it"},
    )
    model: Text | None = Field(
        default=None,
        description="The judge's name there; the step needs it.",
        json_schema_extra={"source": "the user's choice"},
    )
    key_env: Text | None = Field(
        default=None,
        description="The environment variable that holds the key; without it none is sent.",
        json_schema_extra={"source": "our choice: a key stands in no file"},
    )
    rubric: Text | None = Field(
        default=None,
        description="A file that says what the judge is to score, in place of our own words; how it is to answer is "
        "added to it.",
        json_schema_extra={"source": "our own words; what is scored is as in Liu et al. 2024 (2312.15685)"},
    )
    scores: list[Text] = Field(
        default=["quality", "complexity"],
        min_length=1,
        description="The names of the scores that each answer must hold, as the rubric speaks of them.",
        json_schema_extra={"source": "Liu et al. 2024 (2312.15685), section 3: quality and complexity"},
    )
    lowest: int = Field(
        default=1, ge=-1000, le=1000, description="The lowest score.",
        json_schema_extra={"source": "our choice, as of many published rubrics"},
    )  # fmt: skip
    highest: int = Field(
        default=5, ge=-1000, le=1000, description="The highest score.",
        json_schema_extra={"source": "our choice, as of many published rubrics"},
    )  # fmt: skip
    minimum: dict[str, float] = Field(
        default={},
        description="Drop a row with a lower score than this, such as quality = 3; rows without a score stay.",
        json_schema_extra={"source": "off by default: nobody has shown here that a judge's scores choose well"},
    )
    most_requests: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_COUNT,
        description="Send no more in one run, repeated ones included.",
        json_schema_extra={"source": "the user's budget"},
    )
    most_tokens: int | None = Field(
        default=None,
        ge=1,
        le=2**53,
        description="Spend no more tokens in one run, prompts and answers together.",
        json_schema_extra={"source": "the user's budget"},
    )
    most_cost: float | None = Field(
        default=None,
        gt=0,
        description="Spend no more money in one run, in the currency of the prices; it needs one of them.",
        json_schema_extra={"source": "the user's budget"},
    )
    unfinished: Literal["stop", "scored", "all"] = Field(
        default="stop",
        description="Where the budget or the endpoint ends before all rows are asked about: training stops, and the "
        "same command goes on (stop); rows without a score are dropped (scored); or they are trained on as well (all).",
        json_schema_extra={"source": "our choice: which rows were asked about first says nothing of how good they are"},
    )
    tokenizer: Text | None = Field(
        default=None,
        description="The judge's tokenizer.json, or a folder with one, by which --dry-run counts; left out, 4 "
        "characters are a token.",
        json_schema_extra={"source": "the user's judge: tokens of another are others"},
    )
    prompt_price: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="What a million tokens of prompts cost.",
        json_schema_extra={"source": "the endpoint's list of prices"},
    )
    answer_price: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="What a million tokens of answers cost.",
        json_schema_extra={"source": "the endpoint's list of prices"},
    )
    answer_tokens: int = Field(
        default=512,
        ge=1,
        le=LARGEST_COUNT,
        description="Longest answer, reasoning included.",
        json_schema_extra={"source": "our choice, as tutelage compare"},
    )
    parallel: int = Field(
        default=4, ge=1, le=64, description="Requests at once.",
        json_schema_extra={"source": "our choice, as tutelage compare"},
    )  # fmt: skip
    timeout: float = Field(
        default=60.0, ge=0.1, le=3600, description="Seconds that one request may take.",
        json_schema_extra={"source": "our choice, as tutelage compare"},
    )  # fmt: skip
    retries: int = Field(
        default=4, ge=0, le=20, description="How often a request that came to nothing is repeated.",
        json_schema_extra={"source": "our choice, as tutelage compare"},
    )  # fmt: skip

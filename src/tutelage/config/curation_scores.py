"""The tables of `[curate]` that give rows a score by a model: `[curate.model_scores]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tutelage.config.sections import LARGEST_COUNT, Section, Text

SCORING_MODEL = "smollm2-135m"


class ModelScoresSettings(Section):
    """How well a model foresees each reply, with its prompt and without. Off unless it is named in curate.steps."""

    model: Text = Field(
        default=SCORING_MODEL,
        description="The model that reads the rows: a short name, a local folder, or a hub id such as owner/name.",
        json_schema_extra={"source": "our choice: Li et al. 2024 (2402.00530) score by a small model to save time"},
    )
    template: Text | None = Field(
        default=None,
        description="The chat template that rows are written in: a Jinja file or a format by name; without it the "
        "model's own.",
        json_schema_extra={"source": "the checkpoint's own: other words between the turns give other losses"},
    )
    most_tokens: int = Field(
        default=2048,
        ge=16,
        le=LARGEST_COUNT,
        description="A longer row is not scored, and goes on; nor is one longer than the model's positions.",
        json_schema_extra={"source": "our choice: as pack.max_seq_length", "usual": [512, 8192]},
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="Number format of the computation, auto taking bf16 where the hardware multiplies it.",
        json_schema_extra={"source": "as model.precision"},
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Let the model's repository run its own Python code on this computer.",
        json_schema_extra={"source": "off by default for safety, as in Transformers"},
    )

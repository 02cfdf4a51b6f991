"""The `[synthesize]` section: how rows are made. A table for each way; `[synthesize.tasks]` is FLAN's."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tutelage.config.sections import LARGEST_COUNT, Section, Text

Share = Annotated[float, Field(ge=0, le=1e6)]
FORMS = ("zero_shot", "few_shot", "chain_of_thought", "few_shot_chain_of_thought")
"""The forms of a prompt, each a field with its share."""


class TaskSettings(Section):
    """How labelled tables become instructions. Only `tutelage synthesize tasks` reads it."""

    tasks: list[Text] = Field(
        default=[],
        description="Task files, or folders with such, for a recipe that is itself named in place of them; from the "
        "current folder.",
        json_schema_extra={"source": "the user's: which tasks the recipe is made of"},
    )
    data_folder: Text | None = Field(
        default=None,
        description="The folder that a task's table is looked for in, before the folder of the task file.",
        json_schema_extra={"source": "the user's: where the tables lie"},
    )
    hold_out: list[Text] = Field(
        default=[],
        description="Clusters of tasks that are not trained on; their rows become evaluation items.",
        json_schema_extra={
            "source": "Wei et al. 2022 (FLAN), section 2.2: a task counts as unseen if none of its cluster was trained"
        },
    )
    zero_shot: Share = Field(
        default=0.5,
        description="Share of the rows whose prompt is the instruction alone.",
        json_schema_extra={"source": "Wei et al. 2022, section 2.1; the share is our choice", "usual": [0.1, 1.0]},
    )
    few_shot: Share = Field(
        default=0.25,
        description="Share of the rows whose prompt begins with other rows of the task and their answers.",
        json_schema_extra={
            "source": "Longpre et al. 2023, section 3: prompts of both kinds beat either kind; the share is our choice",
            "usual": [0.0, 0.9],
        },
    )
    chain_of_thought: Share = Field(
        default=0.15,
        description="Share of the rows whose reply reasons before its answer; where a task has no rationale, its rows "
        "go to zero_shot.",
        json_schema_extra={"source": "Chung et al. 2022, section 2.1; the share is our choice", "usual": [0.0, 0.5]},
    )
    few_shot_chain_of_thought: Share = Field(
        default=0.1,
        description="Share of the rows with both: other rows with their reasoning, and a reply that reasons; where a "
        "task has no rationale, its rows go to few_shot.",
        json_schema_extra={"source": "Wei et al. 2022b, section 2; the share is our choice", "usual": [0.0, 0.5]},
    )
    exemplars: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Rows that a few-shot prompt begins with; fewer where the prompt would be too long, or the task "
        "has no more.",
        json_schema_extra={"source": "our choice; Wei et al. 2022, section 4.4, take up to 16", "usual": [1, 16]},
    )
    without_options: Share = Field(
        default=0.0,
        le=1,
        description="Share of the rows with choices whose prompt does not list them; wordings that name options_list "
        "always do.",
        json_schema_extra={
            "source": "0: Wei et al. 2022, section 2.3; 0.5: Longpre et al. 2023 (google-research/FLAN, "
            "flan/v2/run_example.py, lines 47 to 62)",
            "usual": [0.0, 0.5],
        },
    )
    longest_input: int = Field(
        default=1024,
        ge=1,
        le=LARGEST_COUNT,
        description="Rows with a prompt of more tokens are dropped; counted only where there is a tokenizer.",
        json_schema_extra={"source": "Wei et al. 2022, section 2.4", "usual": [256, 8192]},
    )
    longest_target: int = Field(
        default=256,
        ge=1,
        le=LARGEST_COUNT,
        description="Rows with a reply of more tokens are dropped; counted only where there is a tokenizer.",
        json_schema_extra={"source": "Wei et al. 2022, section 2.4", "usual": [64, 4096]},
    )
    tokenizer: Text | None = Field(
        default=None,
        description="A tokenizer.json, or a folder with one, that longest_input and longest_target count by; left "
        "out, nothing is too long.",
        json_schema_extra={"source": "the user's model: tokens of another are others"},
    )
    held_out_items: int = Field(
        default=1000,
        ge=1,
        le=LARGEST_COUNT,
        description="The most rows of a held-out task that become evaluation items, drawn by what they hold.",
        json_schema_extra={"source": "our choice: 1,000 items give an interval of 3 points", "usual": [100, 10000]},
    )
    held_out_written: int = Field(
        default=100,
        ge=0,
        le=LARGEST_COUNT,
        description="Of the items with choices of a held-out task, so many are also asked for a reply in words, which "
        "is right where it names the right choice and no other.",
        json_schema_extra={
            "source": "Wei et al. 2022, section 2.3, rank the choices; of replies in words a part is enough, as each "
            "takes as long as some hundred choices",
            "usual": [0, 1000],
        },
    )
    held_out_similarity: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Rows of tasks in training whose inputs are this similar to a held-out row's are dropped (Jaccard "
        "similarity of runs of five words).",
        json_schema_extra={"source": "as curate.near_duplicates.similarity", "usual": [0.5, 1.0]},
    )
    held_out_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="A task in training that has near-duplicates of more than this share of a held-out task's rows "
        "stops the command: it is the same task by another name.",
        json_schema_extra={"source": "our choice: a few rows are chance or a shared source, and go", "usual": [0, 0.1]},
    )

    @model_validator(mode="after")
    def _has_a_form(self) -> Self:
        if not any(getattr(self, form) for form in FORMS):
            raise ValueError(f"has no form with a share; set one of {', '.join(FORMS)}")
        return self


class SynthesizeSettings(Section):
    """How rows are made, a table for each way."""

    tasks: TaskSettings = TaskSettings()

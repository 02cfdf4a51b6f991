"""The `[data]` section: what is trained on, what is replayed beside it, and what rows look like."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tutelage.config.sections import LARGEST_COUNT, Section, Text, TextList

SELF_REPLAY_LABEL = "selfreplay"
"""What the base's own replies are called among the sources of data.replay: <selfreplay:...>."""


class DataSettings(Section):
    """Where the demonstrations are and what they look like."""

    train: TextList = Field(
        description="Files, folders or hub data sets to train on; paths start from the current folder.",
        json_schema_extra={"source": "the user's choice; there is no default"},
    )
    folder: Text | None = Field(
        default=None,
        description="Where relative names of data.train, data.validation and data.replay start from, so that a recipe "
        "takes the files of another place by one word; left out, the current folder.",
        json_schema_extra={"source": "the user's disk"},
    )
    licenses: dict[str, Text] = Field(
        default={},
        description="The license of a source, such as 'tatsu-lab/alpaca' = 'CC-BY-NC-4.0': shown before training, and "
        "kept with the run's settings.",
        json_schema_extra={"source": "the data's owner; what forbids commercial use is marked"},
    )
    published_rows: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_COUNT,
        description="How many rows an epoch of the authors' data has: a plan of the size paper, which reads no data, "
        "counts its steps by it; nothing else reads it.",
        json_schema_extra={"source": "the paper or the data's page, which the recipe names"},
    )
    published_row_tokens: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_COUNT,
        description="The mean tokens of such a row; left out, its plan says how many they are at most.",
        json_schema_extra={"source": "the paper or the data's page, which the recipe names"},
    )
    weights: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(
        default={},
        description="How often an epoch visits the rows of a source of data.train, such as 'small.jsonl' = 2.0; 0.5 "
        "takes half of them, the other half an epoch later; a source without a weight has 1.",
        json_schema_extra={"source": "the user's choice: T5 (Raffel et al. 2020, section 3.5.2) compares mixtures"},
    )
    replay: list[Text] = Field(
        default=[],
        description="Files, folders or hub data sets away from the task, of which some rows are trained on beside it, "
        "so that less is forgotten; paths start from the current folder.",
        json_schema_extra={"source": "the user's choice; none by default"},
    )
    self_replay: list[Text] = Field(
        default=[],
        description="Files or hub data sets of prompts away from the task, with checks or without: the base's own "
        "replies to them, made once before training and checked, join data.replay.",
        json_schema_extra={
            "source": "arXiv 2605.29495 (2026): a model loses less by checked replies of its own than by others'"
        },
    )
    self_replay_tokens: int = Field(
        default=128,
        gt=0,
        le=1_048_576,
        description="Longest of these replies in tokens; a longer one is not replayed.",
        json_schema_extra={"source": "our choice: short general prompts have short replies", "usual": [32, 1024]},
    )
    replay_ratio: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Share of the examples of an epoch that come from data.replay, drawn anew until all were seen; 0 "
        "takes none.",
        json_schema_extra={
            "source": "Bethune et al. 2025 (arXiv 2502.06042): 1 % of pretraining data halts forgetting; 5 % is our "
            "choice, as a task's rows are few",
            "usual": [0.01, 0.2],
        },
    )
    validation: list[Text] = Field(
        default=[],
        description="Files, folders or hub data sets held out to measure loss on, never trained on.",
        json_schema_extra={"source": "the user's choice; none by default"},
    )
    validation_ratio: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the training rows held out to measure loss on, where data.validation is empty.",
        json_schema_extra={"source": "common practice, not from a paper; off by default", "usual": [0.0, 0.2]},
    )
    format: Text = Field(
        default="auto",
        description="How a row is laid out: alpaca, sharegpt, messages, prompt_completion, text or a shape of "
        "docs/formats_shapes.md; auto looks at the keys and values of the rows and says what it found.",
        json_schema_extra={"source": "layouts in common use; each shape names where it was seen"},
    )
    tree_paths: Literal["kept", "all"] = Field(
        default="kept",
        description="Of a row that is a tree of messages, such as an exported chat with regenerated replies: the path "
        "that was kept, or all paths, each reply trained once.",
        json_schema_extra={"source": "our choice: what a person went on with is what was wanted"},
    )
    columns: dict[str, Text] = Field(
        default={},
        description="Which column holds which part of a row, such as prompt = 'question' and response = 'answer'.",
        json_schema_extra={"source": "the user's data; empty means the usual column names"},
    )
    max_rows: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="Use at most this many training rows; left out, all of them.",
        json_schema_extra={"source": "for trials; no limit by default"},
    )
    workers: int | None = Field(
        default=None,
        gt=0,
        le=1024,
        description="Processes that prove rows, where there are many; left out, one for each core, up to 4.",
        json_schema_extra={"source": "measured: benchmarks/prepare; a worker holds about 100 MB", "usual": [1, 8]},
    )
    strict: bool = Field(
        default=False,
        description="Stop at the first row that would be dropped, instead of counting it and going on.",
        json_schema_extra={"source": "our choice: a bad row is counted and shown, and does not end a run"},
    )

    @property
    def replayed(self) -> list[str]:
        """The sources that rows are replayed from; none where their share is 0."""
        return self.replay if self.replay_ratio > 0 else []

    @property
    def replays(self) -> bool:
        """Whether something is named to replay."""
        return bool(self.replay or self.self_replay)

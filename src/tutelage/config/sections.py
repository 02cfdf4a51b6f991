"""The sections of a recipe that say what is trained, and how rows become sequences: model, render, pack, evaluate.

Every field carries one sentence, its source, and `usual` (low and high, or words where the range depends on another
field). Bounds in `Field` are refused; values outside `usual` are only questioned.
"""

from __future__ import annotations

import re
import tomllib
from datetime import date as calendar_date
from datetime import datetime
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator

Text = Annotated[str, StringConstraints(min_length=1)]
TextList = Annotated[list[Text], Field(min_length=1)]

LARGEST_COUNT = 2**31 - 1
"""What the 32-bit numbers hold that rows, places and positions are counted in."""


class Section(BaseModel):
    """One table of the recipe: frozen, no unknown keys, no silent conversions, no NaN or Inf."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class ModelSettings(Section):
    """Which model is trained, and how much of it."""

    name: Text = Field(
        description="The model to start from: a local folder, a hub id such as owner/name, an adapter's folder, or a "
        "run, whose trained model or adapter is then the start.",
        json_schema_extra={"source": "the user's choice; there is no default"},
    )
    accept_license: Literal["gemma"] | None = Field(
        default=None,
        description="Says, once on a machine, that you accept the terms of a model that comes under no open-source "
        "license; the error that asks for it says what they are, and TUTELAGE_ACCEPT_LICENSE does as well.",
        json_schema_extra={"source": "the model's own terms: nobody but its user can accept them"},
    )
    method: Literal["full", "lora", "qlora", "prompt"] = Field(
        default="lora",
        description="Train all weights (full), low-rank matrices beside frozen weights (lora), the same beside "
        "weights in 4 bits (qlora), or the embeddings of a few tokens in front (prompt).",
        json_schema_extra={
            "source": "Hu et al. 2021 (LoRA), section 4; Dettmers et al. 2023 (QLoRA), section 3; Lester et al. 2021 "
            "(prompt tuning), section 2; lora is the default as it needs far less memory than full"
        },
    )
    adapter: Literal["merge", "continue"] = Field(
        default="merge",
        description="Where model.name is an adapter, or a run that trained one: fold it into its base and begin anew "
        "(merge), or train that same adapter on (continue).",
        json_schema_extra={
            "source": "Hu et al. 2021 (LoRA), section 4: a pair can be added to its weight; merge is the default as "
            "it goes before every method"
        },
    )
    add_tokens: list[Text] = Field(
        default=[],
        description="Texts that become tokens of their own, with new rows in the embedding and the output head; the "
        "rows have to learn (full fine-tuning, or lora.modules_to_save).",
        json_schema_extra={"source": "the user's choice; none by default"},
    )
    add_tokens_start: Literal["mean", "pieces"] = Field(
        default="mean",
        description="What the rows of model.add_tokens start as: the mean of all rows, or of those of the pieces that "
        "the text was encoded as before.",
        json_schema_extra={"source": "Hewitt 2021 (mean of all rows); Yao et al. 2021, section 3.2 (of the pieces)"},
    )
    freeze: list[Text] = Field(
        default=[],
        description="Weights that stay as they are in full fine-tuning: parts of their names, * for any characters, "
        'such as "embed_tokens" or "layers.0.*".',
        json_schema_extra={"source": "the user's choice; full fine-tuning trains everything by default"},
    )
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto",
        description="Number format of the computation, auto taking bf16 where the hardware multiplies it; "
        "trained weights and optimizer state stay in fp32 either way.",
        json_schema_extra={
            "source": "Micikevicius et al. 2018, section 3.1 (fp32 master weights); Kalamkar et al. 2019"
        },
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Let the model's repository run its own Python code on this computer.",
        json_schema_extra={"source": "off by default for safety, as in Transformers"},
    )
    compile: bool = Field(
        default=False,
        description="Compile the feed-forward part and the norms of each layer with torch.compile: the first steps "
        "take minutes, later ones may be faster.",
        json_schema_extra={
            "source": "PyTorch's torch.compile; off, as the first steps take long for a tenth at most (docs/log.md)"
        },
    )
    parallel: Literal["auto", "shard", "replicate"] = Field(
        default="auto",
        description="What each of several processes keeps: a part of the model (shard) or all of it (replicate); auto "
        "shards where the method and the optimizer can be cut apart.",
        json_schema_extra={
            "source": "Zhao et al. 2023 (PyTorch FSDP); Li et al. 2020 (PyTorch Distributed), section 3 (replicas)"
        },
    )
    threads: int | None = Field(
        default=None,
        gt=0,
        le=4096,
        description="Processor threads for the computation; left out, PyTorch decides.",
        json_schema_extra={"source": "PyTorch's torch.set_num_threads"},
    )


class RenderSettings(Section):
    """How a conversation becomes tokens, and which of them are trained."""

    template: Text | None = Field(
        default=None,
        description="A Jinja file, or a format by name (such as chatml); left out, the tokenizer's own template.",
        json_schema_extra={"source": "the tokenizer's own, so that training sees what a server will feed"},
    )
    template_arguments: dict[str, Any] = Field(
        default={},
        description="Extra values for the chat template, such as enable_thinking = false.",
        json_schema_extra={"source": "the chosen template's own documentation"},
    )
    train_on: Literal["replies", "all"] = Field(
        default="replies",
        description="Train on the assistant's replies only, or on every token.",
        json_schema_extra={"source": "Dettmers et al. 2023 (QLoRA), table 10: training on prompts too scores lower"},
    )
    turns: Literal["all", "last"] = Field(
        default="all",
        description="Train on every assistant turn of a conversation, or on the last one only.",
        json_schema_extra={"source": "common practice for conversations with several turns"},
    )
    control_tokens: Literal["drop", "escape", "keep"] = Field(
        default="drop",
        description="When a row's text spells out a control token: drop the row, escape it (encode its characters as "
        "ordinary text), or keep it as the tokenizer reads it.",
        json_schema_extra={"source": "our choice: text in the data must not be able to fake a turn"},
    )
    missing_stop: Literal["append", "drop"] = Field(
        default="append",
        description="When the template ends a reply without a token the model stops on: append the stop token to the "
        "trained reply (the ledger says so), or drop the row.",
        json_schema_extra={"source": "our choice: a reply without its end teaches a model not to stop"},
    )
    empty_reasoning: Literal["drop", "close"] = Field(
        default="drop",
        description="When the served prompt opens a block of reasoning and a turn has none: drop the row, or close the "
        "block empty and train that.",
        json_schema_extra={"source": "our choice: whether a model should learn to skip reasoning is for people to say"},
    )
    closed_reasoning: Literal["drop", "open"] = Field(
        default="drop",
        description="When the served prompt closes the block of reasoning that a turn needs: drop the row, or render "
        "it with the template's argument that leaves the block open, which its server must then be asked with.",
        json_schema_extra={"source": "our choice: which requests a server is to reason on is for people to say"},
    )
    reasoning_field: Literal["auto", "reasoning_content", "reasoning", "thinking", "content"] = Field(
        default="auto",
        description="The field in which the template is handed a turn's reasoning: auto finds the one it writes; "
        "content makes it a part of the content, as the templates of Mistral's reasoning models want it.",
        json_schema_extra={"source": "the chosen template: what a server hands to it"},
    )
    stop_tokens: list[Text] = Field(
        default=[],
        description="Further tokens that end a reply, beside those of the model's generation settings; they are "
        "written into the trained model's settings.",
        json_schema_extra={"source": "the chosen template: for a base model that is to be served with it"},
    )
    date: str = Field(
        default="2026-01-01",
        description="The day (YYYY-MM-DD) that templates see as today, so that a rerun gives the same tokens.",
        json_schema_extra={"source": "our choice: any fixed day makes reruns equal"},
    )

    @field_validator("template_arguments")
    @classmethod
    def _has_toml_values_only(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        problem = "should hold only text, finite numbers, true/false, dates, lists and tables"
        try:
            read_back = tomllib.loads(tomli_w.dumps(arguments))
        except (TypeError, AttributeError) as error:
            raise ValueError(problem) from error
        if read_back != arguments:
            raise ValueError(problem)
        return arguments

    @field_validator("date", mode="before")
    @classmethod
    def _accepts_unquoted_day(cls, value: object) -> object:
        if isinstance(value, calendar_date) and not isinstance(value, datetime):
            return value.isoformat()
        return value

    @field_validator("date")
    @classmethod
    def _is_a_day(cls, value: str) -> str:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise ValueError("should be a day written YYYY-MM-DD")
        try:
            calendar_date.fromisoformat(value)
        except ValueError as error:
            raise ValueError("should be a day that the calendar has") from error
        return value


class PackSettings(Section):
    """How long one example and one packed row may be."""

    max_seq_length: int = Field(
        default=1024,
        gt=1,
        le=LARGEST_COUNT,
        description="Longest example in tokens; pack.too_long says what becomes of a longer one.",
        json_schema_extra={
            "source": "Alpaca trains on 512 tokens, LIMA (Zhou et al. 2023, section 3) on 2048",
            "usual": [512, 8192],
        },
    )
    too_long: Literal["drop", "cut", "split"] = Field(
        default="drop",
        description="What becomes of a longer example: drop counts it and lets it go, cut keeps the trained turns that "
        "end within the limit, split does the same and divides plain documents into several.",
        json_schema_extra={
            "source": "our choice: a reply is trained to its stop or not at all, and whatever goes is counted"
        },
    )
    row_tokens: int | None = Field(
        default=None,
        gt=1,
        le=LARGEST_COUNT,
        description="Most tokens in one packed row, which is one forward pass and sets the memory a step needs; left "
        "out, 1,024 on a CPU and 4,096 on a GPU, or pack.max_seq_length where that is more.",
        json_schema_extra={
            "source": "Krell et al. 2021 (packing without cross-contamination); as large as memory allows"
        },
    )
    share_prefixes: bool | None = Field(
        default=None,
        description="Compute a beginning that examples of a packed row have in common, such as a system prompt or a "
        "list of tools, once: the same loss and gradients, fewer tokens; left out, on a CPU alone, as a GPU's fastest "
        "attention takes rows without.",
        json_schema_extra={
            "source": "exact for causal attention; measured in benchmarks/train; off by itself where dropout is drawn"
        },
    )


Checker = Literal[
    "json_fields",
    "exact_match",
    "normalized_match",
    "token_f1",
    "rouge_l",
    "number",
    "json",
    "tool_calls",
    "tool_names",
]


def _is_moment(value: float) -> float:
    if value >= 1 and value != int(value):
        raise ValueError("should be a fraction below 1, or a whole number of steps")
    return value


Moment = Annotated[float, Field(gt=0, le=LARGEST_COUNT), AfterValidator(_is_moment)]
"""Below 1 a fraction of all steps of a run; from 1 so many steps."""


class EvaluateSettings(Section):
    """What is measured besides loss: skill at the task, and what was forgotten."""

    task: list[Text] = Field(
        default=[],
        description="Files or hub data sets of the task itself: answers are generated and compared with the reference.",
        json_schema_extra={"source": "the user's choice; none by default"},
    )
    general: list[Text] = Field(
        default=[],
        description="Files away from the task, or `probes` (`probes/facts` for a part), to see what the model forgot.",
        json_schema_extra={
            "source": "Luo et al. 2023 (forgetting in fine-tuning) measures general skills before and after"
        },
    )
    general_text: list[Text] = Field(
        default=[],
        description="Files, folders or hub data sets of text away from the task, whose loss shows what was forgotten; "
        "each text is cut at pack.max_seq_length.",
        json_schema_extra={"source": "the user's choice; none by default"},
    )
    checkers: list[Checker] = Field(
        default=[],
        description="How the task's replies are scored beside the reference; left out, JSON by its fields where every "
        "reference is a JSON object, calls where any reference makes one, exact match and ROUGE-L elsewhere.",
        json_schema_extra={"source": "SQuAD (Rajpurkar et al. 2016), ROUGE (Lin 2004), GSM8K (Cobbe et al. 2021)"},
    )
    lm_eval: list[Text] = Field(
        default=[],
        description="Tasks of lm-eval (an extra) by name, or YAML files with one, asked before and after.",
        json_schema_extra={"source": "EleutherAI's lm-evaluation-harness 0.4.13; the user's choice, none by default"},
    )
    lm_eval_prompts: Literal["served", "plain"] = Field(
        default="served",
        description="How tasks of lm-eval are asked: served by the model's chat template, few-shot examples as turns, "
        "or as plain text, as base models are in published tables.",
        json_schema_extra={"source": "our choice: what is fine-tuned is served by its template"},
    )
    lm_eval_items: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="The first so many items of each task of lm-eval; left out, all of them.",
        json_schema_extra={"source": "the user's choice; fewer items show less"},
    )
    unisolated_code: bool = Field(
        default=False,
        description="Run the code of replies with limits alone where the system does not permit to isolate it; it can "
        "then read, write and reach what you can.",
        json_schema_extra={"source": "our choice: code that a model wrote is kept apart, or is not run"},
    )
    before: bool = Field(
        default=True,
        description="Also measure the model before training, so that gains and losses can be shown.",
        json_schema_extra={"source": "our choice: without it no change can be reported"},
    )
    measure_at: list[Moment] = Field(
        default=[],
        description="When the model is measured while it trains: fractions of the run such as 0.5, or steps such as "
        "200; task, general set, held-out rows and the divergence from the base.",
        json_schema_extra={
            "source": "the user's choice; none by default, as each costs about what measuring after training costs"
        },
    )
    measure_every: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="Steps between such measurements; takes the place of evaluate.measure_at.",
        json_schema_extra={"source": "the user's choice; none by default"},
    )
    max_new_tokens: int = Field(
        default=96,
        gt=0,
        le=1_048_576,
        description="Longest generated answer in tokens; a longer one is cut there.",
        json_schema_extra={
            "source": "our choice: enough for short answers; raise it for reasoning",
            "usual": [16, 2048],
        },
    )
    batch_prompts: int = Field(
        default=32,
        gt=0,
        le=1_048_576,
        description="Prompts answered side by side; changes speed and memory, not what is measured.",
        json_schema_extra={"source": "our choice: fits small models on one device", "usual": [1, 256]},
    )
    divergence_prompts: int = Field(
        default=32,
        ge=0,
        le=LARGEST_COUNT,
        description="Task prompts, and as many general ones, whose replies by the base show how far training moves the "
        "model from it (KL divergence); 0 measures nothing.",
        json_schema_extra={
            "source": "Shenfeld et al. 2025 (RL's Razor): the KL divergence on the task's prompts predicts forgetting; "
            "the number is our choice",
            "usual": [0, 256],
        },
    )
    noise_prompts: int = Field(
        default=24,
        ge=0,
        le=LARGEST_COUNT,
        description="Prompts that the untouched model is asked again in other batches, to see how many replies and "
        "verdicts turn by rounding alone; 0 asks none again.",
        json_schema_extra={
            "source": "Yuan et al. 2025 (arXiv:2506.09501): greedy replies in bf16 differ by batch size; the number is "
            "our choice",
            "usual": [0, 200],
        },
    )
    examples: int = Field(
        default=3,
        ge=0,
        le=LARGEST_COUNT,
        description="Generated answers shown in full in the report.",
        json_schema_extra={"source": "our choice: enough to see the style, short enough to read", "usual": [0, 20]},
    )

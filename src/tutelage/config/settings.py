"""All sections together, what is resolved from several of them, and the contradictions between them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from tutelage.config.sections import (
    DataSettings,
    EvaluateSettings,
    LoraSettings,
    ModelSettings,
    PackSettings,
    RenderSettings,
    Section,
)
from tutelage.config.training import TrainSettings

UNNAMED_RUN = "run"
DEFAULT_LEARNING_RATES = {"full": 2e-5, "lora": 2e-4}
"""Source: Alpaca (full fine-tuning); QLoRA, Dettmers et al. 2023, table 9 (LoRA)."""

CONTRADICTION = "contradiction"


class Settings(Section):
    """Everything a run is told, checked. `load` and `from_mapping` give it resolved: name and learning rate are set."""

    name: Annotated[str, StringConstraints(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")] | None = Field(
        default=None,
        description="Name of the run and of its folder; left out, the recipe's file name without its ending.",
        json_schema_extra={"source": "our choice: a run is found by the recipe that made it"},
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="Start of every random choice: order of examples, adapter weights, held-out rows, dropout.",
        json_schema_extra={"source": "any number will do; the same number gives the same run"},
    )
    folder: str = Field(
        default="runs",
        min_length=1,
        description="Folder for runs; this run lands in a folder with its name inside it.",
        json_schema_extra={"source": "our choice; starts from the current folder"},
    )
    model: ModelSettings
    lora: LoraSettings = LoraSettings()
    data: DataSettings
    render: RenderSettings = RenderSettings()
    pack: PackSettings = PackSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @property
    def run_folder(self) -> Path:
        """Where everything of this run is written."""
        return Path(self.folder) / (self.name or UNNAMED_RUN)

    @property
    def peak_learning_rate(self) -> float:
        """`train.learning_rate`, or the default for the method where it was left out.

        Source: LIMA and Alpaca for full fine-tuning, QLoRA table 9 for LoRA; see `train.learning_rate`.
        """
        if self.train.learning_rate is not None:
            return self.train.learning_rate
        return DEFAULT_LEARNING_RATES[self.model.method]

    def resolved(self) -> Settings:
        """The same settings with the run name and the learning rate filled in."""
        train = self.train.model_copy(update={"learning_rate": self.peak_learning_rate})
        return self.model_copy(update={"name": self.name or UNNAMED_RUN, "train": train})

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Self:
        found = contradictions(self)
        if found:
            text = "; ".join(f"{one.paths[0]}: {one.problem}" for one in found)
            # Braces would be read as a message template.
            raise PydanticCustomError(CONTRADICTION, "{text}", {"text": text})
        return self


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Values that are fine alone and cannot work together; `paths` names them, the first one leads the report."""

    paths: tuple[str, ...]
    problem: str


def contradictions(settings: Settings, *, ignore: Collection[str] = ()) -> list[Contradiction]:
    """Every contradiction between the fields of `settings`, in recipe order.

    Args:
        settings: may hold only the valid fields of a broken recipe; the required ones are not looked at.
        ignore: dotted paths whose values are wrong already; contradictions that involve them are left out.
    """
    model, lora, data, pack, train = settings.model, settings.lora, settings.data, settings.pack, settings.train
    found: list[Contradiction] = []
    if model.method == "full" and lora.model_fields_set:
        paths = tuple(f"lora.{name}" for name in LoraSettings.model_fields if name in lora.model_fields_set)
        problem = 'is set, but model.method = "full" reads nothing from [lora]; remove it, or set model.method = "lora"'
        found += [Contradiction((path, "model.method"), problem) for path in paths]
    if strangers := [name for name in data.weights if name not in data.train]:
        problem = f"names {', '.join(strangers)}; the sources in data.train are {', '.join(data.train)}"
        found.append(Contradiction(("data.weights", "data.train"), problem))
    if data.validation and data.validation_share > 0:
        problem = "is set, and so is data.validation; keep one of them"
        found.append(Contradiction(("data.validation_share", "data.validation"), problem))
    if pack.row_tokens < pack.max_tokens:
        given = "" if "row_tokens" in pack.model_fields_set else " by default"
        problem = (
            f"is {pack.row_tokens}{given}, less than pack.max_tokens = {pack.max_tokens}; raise it at least to that"
        )
        found.append(Contradiction(("pack.row_tokens", "pack.max_tokens"), problem))
    if train.warmup_steps is not None and "warmup_share" in train.model_fields_set:
        problem = "is set, and so is train.warmup_share; keep one of them"
        found.append(Contradiction(("train.warmup_steps", "train.warmup_share"), problem))
    if train.early_stop_patience is not None and not data.validation and data.validation_share == 0:
        problem = "is set, but nothing is held out; set data.validation or data.validation_share"
        paths = ("train.early_stop_patience", "data.validation", "data.validation_share")
        found.append(Contradiction(paths, problem))
    found += [
        Contradiction(
            (f"train.{name}", "train.optimizer"), 'is set, but train.optimizer = "adafactor" does not read it'
        )
        for name in unread_by_optimizer(train)
        if name in train.model_fields_set
    ]
    return [one for one in found if not set(one.paths) & set(ignore)]


def unread_by_optimizer(train: TrainSettings) -> tuple[str, ...]:
    """Fields of `[train]` that the chosen optimizer reads nothing from.

    Source: Adafactor keeps no first moment, and its second has a decay of its own (Shazeer and Stern 2018, section 7).
    """
    return ("beta1", "beta2", "epsilon") if train.optimizer == "adafactor" else ()

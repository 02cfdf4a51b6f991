"""All sections together, what is resolved from several of them, and the contradictions between them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tutelage.config.curation import CurateSettings
from tutelage.config.data import DataSettings
from tutelage.config.method import DATA_DRIVEN_INITS, LoraSettings, PromptSettings, QloraSettings
from tutelage.config.sections import (
    EvaluateSettings,
    ModelSettings,
    PackSettings,
    RenderSettings,
    Section,
)
from tutelage.config.synthesis import SynthesizeSettings
from tutelage.config.training import TrainSettings

UNNAMED_RUN = "run"
LONGEST_NAME_BYTES = 200
"""File systems take 255 for a name; what is made beside a run's folder has a few more than the run."""
DEFAULT_LEARNING_RATES = {"full": 2e-5, "lora": 2e-4, "qlora": 2e-4, "prompt": 3e-2}
"""Source: Alpaca (full fine-tuning); QLoRA, Dettmers et al. 2023, table 9 (LoRA and QLoRA); PEFT's guide to prompt
tuning with AdamW (prompt). Lester et al. 2021, section 3, use 0.3 with Adafactor, whose steps are relative."""
READS = {"lora": ("lora",), "qlora": ("lora", "qlora"), "prompt": ("prompt",), "full": ()}
"""The sections that each method reads of those that belong to a method."""

STARTS_BESIDE_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Beginnings of `lora.init` whose pairs add something at the start."""

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
    size: Literal["paper", "laptop"] | None = Field(
        default=None,
        description="Which size of a recipe with the tables [size.paper] and [size.laptop] this is: its table is laid "
        "over what the recipe says besides; --size chooses, and without a word it is laptop.",
        json_schema_extra={
            "source": "our choice: paper is what was published, laptop the same pipeline on 2 cores within 30 minutes"
        },
    )
    model: ModelSettings
    lora: LoraSettings = LoraSettings()
    qlora: QloraSettings = QloraSettings()
    prompt: PromptSettings = PromptSettings()
    data: DataSettings
    synthesize: SynthesizeSettings = SynthesizeSettings()
    curate: CurateSettings = CurateSettings()
    render: RenderSettings = RenderSettings()
    pack: PackSettings = PackSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str | None) -> str | None:
        if name is not None and len(name.encode("utf-8")) > LONGEST_NAME_BYTES:
            raise ValueError(f"should be at most {LONGEST_NAME_BYTES} bytes long")
        if name is not None and not name.isprintable():
            raise ValueError("should be one folder name without line ends or control characters")
        return name

    @property
    def run_folder(self) -> Path:
        """Where everything of this run is written."""
        return Path(self.folder) / (self.name or UNNAMED_RUN)

    @property
    def peak_learning_rate(self) -> float:
        """`train.learning_rate`, or the default for the method where it was left out.

        Source: LIMA and Alpaca for full fine-tuning, QLoRA table 9 for LoRA, PEFT's guide for prompt
        tuning; see `train.learning_rate`.
        """
        if self.train.learning_rate is not None:
            return self.train.learning_rate
        return DEFAULT_LEARNING_RATES[self.model.method]

    @property
    def splits_validation(self) -> bool:
        """Whether curation sets rows apart to measure held-out loss on."""
        takes_split = "curate" in self.model_fields_set and "split" in self.curate.steps
        return takes_split and self.curate.split.validation > 0

    @property
    def holds_out(self) -> bool:
        """Whether there are rows to measure held-out loss on."""
        return bool(self.data.validation) or self.data.validation_ratio > 0 or self.splits_validation

    def resolved(self) -> Settings:
        """The same settings with the run name and the learning rate filled in."""
        train = self.train.model_copy(update={"learning_rate": self.peak_learning_rate})
        return self.model_copy(update={"name": self.name or UNNAMED_RUN, "train": train})

    @model_validator(mode="after")
    def _has_no_contradictions(self) -> Self:
        conflicts = contradictions(self)
        if conflicts:
            text = "; ".join(f"{conflict.paths[0]}: {conflict.problem}" for conflict in conflicts)
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
    data, pack, train = settings.data, settings.pack, settings.train
    conflicts = _method_contradictions(settings)
    if unknown_sources := [name for name in data.weights if name not in data.train]:
        problem = f"names {', '.join(unknown_sources)}; the sources in data.train are {', '.join(data.train)}"
        conflicts.append(Contradiction(("data.weights", "data.train"), problem))
    if "replay_ratio" in data.model_fields_set and not data.replays:
        problem = "is set, but data.replay names nothing to take from; set data.replay, or remove it"
        conflicts.append(Contradiction(("data.replay_ratio", "data.replay"), problem))
    if asked := [name for name in data.self_replay if name in settings.evaluate.general]:
        problem = f"names {', '.join(asked)}, and so does evaluate.general, which must not be trained on"
        conflicts.append(Contradiction(("data.self_replay", "evaluate.general"), problem))
    if both := [name for name in data.replay if name in data.train]:
        problem = f"names {', '.join(both)}, and so does data.train, which takes every row of it; keep one of them"
        conflicts.append(Contradiction(("data.replay", "data.train"), problem))
    if settings.splits_validation and (data.validation or data.validation_ratio > 0):
        other = "data.validation" if data.validation else "data.validation_ratio"
        problem = f"is above 0, and so rows are held out; {other} is set, too: keep one of them"
        conflicts.append(Contradiction(("curate.split.validation", other), problem))
    if data.validation and data.validation_ratio > 0:
        problem = "is set, and so is data.validation; keep one of them"
        conflicts.append(Contradiction(("data.validation_ratio", "data.validation"), problem))
    if pack.row_tokens is not None and pack.row_tokens < pack.max_seq_length:
        problem = (
            f"is {pack.row_tokens}, less than pack.max_seq_length = {pack.max_seq_length}; raise it at least to that"
        )
        conflicts.append(Contradiction(("pack.row_tokens", "pack.max_seq_length"), problem))
    if train.warmup_steps is not None and "warmup_ratio" in train.model_fields_set:
        problem = "is set, and so is train.warmup_ratio; keep one of them"
        conflicts.append(Contradiction(("train.warmup_steps", "train.warmup_ratio"), problem))
    if train.early_stopping_patience is not None and not settings.holds_out:
        problem = "is set, but nothing is held out; set data.validation or data.validation_ratio"
        paths = ("train.early_stopping_patience", "data.validation", "data.validation_ratio")
        conflicts.append(Contradiction(paths, problem))
    conflicts += _pull_contradictions(settings) + _divergence_contradictions(settings)
    conflicts += _measuring_contradictions(settings)
    conflicts += [
        Contradiction(
            (f"train.{name}", "train.optimizer"), 'is set, but train.optimizer = "adafactor" does not read it'
        )
        for name in unread_by_optimizer(train)
        if name in train.model_fields_set
    ]
    return [conflict for conflict in conflicts if not set(conflict.paths) & set(ignore)]


def _measuring_contradictions(settings: Settings) -> list[Contradiction]:
    """Measurements while training that would show nothing, and a stop by what none of them measures."""
    evaluate, conflicts = settings.evaluate, []
    if evaluate.measure_at and evaluate.measure_every is not None:
        problem = "is set, and so is evaluate.measure_at; keep one of them"
        conflicts.append(Contradiction(("evaluate.measure_every", "evaluate.measure_at"), problem))
    path = "evaluate.measure_at" if evaluate.measure_at else "evaluate.measure_every"
    measures = evaluate.measure_at or evaluate.measure_every is not None
    if measures and not evaluate.before:
        problem = "is set, but evaluate.before = false leaves nothing to hold it against; set it to true"
        conflicts.append(Contradiction((path, "evaluate.before"), problem))
    if measures and not (evaluate.task or evaluate.general or evaluate.general_text or evaluate.lm_eval):
        problem = "is set, but nothing is asked; set evaluate.task or evaluate.general"
        asked = ("evaluate.task", "evaluate.general", "evaluate.general_text", "evaluate.lm_eval")
        conflicts.append(Contradiction((path, *asked), problem))
    if settings.train.early_stopping_forgetting is None:
        return conflicts
    if not measures:
        problem = "is set, but nothing is measured while training; set evaluate.measure_at or evaluate.measure_every"
        paths = ("train.early_stopping_forgetting", "evaluate.measure_at", "evaluate.measure_every")
        conflicts.append(Contradiction(paths, problem))
    if not evaluate.general:
        problem = 'is set, but evaluate.general is empty; set it, to "probes" for instance'
        conflicts.append(Contradiction(("train.early_stopping_forgetting", "evaluate.general"), problem))
    return conflicts


def _pull_contradictions(settings: Settings) -> list[Contradiction]:
    """What `train.l2_to_base` cannot work with: starts that are not the base, and steps that jump over it."""
    strength, method, lora = settings.train.l2_to_base, settings.model.method, settings.lora
    if strength is None:
        return []
    conflicts = _other_starts(settings, "train.l2_to_base")
    if method == "prompt":
        problem = 'is set, but model.method = "prompt" leaves the weights of the model as they are; remove it'
        conflicts.append(Contradiction(("train.l2_to_base", "model.method"), problem))
    if method in ("lora", "qlora") and lora.dora:
        problem = "is set, but with lora.dora the base is not where the pair adds nothing; remove one of them"
        conflicts.append(Contradiction(("train.l2_to_base", "lora.dora", "model.method"), problem))
    if strength * settings.peak_learning_rate > 1:
        problem = (
            f"is {strength:g}, which times the learning rate of {settings.peak_learning_rate:g} is more than 1: each "
            "step would jump over the base; lower it"
        )
        conflicts.append(Contradiction(("train.l2_to_base", "train.learning_rate", "model.method"), problem))
    return conflicts


def _divergence_contradictions(settings: Settings) -> list[Contradiction]:
    """What `train.kl_to_base` cannot work with: nothing that is replayed, or no base behind the model."""
    if settings.train.kl_to_base is None:
        return []
    method, conflicts = settings.model.method, _other_starts(settings, "train.kl_to_base")
    if not settings.data.replays or settings.data.replay_ratio == 0:
        problem = "is set, but nothing is replayed, on which it would hold the model to its base; set data.replay"
        paths = ("train.kl_to_base", "data.replay", "data.self_replay", "data.replay_ratio")
        conflicts.append(Contradiction(paths, problem))
    if method == "prompt":
        problem = 'is set, but with model.method = "prompt" the model stays its base; remove it'
        conflicts.append(Contradiction(("train.kl_to_base", "model.method"), problem))
    if settings.lora.modules_to_save:
        problem = "is set, but lora.modules_to_save trains modules of the base itself; remove one of them"
        conflicts.append(Contradiction(("train.kl_to_base", "lora.modules_to_save"), problem))
    return conflicts


def _other_starts(settings: Settings, path: str) -> list[Contradiction]:
    """Where a model without its adapter is not the base that the run starts from."""
    conflicts, init = [], settings.lora.init
    if settings.model.method in ("lora", "qlora") and init.startswith(STARTS_BESIDE_BASE):
        problem = f'is set, but with lora.init = "{init}" a pair of nothing is not the base; choose another'
        conflicts.append(Contradiction((path, "lora.init", "model.method"), problem))
    if settings.model.adapter == "continue":
        problem = 'is set, but model.adapter = "continue" starts from an adapter, which is not the base; use "merge"'
        conflicts.append(Contradiction((path, "model.adapter"), problem))
    return conflicts


def unread_by_optimizer(train: TrainSettings) -> tuple[str, ...]:
    """Fields of `[train]` that the chosen optimizer reads nothing from.

    Source: Adafactor keeps no first moment, and its second has a decay of its own (Shazeer and Stern 2018, section 7).
    """
    return ("beta1", "beta2", "epsilon") if train.optimizer == "adafactor" else ()


def _method_contradictions(settings: Settings) -> list[Contradiction]:
    """Settings that the chosen method does not read, or that its parts cannot do together."""
    method, lora = settings.model.method, settings.lora
    conflicts: list[Contradiction] = []
    sections: dict[str, Section] = {"lora": lora, "qlora": settings.qlora, "prompt": settings.prompt}
    for name, section in sections.items():
        if name in READS[method]:
            continue
        problem = (
            f'is set, but model.method = "{method}" reads nothing from [{name}]; remove it, or set '
            f'model.method = "{name}"'
        )
        fields = [model_field for model_field in type(section).model_fields if model_field in section.model_fields_set]
        conflicts += [Contradiction((f"{name}.{field}", "model.method"), problem) for field in fields]
    if settings.model.freeze and method != "full":
        problem = f'is set, but model.method = "{method}" freezes every weight of the model; remove it'
        conflicts.append(Contradiction(("model.freeze", "model.method"), problem))
    kind = "pissa" if lora.init.startswith("pissa") else lora.init
    if method == "qlora" and kind in ("pissa", "olora", "mica", "corda", "lora_ga"):
        problem = f'is "{lora.init}", which reads the weights that qlora has rounded to 4 bits; choose another'
        conflicts.append(Contradiction(("lora.init", "model.method"), problem))
    if method == "lora" and kind == "loftq":
        problem = 'is "loftq", which makes up for what qlora rounds; choose another, or set model.method = "qlora"'
        conflicts.append(Contradiction(("lora.init", "model.method"), problem))
    if "init_tokens" in lora.model_fields_set and kind not in DATA_DRIVEN_INITS and "lora" in READS[method]:
        problem = f'is set, but lora.init = "{lora.init}" looks at no data; remove it'
        conflicts.append(Contradiction(("lora.init_tokens", "lora.init"), problem))
    if lora.dora and kind in ("pissa", "olora", "mica", "corda", "lora_ga", "loftq"):
        problem = f'is set, and so is lora.init = "{lora.init}"; with both the start is not the base, choose one'
        conflicts.append(Contradiction(("lora.dora", "lora.init"), problem))
    return conflicts

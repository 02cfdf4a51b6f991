"""What steps ask of a model that reads rows. Curation knows no model: whoever starts it hands over what opens one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.step import StepContext
from tutelage.errors import ConfigError
from tutelage.types import Conversation

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Which model is to read rows, and how.

    Attributes:
        setting: the table of settings that asks for it, for errors: `curate.model_scores`.
        name: short name, folder or hub id.
        template: a Jinja file or a format by name; None takes the model's own.
        max_tokens: of a row; a longer one is not read.
        precision: of the products.
        trust_remote_code: the model's own Python code may run.
    """

    setting: str
    name: str
    template: str | None = None
    max_tokens: int = 2048
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class ReplyLosses:
    """How well a model foresees the replies of a row, its end included.

    Attributes:
        loss: mean cross-entropy of their tokens behind their prompts, in nats.
        alone: of the same tokens, where each reply stands alone behind the opening of an assistant's turn.
        tokens: how many.
    """

    loss: float
    alone: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Unread:
    """Why a model has nothing to say of a row. A `reason` is short and stable, `detail` for people.

    `failed`: the model or the template broke on it.
    """

    reason: str
    detail: str
    failed: bool = False


class ScoringModel(Protocol):
    """A model that reads rows. Answers depend on the rows that are named together only by rounding."""

    @property
    def facts(self) -> dict[str, Any]:
        """All that its answers depend on, for JSON: hashes of weights, tokenizer and template, and versions."""

    @property
    def name(self) -> str:
        """As the user named it."""

    def losses(self, conversations: Sequence[Conversation]) -> list[ReplyLosses | Unread]:
        """Of each row."""

    def vectors(self, conversations: Sequence[Conversation]) -> list[Vector | Unread]:
        """Of each row the mean of the last hidden states of its tokens, in which the t-th counts t times: float32 [D].

        Source: Ivison et al. 2025 (2503.01807), RDS+; Muennighoff 2022 (2202.08904), whose mean it is.
        """


OpenModel: TypeAlias = Callable[[ModelRequest], ScoringModel]
"""Finds the model and all that can be wrong with it; its weights are loaded when it is first asked."""


def open_model(request: ModelRequest, context: StepContext) -> ScoringModel:
    """The model that a step needs.

    Raises:
        ConfigError: whoever started this curation handed over nothing that opens one.
        TutelageError: the model is not there, or cannot be used.
    """
    if context.open_model is None:
        raise ConfigError(
            "This curation was started without what opens models",
            where=request.setting,
            found=f"model = '{request.name}'",
            expected="a curation by `tutelage curate` or by a recipe",
            fix="use CurationRequest(open_model=tutelage.builders.scoring_model.open_scoring_model)",
        )
    model: ScoringModel = context.open_model(request)
    return model

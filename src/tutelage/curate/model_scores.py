"""How well a model foresees each reply, with its prompt and without, and the ratio of both.

The ratio (IFD) is the share of the reply's loss that is left once the prompt is known. Above 1 the prompt makes the
reply less likely: the row is reported, and its ratio stands under another name, as that is a finding about the row and
nothing to sort by. Source: Li et al. 2024 (2308.12032), section 2.2.

Shape legend: N = rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tutelage.config.curation_scores import ModelScoresSettings
from tutelage.curate.block_cache import BlockCache, answers_of
from tutelage.curate.judging import STEP_FAILED
from tutelage.curate.scoring_model import ModelRequest, ReplyLosses, ScoringModel, Unread, open_model
from tutelage.curate.step import Decisions, Here, Progress, StepContext, StepDefinition
from tutelage.curate.store import Rows, StoredRow
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

NAME: Final = "model_scores"
NOT_SCORED, ABOVE_1 = "not_scored", "ifd_above_1"
LOSS, ALONE, IFD = "reply_loss", "reply_loss_alone", "ifd"
DIGITS = 6
"""Behind the point of a loss in nats."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Of the report."""
BINS = 24
"""Of its histograms."""


@dataclass(frozen=True, slots=True)
class ModelScores:
    """The step.

    Attributes:
        model: reads the rows, in this process alone.
        progress: told how many it has read.
        facts: what its answers depend on.
    """

    model: Here[ScoringModel]
    progress: Here[Progress]
    facts: Mapping[str, Any] = field(default_factory=dict)
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """Nothing: one process reads the rows, with one model."""
        import pyarrow as pa

        return pa.record_batch({"nothing": pa.nulls(len(conversations), pa.int8())})

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:  # noqa: ARG002 there are none
        """All rows go on, those with a score with it, but for rows that the model or its template broke on."""
        model, found = self.model.value, _Found()
        title = f"{NAME}: {model.name} reads rows"

        def compute(block: Sequence[StoredRow]) -> bytes:
            answers = model.losses([row.conversation for row in block])
            assert len(answers) == len(block), "a model answers for each row"
            return _encoded(answers)

        def progress(done: int, total: int) -> None:
            self.progress.value(title, done, total)

        for _, content in answers_of(rows, BlockCache.of(NAME, self.facts), compute, progress=progress):
            for answer in _decoded(content):
                found.add(answer)
        keep = np.ones(len(rows), dtype=np.bool_)
        keep[list(found.failed)] = False
        return Decisions(
            keep, dict.fromkeys(found.failed, STEP_FAILED), found.failed, labels=found.labels,
            remarks=found.remarks, report=found.report(model), notes=found.notes(model),
        )  # fmt: skip


def labels_of(losses: ReplyLosses) -> dict[str, float]:
    """What stands in a row's metadata: both losses, rounded, and the ratio; without that where the second is 0."""
    labels = {LOSS: round(losses.loss, DIGITS), ALONE: round(losses.alone, DIGITS)}
    if labels[ALONE]:
        ratio = round(losses.loss / losses.alone, DIGITS)
        labels[IFD if ratio <= 1 else ABOVE_1] = ratio
    return labels


@dataclass(slots=True)
class _Found:
    """What became of the rows so far, by row."""

    rows: int = 0
    labels: dict[int, dict[str, float]] = field(default_factory=dict)
    remarks: dict[int, tuple[str, str]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    unread: Counter[str] = field(default_factory=Counter)

    def add(self, answer: ReplyLosses | Unread) -> None:
        row = self.rows
        self.rows += 1
        if isinstance(answer, Unread):
            if answer.failed:
                self.failed[row] = answer.detail
            else:
                self.unread[answer.reason] += 1
                self.remarks[row] = NOT_SCORED, f"{answer.reason}: {answer.detail}"
            return
        labels = self.labels[row] = labels_of(answer)
        if ABOVE_1 in labels:
            detail = f"{labels[ABOVE_1]:.3f}: loss {labels[LOSS]:.3f} with the prompt, {labels[ALONE]:.3f} without"
            self.remarks[row] = ABOVE_1, detail

    @property
    def above(self) -> int:
        return sum(reason == ABOVE_1 for reason, _ in self.remarks.values())

    def report(self, model: ScoringModel) -> dict[str, Any]:
        quantiles, histograms = {}, {}
        for name in (LOSS, ALONE, IFD):
            values = [labels[name] for labels in self.labels.values() if name in labels]
            counts, edges = np.histogram(values, BINS)
            histograms[name] = {"edges": edges.tolist(), "rows": counts.tolist()} if values else {}
            found = np.quantile(values, QUANTILES).tolist() if values else [None] * len(QUANTILES)
            quantiles[name] = {f"{share:.0%}": value for share, value in zip(QUANTILES, found, strict=True)}
        return {
            "model": {"name": model.name, **model.facts},
            "rows": self.rows,
            "scored": len(self.labels),
            "not_scored": dict(self.unread.most_common()),
            "failed": len(self.failed),
            "ifd_above_1": self.above,
            "quantiles": quantiles,
            "histograms": histograms,
        }

    def notes(self, model: ScoringModel) -> tuple[str, ...]:
        first = f"{NAME}: {model.name} scored {len(self.labels):,} of {self.rows:,} rows"
        if self.unread:
            first += "; not scored: " + ", ".join(f"{count:,} {reason}" for reason, count in self.unread.most_common())
        above = f"{NAME}: in {self.above:,} rows the prompt makes the reply less likely (IFD above 1): see the ledger"
        return (first, above) if self.above else (first,)


def _encoded(answers: Sequence[ReplyLosses | Unread]) -> bytes:
    return json.dumps([asdict(answer) for answer in answers]).encode()


def _decoded(content: bytes) -> list[ReplyLosses | Unread]:
    return [Unread(**each) if "reason" in each else ReplyLosses(**each) for each in json.loads(content)]


def _build(settings: ModelScoresSettings, context: StepContext) -> ModelScores:
    request = ModelRequest(
        f"curate.{NAME}", settings.model, settings.template, settings.most_tokens, settings.precision,
        settings.trust_remote_code,
    )  # fmt: skip
    model = open_model(request, context)
    return ModelScores(Here(model), Here(context.progress), model.facts)


MODEL_SCORES = StepDefinition(
    NAME, "says of each reply how well a model foresees it, with its prompt and without", ModelScoresSettings, _build
)

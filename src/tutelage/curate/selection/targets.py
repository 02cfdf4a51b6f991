"""Rows nearest to examples of what a model is to become good at, each example taking its turn.

The vector of a row is the mean of a pretrained model's last hidden states over the row's tokens, in which the t-th
counts t times. The targets choose one after the other, each the row nearest to it that is not chosen yet, by cosine.
Source: Ivison et al. 2025 (2503.01807), RDS+ and algorithm 1.

Shape legend: N = rows, T = targets, D = numbers of a vector.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage import formats
from tutelage.config.curation_select import SelectSettings
from tutelage.curate.block_cache import BlockCache, answers_of
from tutelage.curate.scoring_model import ModelRequest, ScoringModel, Unread, Vector, open_model
from tutelage.curate.selection.allowance import Allowance
from tutelage.curate.step import Progress, StepContext
from tutelage.curate.store import Rows, StoredRow
from tutelage.curate.text_vectors import Vectors
from tutelage.errors import ConfigError, DataError
from tutelage.ledger import Ledger
from tutelage.types import Conversation

DIGITS = 5
"""Of a similarity that count: processors add up in different orders."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The examples that rows are to be near to, and the model that says how near.

    Attributes:
        rows: T examples.
        model: reads them and the rows.
        progress: told how many rows it has read.
    """

    rows: tuple[Conversation, ...]
    model: ScoringModel
    progress: Progress

    @property
    def facts(self) -> list[Any]:
        """All that similarities depend on beside the rows."""
        return [self.model.facts, [[str(row.address), repr(row.messages)] for row in self.rows]]

    def near(self, rows: Rows) -> Near:
        """How near each row is to each target.

        Raises:
            DataError: the model cannot read a target.
        """
        target_vectors = unit(np.stack([self._of_target(row) for row in self.rows]))
        found = Near(np.full((len(rows), len(self.rows)), np.nan, dtype=np.float32))
        title = f"select: {self.model.name} reads rows"

        def compute(block: Sequence[StoredRow]) -> bytes:
            return _encoded(self.model.vectors([row.conversation for row in block]))

        def progress(done: int, total: int) -> None:
            self.progress(title, done, total)

        start = 0
        cache = BlockCache.of("vectors", self.model.facts)
        for block, content in answers_of(rows, cache, compute, progress=progress):
            vectors, unread = _decoded(content, len(block))
            if len(unread) < len(block):
                found.similarities[start : start + len(block)] = np.round(unit(vectors) @ target_vectors.T, DIGITS)
            found.unread.update({start + place: why for place, why in unread.items()})
            start += len(block)
        return found

    def _of_target(self, row: Conversation) -> Vector:
        (vector,) = self.model.vectors([row])
        if isinstance(vector, Unread):
            raise DataError(
                "A target cannot be read by the model",
                where=str(row.address),
                found=f"{vector.reason}: {vector.detail}",
                fix="mend that row, or leave it out of curate.select.target_rows",
            )
        return vector


@dataclass(frozen=True, slots=True)
class Near:
    """How near rows are to targets.

    Attributes:
        similarities: float32 [N, T]: cosine; NaN for a row that the model could not read.
        unread: why not, by row.
        chosen_for: the target that each chosen row was taken for.
    """

    similarities: NDArray[np.float32]
    unread: dict[int, Unread] = field(default_factory=dict)
    chosen_for: dict[int, int] = field(default_factory=dict)

    def choose(self, allowance: Allowance) -> None:
        """Let the targets take rows in turn, until nothing fits any more."""
        taken = np.zeros(len(self.similarities), dtype=np.bool_)
        taken[allowance.taken] = True
        orders = [_ranked(column) for column in self.similarities.T]
        places = [0] * len(orders)
        takes = True
        while takes and not allowance.is_spent:
            takes = False
            for target, order in enumerate(orders):
                while places[target] < len(order) and not allowance.is_spent:
                    row = int(order[places[target]])
                    places[target] += 1
                    if not taken[row] and allowance.take(row):
                        taken[row] = takes = True
                        self.chosen_for[row] = target
                        break

    def evidence(self, row: int, targets: Sequence[Conversation]) -> str:
        """Of a row that was not chosen: the target it is nearest to."""
        if row in self.unread:
            return f"{self.unread[row].reason}: {self.unread[row].detail}"
        nearest = int(self.similarities[row].argmax())
        return f"nearest target {targets[nearest].address}, similarity {self.similarities[row, nearest]:.3f}"

    def report(self, chosen: Sequence[int], targets: Targets, rows: Rows) -> dict[str, Any]:
        """What was chosen for which target, in the order it was."""
        by_target: list[list[dict[str, Any]]] = [[] for _ in targets.rows]
        for row in chosen:
            target = self.chosen_for[row]
            similarity = round(float(self.similarities[row, target]), DIGITS)
            by_target[target].append({"address": str(rows.address(row)), "similarity": similarity})
        return {
            "method": "rds",
            "model": {"name": targets.model.name, **targets.model.facts},
            "targets": [
                {"address": str(target.address), "chosen": found}
                for target, found in zip(targets.rows, by_target, strict=True)
            ],
        }


def targets_of(settings: SelectSettings, context: StepContext, read: Callable[..., Any] = formats.read) -> Targets:
    """The targets that the settings name, read, and the model, found.

    Raises:
        ConfigError: none are named.
        DataError: the files hold no row.
        SourceNotFoundError: a file is not there; or as `open_model`.
    """
    if not settings.target_rows:
        raise ConfigError(
            "curate.select.method is 'rds', and no examples are named that rows are to be near to",
            where="curate.select.target_rows",
            found="nothing",
            expected="files of rows such as the model is to become good at",
            fix='set curate.select.target_rows = ["FILE"]; never take them from what you will measure on',
        )
    ledger = Ledger()
    rows = tuple(read(settings.target_rows, ledger=ledger))
    if not rows:
        raise DataError(
            "The files of targets hold no row",
            where=", ".join(settings.target_rows),
            found=", ".join(f"{count} {reason}" for reason, count in ledger.dropped.items()) or "nothing",
            expected="at least one row, in any shape that training reads",
            fix="check curate.select.target_rows with: tutelage check FILE",
        )
    request = ModelRequest("curate.select", settings.model, settings.template, settings.most_tokens)
    return Targets(rows, open_model(request, context), context.progress)


def unit(vectors: Vectors) -> Vectors:
    """Each vector scaled to length 1; NaN stays, and so does 0."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _ranked(similarities: NDArray[np.float32]) -> NDArray[np.int64]:
    order = np.argsort(-similarities, kind="stable")  # NaN stands last
    return order[: int((~np.isnan(similarities)).sum())]


def _encoded(answers: Sequence[Vector | Unread]) -> bytes:
    """A line of JSON with those that were not read, and behind it the vectors of the others."""
    unread = {place: asdict(answer) for place, answer in enumerate(answers) if isinstance(answer, Unread)}
    vectors = [answer for answer in answers if not isinstance(answer, Unread)]
    return json.dumps(unread).encode() + b"\n" + b"".join(vector.astype("<f4").tobytes() for vector in vectors)


def _decoded(content: bytes, rows: int) -> tuple[Vectors, Mapping[int, Unread]]:
    head, _, body = content.partition(b"\n")
    unread = {int(place): Unread(**why) for place, why in json.loads(head).items()}
    read = [place for place in range(rows) if place not in unread]
    numbers = np.frombuffer(body, dtype="<f4").reshape(len(read), -1) if read else np.zeros((0, 0), dtype="<f4")
    vectors = np.full((rows, numbers.shape[1]), np.nan, dtype=np.float32)
    vectors[read] = numbers
    return vectors, unread

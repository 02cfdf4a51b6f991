"""What a step of curation is: it judges one row alone, or it must have seen all of them.

A step is built from its settings before any row is read, so that a word list, a model or a package that is missing is
said at once. Row steps travel to worker processes (they are pickled), and answer the same on each of them.

Shape legend: N = rows that reach the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tutelage.config.sections import Section
from tutelage.types import Change, Conversation, Drop

if TYPE_CHECKING:
    import pyarrow as pa

    from tutelage.curate.store import Rows

S = TypeVar("S", bound=Section)
T = TypeVar("T")
NOT_MERGED = -1
Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Told what is being done, how many rows of it are done, and how many there are, None where that is not known."""


@dataclass(frozen=True, slots=True)
class Edited:
    """A row that goes on, altered.

    Attributes:
        conversation: as it goes on.
        changes: what was altered: `detail` says in short what was there and what is there now.
    """

    conversation: Conversation
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """A row that goes on as several, in their order; there is at least one."""

    conversations: tuple[Conversation, ...]
    changes: tuple[Change, ...]


Outcome = Conversation | Edited | Split | Drop


@runtime_checkable
class RowStep(Protocol):
    """Judges a row by itself. What it raises becomes a drop `step_failed`; the other rows go on.

    The detail of a `Drop` is the evidence: words of the row, the passage that was met. A step whose judgement depends
    on more than its settings, such as the content of a file, says so by an attribute `facts` that JSON can hold: what
    was computed before is used again only where they are the same.
    """

    @property
    def name(self) -> str:
        """Its name in `curate.steps`, and of its table of settings."""

    def __call__(self, conversation: Conversation) -> Outcome:
        """What becomes of a row: itself where nothing is to be said about it."""


@runtime_checkable
class ScreenedStep(RowStep, Protocol):
    """A row step that looks at the rows of a chunk together first, and then alone at those that may hold something.

    With or without the first look, what becomes of a row is the same.
    """

    def screen(self, conversations: Sequence[Conversation]) -> NDArray[np.int64]:
        """What each row may hold, in bits of the step's own: int64 [rows]. A row of 0 goes on as it is, unasked."""

    def judged(self, conversation: Conversation, possible: int) -> Outcome:
        """What becomes of a row in which nothing but what `screen` said of it can be."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What became of all rows.

    Attributes:
        keep: bool [N].
        reasons: reason by row, for each row that is dropped and for no other.
        evidence: what shows it, by row, for each row that is dropped.
        merged_into: int64 [N]: the row that stands for this one (its anchor), `NOT_MERGED` for none; None where no row
            is merged. A merged row is not kept.
        order: int64 [M]: the rows that go on, in the order they have from here on, each as often as it is named; None
            keeps the order. Every row in it is kept, and every kept row is in it.
        labels: for kept rows by row a word, such as the split it is in, or numbers by name; it stands in the row's
            metadata under the step's name.
        remarks: what is worth knowing of kept rows, by row: a reason and the evidence; an entry of the ledger each.
        report: what the step found, for JSON; the output has it as a file of the step's name, where it is not empty.
        notes: what is worth saying of all rows together, for who reads the card.
        outside: a hash of what was learned on the way that neither rows nor settings decide, such as answers; what
            comes behind this step is computed anew for another.
        incomplete: why the step could not decide all that it should; it is taken again when the same is asked again.
    """

    keep: NDArray[np.bool_]
    reasons: dict[int, str] = field(default_factory=dict)
    evidence: dict[int, str] = field(default_factory=dict)
    merged_into: NDArray[np.int64] | None = None
    order: NDArray[np.int64] | None = None
    labels: Mapping[int, str | Mapping[str, float]] = field(default_factory=dict)
    remarks: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    outside: str = ""
    incomplete: str = ""


@runtime_checkable
class CorpusStep(Protocol):
    """Judges rows beside each other: what is needed of each is computed in workers, then one process decides.

    `facts` as for `RowStep`.
    """

    @property
    def name(self) -> str:
        """Its name in `curate.steps`, and of its table of settings."""

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """One line for each row, computed from the row alone, with the same schema for every chunk."""

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        """What becomes of each row.

        Args:
            features: N lines, memory-mapped.
            rows: the same rows in the same order, read as they are asked for.
        """


class Estimate(Protocol):
    """What a step would take that asks somebody."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""


@runtime_checkable
class EstimatedStep(CorpusStep, Protocol):
    """A step that asks somebody, and can say before what that takes."""

    def estimate(self, conversations: Iterable[Conversation]) -> Estimate:
        """What these rows would take; nobody is asked."""


class Here(Generic[T]):
    """Something that a step needs in this process alone: where the step is sent to a worker, it arrives without it."""

    __slots__ = ("_values",)

    def __init__(self, *values: T) -> None:
        self._values = values

    @property
    def value(self) -> T:
        """What it is; only in the process that made it."""
        (value,) = self._values
        return value

    def __reduce__(self) -> tuple[type[Here[T]], tuple[()]]:
        return type(self), ()


def _silent(_title: str, _done: int, _total: int | None) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step may need beside its own settings.

    Attributes:
        seed: of every random choice.
        sources: what the user named, in that order.
        held_out: files of the run that must not be trained on: its validation rows, tasks and general sets.
        open_model: opens a model that reads rows (`scoring_model.OpenModel`); None where there is no such thing.
        progress: told what is being done, how many rows of it are done, and how many there are.
        steps: names of all steps, in the order they are taken.
        log: told what is worth saying meanwhile.
    """

    seed: int = 0
    sources: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    open_model: Callable[[Any], Any] | None = None
    progress: Progress = _silent
    steps: tuple[str, ...] = ()
    log: Callable[[str], None] = lambda _text: None


@dataclass(frozen=True, slots=True)
class StepDefinition(Generic[S]):
    """An entry of the table of steps.

    Attributes:
        name: in `curate.steps`, and of its table of settings `[curate.NAME]`.
        sentence: what it does, for `--list-steps`.
        settings: the class of its settings.
        build: makes the step, and raises DependencyError or another TutelageError where it cannot work.
    """

    name: str
    sentence: str
    settings: type[S]
    build: Callable[[S, StepContext], RowStep | CorpusStep]


AnyStep = StepDefinition[Any]

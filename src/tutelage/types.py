"""The nouns that cross rooms. All are frozen; nothing else passes a doorway.

Those that stand for rows are made of what JSON holds and so are in no cycle: Python's search for cycles passes them by.

Shape legend: S = tokens of one sequence, R = tokens of one packed row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct, field

if TYPE_CHECKING:  # who only reads rows does not wait for NumPy
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["system", "user", "assistant", "tool", "text"]
"""`text` marks a document to be learned whole, outside any chat template."""

Unit = Literal["line", "row", "item"]
Severity = Literal["info", "warning", "error"]
TokenIds: TypeAlias = "NDArray[np.int32]"
Weights: TypeAlias = "NDArray[np.float32]"


class Address(Struct, frozen=True, gc=False):
    """Where a row came from: a file and its line (from 1), table row (from 1) or list item (from 0)."""

    file: str
    number: int
    unit: Unit = "line"

    def __str__(self) -> str:
        if self.unit == "line":
            return f"{self.file}:{self.number}"
        if self.unit == "row":
            return f"{self.file}:row {self.number}"
        return f"{self.file}[{self.number}]"


class ToolCall(Struct, frozen=True, gc=False):
    """One call an assistant turn makes; `arguments` is the decoded JSON object."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


class Message(Struct, frozen=True, gc=False):
    """One turn. `weight` scales its loss: 0 keeps it as context only; None leaves the choice to the settings."""

    role: Role
    content: str | None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    weight: float | None = None


Label: TypeAlias = str | int | float | bool
"""A value that a row says of itself."""


class Conversation(Struct, frozen=True, eq=False, gc=False):
    """A demonstration as its author meant it, before any template.

    `metadata` is what the row says of itself (id, source, license, model, timestamp, language, category, split, score),
    with several values under one name where it came so, such as scores of a step; no template sees it, and two
    conversations that differ in nothing else are equal.
    """

    messages: tuple[Message, ...]
    address: Address
    tools: tuple[Mapping[str, Any], ...] = ()
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Label | Mapping[str, Label]] = field(default_factory=dict)

    __hash__ = None  # type: ignore[assignment]  # Python's own way to say that its dicts have none

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Conversation):
            return NotImplemented
        return (
            self.messages == other.messages
            and self.address == other.address
            and self.tools == other.tools
            and self.template_arguments == other.template_arguments
        )

    def __ne__(self, other: object) -> bool:
        return not self == other  # a Struct brings its own, which knows nothing of `__eq__` above

    @property
    def is_text(self) -> bool:
        """Whether this is a plain document, learned whole."""
        return len(self.messages) == 1 and self.messages[0].role == "text"


@dataclass(frozen=True, slots=True)
class Turn:
    """A trained turn of an Example: `ids[:prompt_end]` is what a server feeds, `ids[prompt_end:reply_end]` the reply.

    `ends_with_stop` is False only for a document cut from a longer text.
    """

    message: int
    prompt_end: int
    reply_end: int
    ends_with_stop: bool = True


@dataclass(frozen=True, slots=True)
class Example:
    """One token sequence whose trained turns are proven.

    Attributes:
        address: the row it came from.
        part: which of the row's sequences this is, from 0.
        ids: int32 [S].
        weights: float32 [S]; `weights[t]` scales the loss of predicting `ids[t]` from `ids[:t]`; 0 = context only.
        turns: the trained turns in order.
    """

    address: Address
    part: int
    ids: TokenIds
    weights: Weights
    turns: tuple[Turn, ...]

    @property
    def trained_tokens(self) -> int:
        """Tokens with a non-zero weight."""
        import numpy as np

        return int(np.count_nonzero(self.weights))


class Drop(Struct, frozen=True):
    """A row that goes no further, and why. `reason` is a short stable key, `detail` a sentence for people."""

    address: Address
    reason: str
    detail: str


class Change(Struct, frozen=True):
    """A row that goes on, altered, and how."""

    address: Address
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a checkpoint's template, tokenizer or weights that training depends on.

    Attributes:
        key: short and stable, such as `system_dropped`.
        severity: "error": replies would be learned on what is never served, or not at all; "warning": some rows or
            some tokens are; "info": worth knowing.
        sentence: what it does to training.
        evidence: what was seen.
        fix: one thing to do; None where there is nothing to do.
    """

    key: str
    severity: Severity
    sentence: str
    evidence: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Proven:
    """What a row became: its Examples, and what is worth knowing about it."""

    examples: tuple[Example, ...]
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class PackedSequence:
    """Several documents packed side by side; attention never crosses a boundary.

    A beginning that documents have in common may be laid down once: it is then a stretch of its own, which they name
    as their parent, and are a continuation of.

    Attributes:
        ids: int32 [R].
        weights: float32 [R]; the first token of a document without a parent has weight 0, as nothing predicts it, and
            so has every token that documents share.
        positions: int32 [R], starting from 0 in each document, or from where its parent ends.
        document_tokens: lengths of the stretches laid side by side; they sum to R.
        addresses: where each document came from; a shared stretch has none.
        parents: for each stretch the earlier one that it continues, -1 for none; empty: none continues another.
        replayed: its documents are not of the task, and are packed apart as the run treats them otherwise.
    """

    ids: TokenIds
    weights: Weights
    positions: TokenIds
    document_tokens: tuple[int, ...]
    addresses: tuple[Address, ...]
    parents: tuple[int, ...] = ()
    replayed: bool = False

    @property
    def trained_tokens(self) -> int:
        """Tokens with a non-zero weight."""
        import numpy as np

        return int(np.count_nonzero(self.weights))

    @property
    def tokens(self) -> int:
        """Tokens of all documents, each counted whole, however often they were laid down."""
        if not self.parents:
            return len(self.ids)
        ends = list(accumulate(self.document_tokens))
        documents = set(range(len(ends))) - set(self.parents)
        return sum(int(self.positions[ends[document] - 1]) + 1 for document in documents)

    def predecessors(self) -> TokenIds:
        """int32 [R]: the place of the token that each token follows; -1 for the first of a document."""
        import numpy as np

        previous = np.arange(-1, len(self.ids) - 1, dtype=np.int32)
        starts = np.cumsum((0, *self.document_tokens[:-1]))
        ends = starts + self.document_tokens
        previous[starts] = [-1 if parent < 0 else ends[parent] - 1 for parent in self.parents] or -1
        return previous


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything one optimizer step sees: micro-batches (`rows`) and the count that the loss is divided by, once.

    `step` counts from 0; `epoch` is how many passes over the data were complete before it, as a fraction.
    """

    step: int
    epoch: float
    rows: tuple[PackedSequence, ...]
    trained_tokens: int
    examples: int

    @property
    def tokens(self) -> int:
        """Tokens of all its documents, trained or not."""
        return sum(row.tokens for row in self.rows)

    @property
    def computed_tokens(self) -> int:
        """Tokens that go through the model: fewer than `tokens` where documents share a prefix."""
        return sum(len(row.ids) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A served prompt to generate from, and the reply its row demonstrates: its words, and the calls it makes."""

    address: Address
    ids: TokenIds
    text: str
    reference: str
    tool_calls: tuple[ToolCall, ...] = ()

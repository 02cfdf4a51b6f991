"""One optimizer step in any layout: the same 16 documents as micro-batches of any size, on any number of processes.

A layout is batch x accumulation x processes. `share_of` gives each process its documents, `micro_batches` lays them
out, `step_of` takes one step of the real loop and hands back its loss and gradients, `assert_same_step` compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tokenizers import Tokenizer

from tutelage.model.loss import row_loss
from tutelage.model.token_weights import TrainingLoss
from tutelage.optim.lr_schedule import LRSchedule
from tutelage.optim.master_weights import MasterWeights
from tutelage.pack import pack_rows
from tutelage.runs.metrics_log import Recorder, StepRecord
from tutelage.train.checkpoint import Progress
from tutelage.train.listener import Listener
from tutelage.train.loop import Cadence, Parts, train
from tutelage.types import Address, Batch, Example, PackedSequence, Turn

DOCUMENTS: Final = 16
SENTENCES: Final = Path(__file__).parents[2] / "datasets" / "general_train.jsonl"
TOLERANCE: Final = 1e-6
"""Of the loss; and of each parameter's gradient as a share of the length (2-norm) of all gradients together."""

WAYS: Final[dict[str, tuple[bool, TrainingLoss]]] = {
    "packed": (True, "cross_entropy"),
    "apart": (False, "cross_entropy"),
    "talr": (True, "talr"),
    "eaft": (False, "eaft"),
}
"""Steps that several processes take: packed or not, and whose gradient they follow."""
BEFORE: Final = Progress(recent_losses=(4.5,))
"""What TALR looks back at."""


@dataclass(frozen=True)
class Step:
    """The loss of a step, the norm its gradients had, and the gradients by name."""

    loss: float
    norm: float
    gradients: dict[str, torch.Tensor]


class Keeping(torch.optim.Optimizer):
    """Changes no weight and keeps the gradients it was given."""

    def __init__(self, masters: Mapping[str, torch.Tensor]) -> None:
        super().__init__(list(masters.values()), {"lr": 0.0})
        self.masters, self.kept = masters, {}

    def step(self) -> None:
        self.kept = {name: one.grad.detach().clone() for name, one in self.masters.items() if one.grad is not None}


class NoCheckpoints:
    """Where checkpoints would cost half a gigabyte each and nobody resumes."""

    folder = Path("nowhere")

    def save(self, *_: Any, **__: Any) -> None:
        pass


def sixteen_documents(texts: Sequence[Sequence[int]]) -> list[Example]:
    """Beginnings of 16 tokenized texts, with 8 to 20 trained tokens each, so that a mean of means is another number.

    With fewer, a matrix library may sum over the vocabulary in another way, which costs fp32 the digit that is tested.
    """
    made = []
    for number, text in enumerate(texts[:DOCUMENTS]):
        trained = 8 + (number * 7) % 13
        tokens = trained + 3 + number % 5
        assert len(text) >= tokens, f"text {number} has {len(text)} tokens, not {tokens}"
        weights = np.zeros(tokens, dtype=np.float32)
        weights[-trained:] = 1.0
        turn = Turn(1, tokens - trained, tokens)
        made.append(Example(Address("made", number), 0, np.asarray(text[:tokens], dtype=np.int32), weights, (turn,)))
    assert len(made) == DOCUMENTS
    return made


def documents_for(model: Any) -> list[Example]:
    """Sentences, three to a text: on random ids a trained model's large activations cost fp32 another digit."""
    rows = [json.loads(line)["messages"] for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    said = [message["content"] for row in rows for message in row]
    texts = [" ".join(said[at : at + 6]) for at in range(0, 6 * DOCUMENTS, 6)]
    tokenizer = Tokenizer.from_file(str(Path(model.config.name_or_path) / "tokenizer.json"))
    return sixteen_documents([one.ids for one in tokenizer.encode_batch(texts)])


def share_of(documents: Sequence[Example], *, rank: int, processes: int) -> Sequence[Example]:
    """The documents of one process; all have as many."""
    return documents[rank::processes]


def micro_batches(documents: Sequence[Example], batch: int, *, packed: bool) -> tuple[PackedSequence, ...]:
    """Rows of `batch` documents each; not packed, a row for each document."""
    groups = [documents[at : at + batch] for at in range(0, len(documents), batch)]
    if not packed:
        groups = [[one] for group in groups for one in group]
    return tuple(pack_rows(group, row_tokens=sum(len(one.ids) for one in group))[0] for group in groups)


def step_of(
    model: Any,
    rows: Sequence[PackedSequence],
    record: Path,
    *,
    trained_tokens: int,
    progress: Progress | None = None,
    **given: Any,
) -> Step:
    """One step of the loop over `rows`, divided by `trained_tokens`, the count of all processes together."""
    optimizer = MasterWeights(model, build=lambda masters: (Keeping(masters),), shared=True)
    seen: list[Any] = []
    arguments = {
        "row_loss": row_loss,
        "optimizer": optimizer,
        "schedule": LRSchedule(kind="constant", peak=1.0, steps=1, warmup_steps=0),
        "max_grad_norm": 1e9,
        "heldout": None,
        "cadence": Cadence(1),
        "checkpoints": NoCheckpoints(),
        "listener": Listener(Recorder(record), seen.append),
    } | given
    batch = Batch(0, 0.0, tuple(rows), trained_tokens=trained_tokens, examples=DOCUMENTS)
    train(Parts(model=model, **arguments), [batch], progress or Progress())
    (line,) = [one for one in seen if isinstance(one, StepRecord)]
    return Step(line.loss, line.gradient_norm, optimizer.optimizers[0].kept)


def assert_same_step(found: Step, expected: Step) -> None:
    """Equal to `TOLERANCE`, in fp32."""
    assert abs(found.loss - expected.loss) <= TOLERANCE * max(1.0, abs(expected.loss))
    assert set(found.gradients) == set(expected.gradients)
    assert expected.norm > 0
    for name, value in expected.gradients.items():
        assert value.dtype == torch.float32
        difference = float(torch.linalg.vector_norm(found.gradients[name] - value, dtype=torch.float64))
        assert difference <= TOLERANCE * expected.norm, f"{name}: {difference / expected.norm:.1e} of the norm"

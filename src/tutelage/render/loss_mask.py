"""The loss mask: the weight of each token of an Example, and the gates that fail where a weight is not proven.

The gates are checked where an Example is made and again after packing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tutelage.render.sequences import ProvenTurn
from tutelage.types import Address, Example, Turn


def masked_turns(
    address: Address, part: int, ids: Sequence[int], turns: Sequence[ProvenTurn], *, trains_all_tokens: bool
) -> Example:
    """Ids with the weight of its turn on each token of a reply, stop token included, and 0 elsewhere.

    Args:
        address: of the row.
        part: which of its sequences.
        ids: of the sequence; every turn stands in them behind its prompt.
        turns: whose replies are trained.
        trains_all_tokens: every other token has weight 1, but the first, which nothing predicts.
    """
    weights = np.full(len(ids), 1.0 if trains_all_tokens else 0.0, dtype=np.float32)
    weights[0] = 0.0
    spans = []
    for turn in turns:
        start, end = len(turn.prompt_ids), len(turn.prompt_ids) + len(turn.reply_ids)
        weights[start:end] = turn.weight
        spans.append(Turn(turn.message, start, end))
    return Example(address, part, np.asarray(ids, dtype=np.int32), weights, tuple(spans))


def masked_document(address: Address, ids: Sequence[int]) -> Example:
    """A plain document, trained from its second token on; the first has no context to be predicted from."""
    weights = np.ones(len(ids), dtype=np.float32)
    weights[0] = 0.0
    turn = Turn(message=0, prompt_end=1, reply_end=len(ids))
    return Example(address, 0, np.asarray(ids, dtype=np.int32), weights, (turn,))


def assert_proven(example: Example, *, stop_ids: frozenset[int], vocabulary_size: int, trains_all_tokens: bool) -> None:
    """Assert what the proof promises about one Example; a failure is our bug, so it is an AssertionError.

    Args:
        example: the Example.
        stop_ids: ids that end a generation.
        vocabulary_size: rows of the model's embedding.
        trains_all_tokens: the loss runs over every token (`train_on = "all"` or a plain document), so weights may lie
            outside turns.
    """
    where = f"{example.address} part {example.part}"
    assert len(example.ids) == len(example.weights), f"{where}: {len(example.ids)} ids, {len(example.weights)} weights"
    assert example.trained_tokens > 0, f"{where}: nothing is trained"
    assert example.weights[0] == 0, f"{where}: the first token has no context to be predicted from"
    assert int(example.ids.min()) >= 0, f"{where}: negative id"
    assert int(example.ids.max()) < vocabulary_size, f"{where}: id {int(example.ids.max())} has no embedding"
    previous_end = 0
    for turn in example.turns:
        assert previous_end <= turn.prompt_end < turn.reply_end <= len(example.ids), f"{where}: turn out of order"
        previous_end = turn.reply_end
        if turn.ends_with_stop:
            assert int(example.ids[turn.reply_end - 1]) in stop_ids, f"{where}: reply does not end in a stop token"
    if not trains_all_tokens:
        end = 0
        for turn in example.turns:
            assert not example.weights[end : turn.prompt_end].any(), f"{where}: a trained token outside every reply"
            inside, end = example.weights[turn.prompt_end : turn.reply_end], turn.reply_end
            assert inside.all(), f"{where}: an untrained token inside a trained reply"
        assert not example.weights[end:].any(), f"{where}: a trained token outside every reply"


def trained_stops(examples: tuple[Example, ...], stop_ids: frozenset[int]) -> int:
    """Trained stop tokens; equal to the trained turns when none is cut."""
    ids = np.fromiter(stop_ids, dtype=np.int32)
    return sum(int(np.count_nonzero(np.isin(example.ids, ids) & (example.weights != 0))) for example in examples)

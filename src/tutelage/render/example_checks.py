"""Gates that fail: what a proven Example must look like, checked where it is made and again after packing."""

from __future__ import annotations

import numpy as np

from tutelage.types import Example


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
    inside = np.zeros(len(example.ids), dtype=bool)
    previous_end = 0
    for turn in example.turns:
        assert previous_end <= turn.prompt_end < turn.reply_end <= len(example.ids), f"{where}: turn out of order"
        inside[turn.prompt_end : turn.reply_end] = True
        previous_end = turn.reply_end
        if turn.ends_with_stop:
            assert int(example.ids[turn.reply_end - 1]) in stop_ids, f"{where}: reply does not end in a stop token"
    if not trains_all_tokens:
        assert not np.any(example.weights[~inside]), f"{where}: a trained token outside every reply"
        assert np.all(example.weights[inside] != 0), f"{where}: an untrained token inside a trained reply"


def trained_stops(examples: tuple[Example, ...], stop_ids: frozenset[int]) -> int:
    """Trained stop tokens; equal to the trained turns when none is cut."""
    ids = np.fromiter(stop_ids, dtype=np.int32)
    return sum(int(np.count_nonzero(np.isin(example.ids, ids) & (example.weights != 0))) for example in examples)

"""The gates before the first step: masks as they were proven, and no token whose embedding row nobody trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tutelage.errors import DataError
from tutelage.render import Tokenizer
from tutelage.train.preflight import pass_gates
from tutelage.types import Address, Example, Turn

ADDRESS = Address("rows.jsonl", 1)
STOP = 401


def example(number: int, ids: list[int], weights: list[float]) -> Example:
    turn = Turn(1, len(ids) - 1, len(ids))
    return Example(Address("rows.jsonl", number), 0, np.array(ids, np.int32), np.array(weights, np.float32), (turn,))


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_tokenizer_folder)


def flags(*untrained: int) -> np.ndarray:
    found = np.zeros(403, dtype=np.bool_)
    found[list(untrained)] = True
    return found


def test_a_control_token_without_a_trained_row_is_refused(tokenizer: Tokenizer) -> None:
    stop = tokenizer.special_tokens["<|im_end|>"]
    rows = [example(2, [5, 6, stop], [0, 0, 1]), example(3, [5, 6, stop], [0, 0, 0.5])]
    with pytest.raises(DataError, match="never trained on") as caught:
        pass_gates(rows, tokenizer, untrained_V=flags(stop), whole=False, fix="change this")
    assert caught.value.where == "rows.jsonl:2"
    assert f"'<|im_end|>' (id {stop}, 2 times, first in rows.jsonl:2)" in str(caught.value.found)
    assert caught.value.fix


def test_a_word_without_one_is_remarked(tokenizer: Tokenizer) -> None:
    stop = tokenizer.special_tokens["<|im_end|>"]
    turn = Turn(1, 2, 4)
    row = Example(ADDRESS, 0, np.array([5, 6, 7, stop], np.int32), np.array([0, 0, 1, 1], np.float32), (turn,))
    (note,) = pass_gates([row], tokenizer, untrained_V=flags(7), whole=False, fix="change this")
    assert "(id 7, 1 times" in note


def test_context_may_hold_such_tokens(tokenizer: Tokenizer) -> None:
    stop = tokenizer.special_tokens["<|im_end|>"]
    assert (
        pass_gates(
            [example(1, [9, 6, stop], [0, 0, 1])], tokenizer, untrained_V=flags(9, 6), whole=False, fix="change this"
        )
        == []
    )


def test_r12_a_control_token_of_the_prompt_without_a_trained_row_is_remarked_and_a_new_one_refused(
    tokenizer: Tokenizer,
) -> None:
    start, stop = tokenizer.special_tokens["<|im_start|>"], tokenizer.special_tokens["<|im_end|>"]
    rows = [example(1, [start, 6, stop], [0, 0, 1])]
    (note,) = pass_gates(rows, tokenizer, untrained_V=flags(start), whole=False, fix="change this")
    assert "prompts hold tokens that the model was never trained on, and their embedding does not learn" in note
    assert f"(id {start}, 1 times, first in rows.jsonl:1)" in note
    assert pass_gates(rows, tokenizer, untrained_V=flags(start), whole=False, fix=None) == []
    with pytest.raises(DataError, match="never trained on"):
        pass_gates(rows, tokenizer, untrained_V=flags(start), whole=False, fix="change this", new_ids={start})


@pytest.mark.parametrize(
    ("ids", "weights"),
    [([5, 6, 7], [0, 0, 1]), ([5, 6, STOP], [0, 0, 0]), ([5, 6, STOP], [0, 1, 1]), ([5, STOP, STOP], [0, 1, 1])],
    ids=["no stop", "nothing trained", "a token before the reply", "a stop before the reply"],
)
def test_a_mask_that_is_not_as_proven_never_passes(tokenizer: Tokenizer, ids: list[int], weights: list[float]) -> None:
    assert tokenizer.special_tokens["<|im_end|>"] == STOP
    with pytest.raises(AssertionError):
        pass_gates([example(1, ids, weights)], tokenizer, untrained_V=None, whole=False, fix="change this")

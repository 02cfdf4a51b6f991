"""The gate: no token is trained whose embedding row nobody ever trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tutelage.errors import DataError
from tutelage.render import Tokenizer
from tutelage.train.vocabulary import refuse_untrained_tokens
from tutelage.types import Address, Example, Turn


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


def test_a_trained_token_without_a_trained_row_is_refused(tokenizer: Tokenizer) -> None:
    stop = tokenizer.control_tokens["<|im_end|>"]
    rows = [example(1, [5, 6, 7], [0, 1, 1]), example(2, [5, 6, stop], [0, 1, 1]), example(3, [5, stop], [0, 0.5])]
    with pytest.raises(DataError, match="never trained on") as caught:
        refuse_untrained_tokens(rows, flags(stop), tokenizer)
    assert caught.value.where == "rows.jsonl:2"
    assert f"'<|im_end|>' (id {stop}, 2 times, first in rows.jsonl:2)" in str(caught.value.found)
    assert caught.value.fix


def test_context_may_hold_such_tokens(tokenizer: Tokenizer) -> None:
    refuse_untrained_tokens([example(1, [9, 6, 7], [0, 0, 1])], flags(9, 6), tokenizer)
    with pytest.raises(DataError):
        refuse_untrained_tokens([example(1, [9, 6, 7], [0, 0, 1])], flags(7), tokenizer)


def test_nothing_is_looked_at_where_every_row_was_trained(tokenizer: Tokenizer) -> None:
    def never() -> object:
        raise AssertionError("examples were read")
        yield

    refuse_untrained_tokens(never(), flags(), tokenizer)

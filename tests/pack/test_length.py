from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.support.chunks import chunk_of, entered
from tutelage.errors import DataError
from tutelage.ledger import Ledger
from tutelage.pack.length import TooLong, within_limit
from tutelage.types import Address, Conversation, Example, Message, Turn


def fit(
    rows: Sequence[tuple[Conversation, tuple[Example, ...]]],
    *,
    max_seq_length: int,
    ledger: Ledger,
    too_long: TooLong = "drop",
) -> list[tuple[Conversation, tuple[Example, ...]]]:
    chunks = within_limit([chunk_of(rows)], max_seq_length=max_seq_length, vocabulary_size=1000, too_long=too_long)
    return entered(list(chunks), ledger)


def row(number: int, *lengths: int) -> tuple[Conversation, tuple[Example, ...]]:
    address = Address("rows.jsonl", number)
    examples = tuple(
        Example(
            address,
            part,
            np.arange(tokens, dtype=np.int32),
            np.arange(tokens, dtype=np.float32).clip(0, 1),
            (Turn(1, 1, tokens),),
        )
        for part, tokens in enumerate(lengths)
    )
    return Conversation((Message("user", "a"), Message("assistant", "b")), address), examples


def test_the_limit_itself_is_allowed() -> None:
    ledger = Ledger(rows_in=2)
    kept = list(fit([row(1, 8), row(2, 9)], max_seq_length=8, ledger=ledger))
    assert [conversation.address.number for conversation, _ in kept] == [1]
    assert (ledger.rows_kept, dict(ledger.dropped)) == (1, {"too_long": 1})
    assert "9 tokens" in ledger.drop_samples["too_long"][0].detail
    ledger.check()


def test_a_row_of_several_sequences_stays_or_goes_whole() -> None:
    ledger = Ledger(rows_in=2)
    kept = list(fit([row(1, 4, 9, 4), row(2, 8, 8)], max_seq_length=8, ledger=ledger))
    assert [len(examples) for _, examples in kept] == [2]
    assert ledger.rows_kept == 1
    ledger.check()


def test_nothing_is_cut() -> None:
    given = row(1, 8)
    ((conversation, examples),) = fit([given], max_seq_length=100, ledger=Ledger())
    assert conversation is given[0]
    assert [example.ids.tolist() for example in examples] == [example.ids.tolist() for example in given[1]]


def test_strict_names_the_row() -> None:
    with pytest.raises(DataError, match="too_long") as caught:
        list(fit([row(7, 9)], max_seq_length=8, ledger=Ledger(strict=True)))
    assert caught.value.where == "rows.jsonl:7"

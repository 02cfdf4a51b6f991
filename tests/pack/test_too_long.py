"""What becomes of rows beyond the limit: whole turns or nothing, documents token by token, all of it counted."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.chunks import chunk_of, entered
from tutelage.ledger import Ledger
from tutelage.pack import pack_rows, within_limit
from tutelage.render.loss_mask import assert_proven
from tutelage.types import Address, Change, Conversation, Drop, Example, Message, Turn

STOP = 1
Proven = tuple[Conversation, tuple[Example, ...]]
Told = list[Drop | Change]


def conversation_row(number: int, parts: list[list[tuple[int, int]]], *, whole: bool = False) -> Proven:
    """A row whose every sequence is turns of (tokens before the reply, tokens of the reply with its stop)."""
    address = Address("rows.jsonl", number)
    message, examples = 1, []
    for part, turns in enumerate(parts):
        ids, spans, end = [], [], 0
        for before, reply in turns:
            ids += [10 + number] * before + [20 + number] * (reply - 1) + [STOP]
            spans.append(Turn(message, end + before, end + before + reply))
            end, message = end + before + reply, message + 2
        weights = np.full(len(ids), 1.0 if whole else 0.0, dtype=np.float32)
        for span in spans:
            weights[span.prompt_end : span.reply_end] = 0.5
        weights[0] = 0.0
        examples.append(Example(address, part, np.asarray(ids, dtype=np.int32), weights, tuple(spans)))
    messages = tuple(Message("user" if at % 2 == 0 else "assistant", "words") for at in range(message))
    return Conversation(messages, address), tuple(examples)


def document_row(number: int, tokens: int) -> Proven:
    """A plain document of different ids, trained from its second token to the stop."""
    address = Address("rows.jsonl", number)
    ids = np.append(np.arange(2, tokens + 1, dtype=np.int32), np.int32(STOP))
    weights = np.ones(tokens, dtype=np.float32)
    weights[0] = 0.0
    example = Example(address, 0, ids, weights, (Turn(0, 1, tokens),))
    return Conversation((Message("text", "words"),), address), (example,)


turn_lists = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=6)
part_lists = st.lists(turn_lists, min_size=1, max_size=3)
policies = st.sampled_from(["drop", "cut", "split"])


@st.composite
def row_lists(draw: st.DrawFn) -> list[Proven]:
    rows = []
    for number in range(1, draw(st.integers(1, 6)) + 1):
        if draw(st.booleans()):
            rows.append(conversation_row(number, draw(part_lists), whole=draw(st.booleans())))
        else:
            rows.append(document_row(number, draw(st.integers(2, 80))))
    return rows


def plain(examples: tuple[Example, ...]) -> list[object]:
    return [(example.part, example.ids.tolist(), example.weights.tolist(), example.turns) for example in examples]


def through(rows: list[Proven], max_seq_length: int, too_long: str) -> tuple[list[Proven], Ledger, Told]:
    told: Told = []
    ledger = Ledger(rows_in=len(rows), listener=told.append)
    chunks = within_limit([chunk_of(rows)], max_seq_length=max_seq_length, vocabulary_size=1000, too_long=too_long)
    kept = entered(list(chunks), ledger)
    return kept, ledger, told


@given(rows=row_lists(), max_seq_length=st.integers(2, 40), too_long=policies)
def test_the_books_balance_and_name_every_row_that_is_not_whole(
    rows: list[Proven], max_seq_length: int, too_long: str
) -> None:
    kept, ledger, told = through(rows, max_seq_length, too_long)

    ledger.check()
    assert ledger.rows_kept == len(kept)
    after = {conversation.address: examples for conversation, examples in kept}
    touched = Counter(entry.address for entry in told)
    for conversation, examples in rows:
        same = plain(after.get(conversation.address, ())) == plain(examples)
        assert touched[conversation.address] == (0 if same else 1)
        assert same == all(len(example.ids) <= max_seq_length for example in examples)
    drops = {entry.address for entry in told if isinstance(entry, Drop)}
    assert drops == {conversation.address for conversation, _ in rows} - set(after)
    if too_long == "drop":
        assert not ledger.changed


@given(rows=row_lists(), max_seq_length=st.integers(2, 40), too_long=policies)
def test_what_stays_fits_and_is_still_proven(rows: list[Proven], max_seq_length: int, too_long: str) -> None:
    for conversation, examples in through(rows, max_seq_length, too_long)[0]:
        assert [example.part for example in examples] == list(range(len(examples)))
        for example in examples:
            assert 2 <= len(example.ids) <= max_seq_length
            assert example.turns
            assert_proven(example, stop_ids=frozenset([STOP]), vocabulary_size=1000, trains_all_tokens=True)
            assert conversation.is_text or all(turn.ends_with_stop for turn in example.turns)
            assert example.turns[-1].reply_end == len(example.ids)
        pack_rows(examples, row_tokens=max_seq_length)


@given(
    parts=part_lists, whole=st.booleans(), max_seq_length=st.integers(2, 40), too_long=st.sampled_from(["cut", "split"])
)
def test_a_conversation_loses_whole_turns_from_its_end(
    parts: list[list[tuple[int, int]]], whole: bool, max_seq_length: int, too_long: str
) -> None:
    """Each turn that stays stands on its full proven prompt, and every turn that fits stays."""
    row = conversation_row(1, parts, whole=whole)
    kept, ledger, _ = through([row], max_seq_length, too_long)

    def proven_turns(examples: tuple[Example, ...], limit: int) -> dict[int, tuple[bytes, bytes]]:
        return {
            turn.message: (example.ids[: turn.reply_end].tobytes(), example.weights[: turn.reply_end].tobytes())
            for example in examples
            for turn in example.turns
            if turn.reply_end <= limit
        }

    expected = proven_turns(row[1], max_seq_length)
    assert proven_turns(kept[0][1] if kept else (), 10**9) == expected
    assert (ledger.rows_dropped == 1) == (not expected)
    if not whole and kept:
        for _, examples in kept:
            reply_tokens = sum(turn.reply_end - turn.prompt_end for example in examples for turn in example.turns)
            assert sum(example.trained_tokens for example in examples) == reply_tokens


@given(tokens=st.integers(2, 200), max_seq_length=st.integers(2, 40))
def test_a_divided_document_trains_every_token_as_often_as_the_whole_one(tokens: int, max_seq_length: int) -> None:
    row = document_row(1, tokens)
    kept, ledger, told = through([row], max_seq_length, "split")

    (whole,), ((_, pieces),) = row[1], kept
    trained = [id_ for piece in pieces for id_ in piece.ids[piece.weights != 0].tolist()]
    assert trained == whole.ids[1:].tolist()
    for before, after in pairwise(pieces):
        assert after.ids[0] == before.ids[-1], "the context of a piece's first trained token is the token before it"
    assert [piece.turns[0].ends_with_stop for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(len(piece.ids) == max_seq_length for piece in pieces[:-1])
    if tokens > max_seq_length:
        assert f"{tokens} tokens became {len(pieces)} sequences" in told[0].detail
        assert dict(ledger.changed) == {"document_split": 1}


def test_the_sentences() -> None:
    rows = [
        conversation_row(1, [[(3, 3), (3, 3), (3, 3)]]),
        conversation_row(2, [[(9, 3)]]),
        document_row(3, 13),
        conversation_row(4, [[(3, 3)], [(9, 9)]]),
    ]
    told = {
        (too_long, entry.address.number): (entry.reason, entry.detail)
        for too_long in ("drop", "cut", "split")
        for entry in through(rows, 10, too_long)[2]
    }
    limit = "the limit pack.max_seq_length is 10"
    assert told["drop", 1] == ("too_long", f"18 tokens; {limit}")
    assert told["cut", 1] == ("turns_cut", f"1 of 3 trained turns stay, the others end later; {limit}")
    assert told["cut", 2] == ("too_long", f"the first trained turn ends after 12 tokens; {limit}")
    assert told["cut", 3] == ("too_long", f"a document of 13 tokens has no turn to cut at; {limit}")
    assert told["split", 3] == ("document_split", f"a document of 13 tokens became 2 sequences; {limit}")
    assert (
        told["cut", 4] == told["split", 4] == ("turns_cut", f"1 of 2 trained turns stay, the others end later; {limit}")
    )


@pytest.mark.parametrize("too_long", ["cut", "split"])
def test_what_was_handed_in_is_not_altered(too_long: str) -> None:
    rows = [conversation_row(1, [[(3, 3), (8, 8)]]), document_row(2, 30)]
    before = [[(example.ids.copy(), example.weights.copy()) for example in examples] for _, examples in rows]
    through(rows, 8, too_long)
    for (_, examples), earlier in zip(rows, before, strict=True):
        for one, (ids, weights) in zip(examples, earlier, strict=True):
            np.testing.assert_array_equal(one.ids, ids)
            np.testing.assert_array_equal(one.weights, weights)

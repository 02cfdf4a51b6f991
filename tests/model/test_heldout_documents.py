"""Held-out loss by document: the same number to the bit, and each document as transformers' forward has it alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from tests.model.test_loss import LENGTHS, with_common_beginnings
from tests.support.tiny_kinds import VOCABULARY, tiny_kind
from tutelage.evaluate.heldout import heldout_by_document, heldout_loss
from tutelage.model.architecture import PLAIN, architecture_of, use_training_attention
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.loss import row_loss
from tutelage.pack import pack_rows
from tutelage.types import Address, Example, PackedSequence

Documents = Callable[..., list[Example]]
PlainLoss = Callable[[Any, Sequence[Example]], torch.Tensor]


def assert_own(found: dict[Address, tuple[float, int]], expected: dict[Address, tuple[float, int]]) -> None:
    assert set(found) == set(expected)
    for address, (nats, tokens) in expected.items():
        assert found[address][0] == pytest.approx(nats, rel=1e-5, abs=1e-5)
        assert found[address][1] == tokens


def alone(model: Any, examples: Sequence[Example], plain_loss: PlainLoss) -> dict[Address, tuple[float, int]]:
    with torch.no_grad():
        return {one.address: (plain_loss(model, [one]).item(), one.trained_tokens) for one in examples}


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("row_tokens", [152, 260, 600])
def test_documents_of_packed_rows(
    tiny_model: Any, documents: Documents, plain_loss: PlainLoss, row_tokens: int, share: bool
) -> None:
    examples = with_common_beginnings(documents)  # nested, of scaled weights
    expected = alone(tiny_model, examples, plain_loss)
    use_packed_attention(tiny_model)
    rows = pack_rows(examples, row_tokens=row_tokens, share_prefixes=share)

    found = heldout_by_document(tiny_model, rows)

    assert found.mean == heldout_loss(tiny_model, rows), "to the bit"
    assert_own(dict(found.documents), expected)


@pytest.mark.parametrize("head", ["product", "own", "whole"])
def test_on_every_path_of_the_loss(documents: Documents, head: Any) -> None:
    model = tiny_kind("llama")
    architecture = architecture_of(model)
    if head != architecture.head:
        architecture = replace(
            architecture, head=head, **({"attention": "own", "documents_isolated": False} if head == "whole" else {})
        )
    use_training_attention(model, architecture.attention)
    examples = documents(LENGTHS, vocabulary=VOCABULARY, scaled=True)
    rows = pack_rows(examples, row_tokens=40, documents_isolated=architecture.documents_isolated)
    compute = partial(row_loss, architecture=architecture)

    found = heldout_by_document(model, rows, row_loss=compute)

    assert found.mean == heldout_loss(model, rows, row_loss=compute), "to the bit"
    for example in examples:
        (row,) = pack_rows([example], row_tokens=40)
        with torch.no_grad():
            nats, tokens = compute(model, row)
        assert found.documents[example.address] == (pytest.approx(nats.item(), rel=1e-5, abs=1e-5), tokens)


def test_parts_of_one_row_of_data_are_one_document(
    tiny_model: Any, documents: Documents, plain_loss: PlainLoss
) -> None:
    first, second, other = documents((14, 9, 11))
    second = replace(second, address=first.address, part=1)
    expected = alone(tiny_model, [first], plain_loss)[first.address][0]
    expected += alone(tiny_model, [second], plain_loss)[first.address][0]
    use_packed_attention(tiny_model)

    found = heldout_by_document(tiny_model, pack_rows([first, other, second], row_tokens=25)).documents

    assert set(found) == {first.address, other.address}
    assert found[first.address] == (pytest.approx(expected, rel=1e-5), first.trained_tokens + second.trained_tokens)


def test_a_document_in_which_nothing_is_trained_has_no_loss(tiny_model: Any, documents: Documents) -> None:
    first, second = documents((14, 9))
    silent = replace(second, weights=0 * second.weights)
    use_packed_attention(tiny_model)

    for examples in ([first, silent], [silent, first]):
        found = heldout_by_document(tiny_model, pack_rows(examples, row_tokens=14))
        assert set(found.documents) == {first.address}


def test_what_does_not_fit_is_taken_in_smaller_rows_and_counted_once(
    tiny_model: Any, documents: Documents, plain_loss: PlainLoss
) -> None:
    examples = documents(LENGTHS)
    expected = alone(tiny_model, examples, plain_loss)
    use_packed_attention(tiny_model)
    rows = pack_rows(examples, row_tokens=60)

    def small_machine(model: Any, row: PackedSequence, **more: Any) -> tuple[torch.Tensor, int]:
        if len(row.ids) > 31:
            raise MemoryError
        return row_loss(model, row, architecture=PLAIN, **more)

    assert_own(dict(heldout_by_document(tiny_model, rows, row_loss=small_machine).documents), expected)


def test_while_a_run_trains_nothing_is_kept(tiny_model: Any, documents: Documents) -> None:
    use_packed_attention(tiny_model)
    handed: list[dict[str, Any]] = []

    def seen(model: Any, row: PackedSequence, **more: Any) -> tuple[torch.Tensor, int]:
        handed.append(more)
        return row_loss(model, row)

    heldout_loss(tiny_model, pack_rows(documents(LENGTHS), row_tokens=60), row_loss=seen)

    assert handed
    assert not any(handed)

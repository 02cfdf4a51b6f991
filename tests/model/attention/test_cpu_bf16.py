"""Attention as products in bf16: exact where nothing is rounded, and as close as torch's own kernel where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.attention_oracle import GROUPS, HEADS, TREES, WIDTH, Tree, alone_in_double, tensors, with_gradients
from tutelage.model.attention import cpu_bf16, packed
from tutelage.model.attention.layout import Layout

MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined] # set when torch is imported


@pytest.fixture(autouse=True)
def as_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the processor: one without products of bf16 makes them more slowly."""
    monkeypatch.setattr(cpu_bf16, "runs_here", lambda: True)


@pytest.fixture
def rounding_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes rows of any precision, and multiplies in it."""
    monkeypatch.setattr(cpu_bf16, "_products_in_bf16", lambda _: nullcontext())


def multiplied(inputs: Any, tree: Tree, scaling: float | None = None) -> list[torch.Tensor]:
    """The output of products, and the gradients of queries, keys and values, in the dtype of `inputs`."""
    leaves = [one.detach().requires_grad_() for one in inputs]
    scoring = cpu_bf16.Scoring(scaling)
    out = cpu_bf16.matmul_attention(*leaves, Layout(*tree).segments(), scoring)
    towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(8)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, towards)]


def distances(found: list[torch.Tensor], expected: list[torch.Tensor]) -> list[float]:
    """Of each from the other, as a share of its length."""
    return [float((one.double() - other).norm() / other.norm()) for one, other in zip(found, expected, strict=True)]


@pytest.mark.usefixtures("rounding_nothing")
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("scaling", [None, 1.1])
def test_a_stretch_attends_as_the_end_of_a_whole_document(tree: Tree, scaling: float | None) -> None:
    inputs = tensors(sum(tree[0]))
    expected = alone_in_double(inputs, *tree, WIDTH**-0.5 if scaling is None else scaling)
    for found, other in zip(multiplied(inputs, tree, scaling), expected, strict=True):
        torch.testing.assert_close(found.double(), other, rtol=0.0, atol=5e-6 * float(other.abs().max()))


@settings(max_examples=40, deadline=None)
@given(
    drawn=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 999)), min_size=1, max_size=9),
    block_tokens=st.integers(1, 5),
    most_scores=st.sampled_from([1, 100, 1 << 20]),
)
def test_blocks_of_any_size_find_the_same(drawn: list[tuple[int, int]], block_tokens: int, most_scores: int) -> None:
    tree = tuple(tokens for tokens, _ in drawn), tuple(n % (place + 1) - 1 for place, (_, n) in enumerate(drawn))
    inputs = tensors(sum(tree[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_bf16, "_products_in_bf16", lambda _: nullcontext())
        patch.setattr(cpu_bf16, "BLOCK_TOKENS", block_tokens)
        patch.setattr(cpu_bf16, "MOST_SCORES", most_scores)
        found = multiplied(inputs, tree)
    for one, other in zip(found, alone_in_double(inputs, *tree), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_bf16_rows_are_as_close_as_by_the_kernel_of_torch(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = tensors(sum(tree[0]), torch.bfloat16)
    expected = alone_in_double(inputs, *tree)
    found = distances(with_gradients(inputs, *tree), expected)
    monkeypatch.setattr(cpu_bf16, "runs_here", lambda: False)
    monkeypatch.setattr(packed, "WIDEN_BELOW_TOKENS", 0)
    by_kernel = distances(with_gradients(inputs, *tree), expected)

    for ours, theirs in zip(found, by_kernel, strict=True):
        assert ours < max(1.5 * theirs, 2.0**-8)  # half a unit in the last place of bf16


def test_scores_are_not_rounded() -> None:
    """Two keys whose scores are 64 and 64.25 differ by half a unit in the last place of bf16, which no server loses."""
    query = torch.zeros(1, 1, 2, 8)
    query[..., :2] = torch.tensor([8.0, 1.0])
    key = torch.zeros(1, 1, 2, 8)
    key[0, 0, :, :2] = torch.tensor([[8.0, 0.0], [8.0, 0.25]])
    value = torch.eye(2, 8)[None, None]
    found, *_ = multiplied([one.bfloat16() for one in (query, key, value)], ((2,), (-1,)), 1.0)
    expected = torch.tensor([0.0, 0.25]).softmax(0)
    torch.testing.assert_close(found[0, 1, 0, :2].float(), expected, rtol=2.0**-8, atol=0.0)


def test_nothing_but_its_inputs_is_kept() -> None:
    inputs = [tensor.requires_grad_() for tensor in tensors(18, torch.bfloat16)]
    kept: list[torch.Tensor] = []

    def keep(one: torch.Tensor) -> torch.Tensor:
        kept.append(one)
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        packed.document_attention(torch.nn.Identity(), *inputs, None, document_tokens=(5, 1, 9, 3))

    assert [one.untyped_storage().data_ptr() for one in kept] == [one.untyped_storage().data_ptr() for one in inputs]


@pytest.mark.parametrize(("heads", "tokens", "above", "count"), [
    (9, 100, 0, 1),
    (9, 300, 0, 2),
    (9, 300, 4000, 2),
    (64, 1024, 8192, 73),  # a block of 128 would have 75 million scores
])  # fmt: skip
def test_blocks_are_equal_and_not_too_large(heads: int, tokens: int, above: int, count: int) -> None:
    segment = cpu_bf16.Segment(slice(above, above + tokens), (slice(0, above),) if above else ())
    blocks = segment.blocks(heads)

    assert len(blocks) == count
    assert blocks[0].place.start == above
    assert blocks[-1].place.stop == blocks[-1].keys == above + tokens
    assert all(one.place.stop == other.place.start for one, other in pairwise(blocks))
    assert max(block.tokens for block in blocks) - min(block.tokens for block in blocks) <= 1
    assert all(heads * block.tokens * block.keys < 1.5 * cpu_bf16.MOST_SCORES for block in blocks)


@pytest.fixture(params=["none", "ieee"])
def before(request: pytest.FixtureRequest) -> Iterator[str]:
    """The precision of products of fp32 tensors as somebody set it."""
    found = MATMUL.fp32_precision
    MATMUL.fp32_precision = request.param
    yield request.param
    MATMUL.fp32_precision = found


def test_other_products_keep_their_precision(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[str] = []
    real = torch.bmm

    def watched(*given: Any, **named: Any) -> torch.Tensor:
        inside.append(MATMUL.fp32_precision)
        return real(*given, **named)

    monkeypatch.setattr(torch, "bmm", watched)
    multiplied(tensors(7, torch.bfloat16), ((7,), (-1,)))
    assert set(inside) == {"bf16"}
    assert MATMUL.fp32_precision == before

    monkeypatch.setattr(torch, "bmm", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        multiplied(tensors(7, torch.bfloat16), ((7,), (-1,)))
    assert MATMUL.fp32_precision == before


def test_only_bf16_rows_on_a_processor_that_multiplies_it_come_here(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[torch.dtype] = []

    def watched(query: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        came.append(query.dtype)
        return cpu_bf16.matmul_attention(query, *given, **named)

    monkeypatch.setattr(packed, "matmul_attention", watched)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        with_gradients(tensors(18, dtype), (5, 1, 9, 3), ())
    assert came == [torch.bfloat16]
    monkeypatch.setattr(cpu_bf16, "runs_here", lambda: False)
    with_gradients(tensors(18, torch.bfloat16), (5, 1, 9, 3), ())
    assert came == [torch.bfloat16]


def test_heads_that_share_no_keys_are_a_group_each() -> None:
    random = torch.Generator().manual_seed(1)
    inputs = [torch.randn(1, HEADS, 9, WIDTH, generator=random).bfloat16() for _ in range(3)]
    assert inputs[1].shape[1] != GROUPS
    found = multiplied(inputs, ((5, 4), (-1, -1)))
    assert max(distances(found, alone_in_double(inputs, (5, 4), (-1, -1)))) < 2.0**-7

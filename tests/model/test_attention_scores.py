"""Windows, chunks, caps, sinks, biases and dropout, each from its definition, over whatever documents share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from tests.support.attention_oracle import DOCUMENTS, GROUPS, HEADS, TREES, WIDTH, Tree, tensors, towards
from tutelage.model.attention import cpu_bf16 as attention_products
from tutelage.model.attention.autograd import attention_in_blocks
from tutelage.model.attention.cpu_bf16 import Scoring
from tutelage.model.attention.layout import Layout, Reach, UnknownAttentionError, reach_mask
from tutelage.model.attention.packed import document_attention


def inputs_of(tokens: int, dtype: torch.dtype = torch.float64, *, value_width: int = WIDTH) -> list[torch.Tensor]:
    """Queries, keys, values and sinks."""
    query, key, _ = tensors(tokens, dtype)
    random = torch.Generator().manual_seed(5)
    value = torch.randn(1, GROUPS, tokens, value_width, generator=random).to(dtype)
    return [query, key, value, torch.randn(HEADS, generator=random).to(dtype)]


def by_definition(
    inputs: list[torch.Tensor],
    tree: Tree,
    *,
    window: int | None = None,
    chunk: int | None = None,
    cap: float | None = None,
    sinks: bool = False,
    bias: torch.Tensor | None = None,
) -> list[torch.Tensor]:
    """[1, R, H, V] and gradients in double precision: each stretch as the end of a document laid down whole."""
    leaves = [one.detach().double().requires_grad_() for one in inputs]
    query, key, value = (leaf.repeat_interleave(HEADS // leaf.shape[1], dim=1) for leaf in leaves[:3])
    places = torch.arange(query.shape[2]).split(tree[0])
    ends = []
    for number, tokens in enumerate(tree[0]):
        chain = [number]
        while tree[1] and tree[1][chain[0]] >= 0:
            chain.insert(0, tree[1][chain[0]])
        whole = torch.cat([places[stretch] for stretch in chain])
        scores = query[0][:, whole] @ key[0][:, whole].transpose(1, 2) * WIDTH**-0.5
        if cap is not None:
            scores = cap * torch.tanh(scores / cap)
        if bias is not None:
            scores = scores + bias[0][:, whole][:, :, whole]
        at = torch.arange(len(whole))
        seen = at[None] <= at[:, None]
        if window is not None:
            seen &= at[None] > at[:, None] - window
        if chunk is not None:
            seen &= at[None] // chunk == at[:, None] // chunk
        weights = scores.masked_fill(~seen, float("-inf")).exp()
        total = weights.sum(-1, keepdim=True) + (leaves[3].exp()[:, None, None] if sinks else 0.0)
        ends.append((weights / total @ value[0][:, whole])[:, -tokens:])
    out = torch.cat(ends, dim=1).transpose(0, 1)[None]
    return [out.detach(), *torch.autograd.grad(out, leaves[: 4 if sinks else 3], towards(out))]


def attended(inputs: list[torch.Tensor], tree: Tree, *, sinks: bool = False, **asked: Any) -> list[torch.Tensor]:
    """The same of `document_attention`."""
    leaves = [one.detach().requires_grad_() for one in inputs]
    mask = asked.pop("mask", None)
    out, _ = document_attention(
        torch.nn.Identity(),
        *leaves[:3],
        mask,
        document_tokens=tree[0],
        parents=tree[1],
        s_aux=leaves[3] if sinks else None,
        **asked,
    )
    return [out.detach(), *torch.autograd.grad(out, leaves[: 4 if sinks else 3], towards(out))]


def assert_alike(found: list[torch.Tensor], expected: list[torch.Tensor], share: float) -> None:
    """A gradient that is nothing, as that of scores of a token alone, is so but for rounding."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0.0, atol=share * max(float(other.abs().max()), 1.0))


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("window", "cap", "sinks", "value_width"), [
    (3, None, False, WIDTH),
    (1, None, False, WIDTH),
    (None, 1.5, False, WIDTH),
    (None, None, True, WIDTH),
    (None, None, False, 3),
    (None, None, False, 12),
    (4, 1.5, True, 5),
])  # fmt: skip
def test_r4_r9_what_layers_ask_for_is_exact_whatever_documents_share(
    tree: Tree,
    dtype: torch.dtype,
    share: float,
    window: int | None,
    cap: float | None,
    sinks: bool,
    value_width: int,
) -> None:
    inputs = inputs_of(sum(tree[0]), dtype, value_width=value_width)
    found = attended(inputs, tree, sinks=sinks, softcap=cap, mask=None if window is None else Reach(window))
    assert_alike(found, by_definition(inputs, tree, window=window, cap=cap, sinks=sinks), share)


@settings(max_examples=30, deadline=None)
@given(
    drawn=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 999)), min_size=1, max_size=7),
    window=st.integers(1, 12),
    sinks=st.booleans(),
    block_tokens=st.integers(1, 6),
)
def test_r4_any_window_over_any_tree_in_blocks_of_any_size(
    drawn: list[tuple[int, int]], window: int, sinks: bool, block_tokens: int
) -> None:
    tree = tuple(tokens for tokens, _ in drawn), tuple(n % (place + 1) - 1 for place, (_, n) in enumerate(drawn))
    inputs = inputs_of(sum(tree[0]))
    expected = by_definition(inputs, tree, window=window, sinks=sinks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_products, "BLOCK_TOKENS", block_tokens)
        assert_alike(attended(inputs, tree, sinks=sinks, mask=Reach(window)), expected, 1e-12)
        leaves = [one.requires_grad_() for one in inputs]
        by_autograd = attention_in_blocks(
            *leaves[:3], Layout(*tree).segments(window), Scoring(window=window), sinks_H=leaves[3] if sinks else None
        )
        gradients = torch.autograd.grad(by_autograd, leaves[: 4 if sinks else 3], towards(by_autograd))
    assert_alike([by_autograd.detach(), *gradients], expected, 1e-12)


@settings(max_examples=30, deadline=None)
@given(
    drawn=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 999)), min_size=1, max_size=7), chunk=st.integers(1, 9)
)
def test_r4_chunks_over_any_tree(drawn: list[tuple[int, int]], chunk: int) -> None:
    tree = tuple(tokens for tokens, _ in drawn), tuple(n % (place + 1) - 1 for place, (_, n) in enumerate(drawn))
    inputs = inputs_of(sum(tree[0]))
    assert_alike(attended(inputs, tree, mask=Reach(chunk=chunk)), by_definition(inputs, tree, chunk=chunk), 1e-12)


def test_r4_chunks_of_documents_that_share_nothing_are_documents() -> None:
    assert Layout((7, 3)).in_chunks(3) == Layout((3, 3, 1, 3))


@pytest.mark.parametrize("reach", [Reach(window=9), Reach(chunk=9), Reach(window=20, chunk=30), None])
def test_r4_a_reach_that_no_document_goes_beyond_changes_no_bit(reach: Reach | None) -> None:
    inputs = inputs_of(sum(DOCUMENTS), torch.float32)
    plain = attended(inputs, (DOCUMENTS, ()))
    for one, other in zip(attended(inputs, (DOCUMENTS, ()), mask=reach, sliding_window=0), plain, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("runs", [True, False], ids=["multiplied in bf16", "widened"])
@pytest.mark.parametrize("tree", [((1030,), ()), ((300, 40, 700, 1), (-1, 0, 0, 2))], ids=["one", "shared"])
def test_r4_a_window_in_bf16_is_as_close_to_double_precision_as_torchs_kernel(
    tree: Tree, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_products, "runs_here", lambda: runs)
    inputs = inputs_of(sum(tree[0]), torch.bfloat16)
    expected = by_definition(inputs, tree, window=100)
    found = attended(inputs, tree, mask=Reach(100))

    whole = inputs_of(1030, torch.bfloat16)
    leaves = [one.detach().requires_grad_() for one in whole[:3]]
    at = torch.arange(1030)
    band = (at[None] <= at[:, None]) & (at[None] > at[:, None] - 100)
    out = scaled_dot_product_attention(*leaves, band[None, None], enable_gqa=True).transpose(1, 2)
    by_torch = [out.detach(), *torch.autograd.grad(out, leaves, towards(out))]
    by_kernel = distances(by_torch, by_definition(whole, ((1030,), ()), window=100))

    for ours, theirs in zip(distances(found, expected), by_kernel, strict=True):
        assert ours < max(1.5 * theirs, 2.0**-8)  # half a unit in the last place of bf16


def distances(found: list[torch.Tensor], expected: list[torch.Tensor]) -> list[float]:
    """Of each from the other, as a share of its length."""
    return [float((one.double() - other).norm() / other.norm()) for one, other in zip(found, expected, strict=True)]


class Largest(TorchDispatchMode):
    """Remembers the most numbers of any tensor that comes to be."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in tree_iter(made):
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.untyped_storage().nbytes() // one.itemsize)
        return made


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_r4_memory_and_products_of_a_window_grow_with_the_row_and_not_with_its_square(dropout: float) -> None:
    counted = {}
    for tokens in (1000, 2000):
        inputs = inputs_of(tokens, torch.float32)
        with Largest() as largest, FlopCounterMode(display=False) as products:
            attended(inputs, ((tokens,), ()), mask=Reach(64), dropout=dropout)
        counted[tokens] = products.get_total_flops()
        assert largest.numbers < tokens * tokens
    assert counted[2000] < 2.1 * counted[1000]


def test_dropout_zeroes_weights_and_draws_the_same_in_the_backward_pass() -> None:
    query, key, value, _ = inputs_of(sum(DOCUMENTS))
    asked: dict[str, Any] = {"document_tokens": DOCUMENTS, "softcap": 1.5, "dropout": 0.5}
    value.requires_grad_()
    torch.manual_seed(1)
    out, _ = document_attention(torch.nn.Identity(), query, key, value, None, **asked)
    direction = towards(out)
    (by_value,) = torch.autograd.grad(out, value, direction)

    # The output is linear in the values for the weights that were drawn.
    assert float((by_value * value.detach()).sum()) == pytest.approx(float((out.detach() * direction).sum()))
    torch.manual_seed(1)
    draws = [document_attention(torch.nn.Identity(), query, key, value, None, **asked)[0].detach() for _ in range(300)]
    plain = document_attention(torch.nn.Identity(), query, key, value, None, **(asked | {"dropout": 0.0}))[0].detach()
    assert torch.equal(draws[0], out.detach())
    assert not torch.equal(draws[1], out.detach())
    assert float((torch.stack(draws).mean(0) - plain).abs().mean()) < 0.1 * float(plain.abs().mean())


@pytest.mark.parametrize("tree", [(DOCUMENTS, ()), TREES["three levels"]])
@pytest.mark.parametrize("heads", [1, HEADS])
def test_a_bias_is_added_to_the_scores_and_learns(tree: Tree, heads: int) -> None:
    tokens = sum(tree[0])
    inputs = inputs_of(tokens)
    bias = torch.randn(1, heads, tokens, tokens, generator=torch.Generator().manual_seed(6)).double().requires_grad_()
    assert_alike(attended(inputs, tree, position_bias=bias), by_definition(inputs, tree, bias=bias), 1e-12)
    assert_alike(attended(inputs, tree, mask=bias), by_definition(inputs, tree, bias=bias), 1e-12)

    out, _ = document_attention(
        torch.nn.Identity(), *inputs[:3], None, document_tokens=tree[0], parents=tree[1], position_bias=bias
    )
    (by_bias,) = torch.autograd.grad(out, bias, towards(out))
    assert float(by_bias.abs().max()) > 0
    assert float(by_bias.sum(-1).abs().max()) < 1e-12  # a softmax does not see what all scores of a token gain


def test_a_table_of_what_is_seen_is_heeded() -> None:
    tokens = sum(DOCUMENTS)
    inputs = inputs_of(tokens)
    at = torch.arange(tokens)
    table = (at[None] > at[:, None] - 3)[None, None]
    assert_alike(attended(inputs, (DOCUMENTS, ()), mask=table), by_definition(inputs, (DOCUMENTS, ()), window=3), 1e-12)


class Settings:
    """A configuration with a window and a chunk."""

    sliding_window, attention_chunk_size = 8, 16


def test_r4_a_mask_says_how_far_a_layer_reaches() -> None:
    assert reach_mask(config=Settings) is None
    assert reach_mask(config=Settings, local_size=8) == Reach(window=8)
    assert reach_mask(config=Settings, local_size=16) == Reach(chunk=16)


@pytest.mark.parametrize("asked", [
    {"local_size": 7},
    {"use_vmap": True},
    {"attention_mask": torch.ones(1, 4)},
    {"allow_is_bidirectional_skip": True},
])  # fmt: skip
def test_r4_another_mask_is_not_taken_for_a_causal_one(asked: dict[str, Any]) -> None:
    with pytest.raises(UnknownAttentionError):
        reach_mask(config=Settings, **asked)

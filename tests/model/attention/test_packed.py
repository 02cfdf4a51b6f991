"""Attention inside documents equals transformers' eager attention of each document alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.llama.modeling_llama import eager_attention_forward

from tests.support.attention_oracle import (
    DOCUMENTS,
    GROUPS,
    HEADS,
    TREES,
    WIDTH,
    Tree,
    alone_in_double,
    tensors,
    towards,
    with_gradients,
)
from tutelage.model.attention import cpu_bf16
from tutelage.model.attention.autograd import attention_by_autograd
from tutelage.model.attention.layout import Layout, UnknownAttentionError
from tutelage.model.attention.packed import NAME, document_attention, use_generation_attention, use_packed_attention


def eager(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    tokens = query.shape[2]
    mask = torch.full((tokens, tokens), float("-inf")).triu(1)[None, None]
    module: Any = SimpleNamespace(num_key_value_groups=HEADS // GROUPS, training=False)
    return eager_attention_forward(module, query, key, value, mask, scaling=scaling)[0]


class Calls(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("scaling", [WIDTH**-0.5, 0.11])
def test_each_document_attends_as_if_alone(scaling: float) -> None:
    query, key, value = tensors(sum(DOCUMENTS))

    found, weights = document_attention(
        torch.nn.Identity(), query, key, value, None, document_tokens=DOCUMENTS, scaling=scaling
    )

    assert weights is None
    assert found.shape == (1, sum(DOCUMENTS), HEADS, WIDTH)
    start = 0
    for tokens in DOCUMENTS:
        piece = slice(start, start + tokens)
        expected = eager(query[:, :, piece], key[:, :, piece], value[:, :, piece], scaling)
        torch.testing.assert_close(found[:, piece], expected, rtol=1e-5, atol=1e-6)
        start += tokens


@pytest.fixture
def without_bf16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that does not multiply bf16: attention goes to torch's kernel."""
    monkeypatch.setattr(cpu_bf16, "runs_here", lambda: False)


@pytest.mark.usefixtures("without_bf16_products")
def test_short_bf16_documents_are_computed_wide() -> None:
    query, key, value = tensors(sum(DOCUMENTS), torch.bfloat16)

    found, _ = document_attention(torch.nn.Identity(), query, key, value, None, document_tokens=DOCUMENTS)
    wide, _ = document_attention(
        torch.nn.Identity(), query.float(), key.float(), value.float(), None, document_tokens=DOCUMENTS
    )

    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, wide.to(torch.bfloat16), rtol=0.0, atol=0.0)


@pytest.mark.usefixtures("without_bf16_products")
def test_long_bf16_documents_stay_close_to_fp32() -> None:
    query, key, value = tensors(1030, torch.bfloat16)

    found, _ = document_attention(torch.nn.Identity(), query, key, value, None, document_tokens=(1030,))
    wide, _ = document_attention(
        torch.nn.Identity(), query.float(), key.float(), value.float(), None, document_tokens=(1030,)
    )

    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wide, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("scaling", [WIDTH**-0.5, 1.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-12)])
def test_a_stretch_attends_as_the_end_of_a_whole_document(
    tree: Tree, scaling: float, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = tensors(sum(tree[0]), dtype)
    for found, expected in zip(
        with_gradients(inputs, *tree, scaling), alone_in_double(inputs, *tree, scaling), strict=True
    ):
        torch.testing.assert_close(found.double(), expected, rtol=0.0, atol=tolerance * float(expected.abs().max()))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 999)), min_size=1, max_size=9))
def test_any_tree_is_exact_in_double_precision(drawn: list[tuple[int, int]]) -> None:
    document_tokens = tuple(tokens for tokens, _ in drawn)
    parents = tuple(number % (place + 1) - 1 for place, (_, number) in enumerate(drawn))
    inputs = tensors(sum(document_tokens), torch.float64)
    found = with_gradients(inputs, document_tokens, parents)
    for one, expected in zip(found, alone_in_double(inputs, document_tokens, parents), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-10, atol=1e-11)


def test_scores_far_apart_are_joined_without_overflow() -> None:
    """exp(1000) is beyond fp32, and so is what a part with such scores weighs against one without."""
    query, key, value = tensors(9)
    key[:, :, :4] *= 1000.0
    tree = ((4, 2, 3), (-1, 0, 0))
    found, expected = with_gradients((query, key, value), *tree), alone_in_double((query, key, value), *tree)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-3, atol=2e-3)


@pytest.mark.usefixtures("without_bf16_products")
@pytest.mark.parametrize("beginning", [20, 1100])  # below the length that is computed in fp32, and above
def test_bf16_stretches_stay_close_to_double_precision(beginning: int) -> None:
    tree = ((beginning, 7, 40, 1), (-1, 0, 0, 2))
    inputs = tensors(sum(tree[0]), torch.bfloat16)
    for found, expected in zip(with_gradients(inputs, *tree), alone_in_double(inputs, *tree), strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.double(), expected, rtol=0.03, atol=0.03)


@pytest.mark.usefixtures("without_bf16_products")
def test_short_bf16_stretches_are_rounded_once() -> None:
    tree = TREES["three levels"]
    inputs = tensors(sum(tree[0]), torch.bfloat16)
    wide = with_gradients([one.float() for one in inputs], *tree)[0]
    assert torch.equal(with_gradients(inputs, *tree)[0], wide.to(torch.bfloat16))


@pytest.mark.usefixtures("without_bf16_products")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tree", [(DOCUMENTS, ()), ((20, *[3] * 8), (-1, *[0] * 8))])
def test_only_the_row_and_the_logarithms_of_its_sums_are_kept(tree: Tree, dtype: torch.dtype) -> None:
    document_tokens, parents = tree
    tokens = sum(document_tokens)
    inputs = [tensor.requires_grad_() for tensor in tensors(tokens, dtype)]
    kept: list[torch.Tensor] = []

    def keep(one: torch.Tensor) -> torch.Tensor:
        kept.append(one)
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        out, _ = document_attention(
            torch.nn.Identity(), *inputs, None, document_tokens=document_tokens, parents=parents
        )

    places = [one.untyped_storage().data_ptr() for one in kept]
    assert places[:4] == [one.untyped_storage().data_ptr() for one in (*inputs, out)]
    assert [(one.untyped_storage().nbytes(), one.dtype) for one in kept[4:]] == [(tokens * HEADS * 4, torch.float32)]
    assert out.untyped_storage().nbytes() == tokens * HEADS * WIDTH * dtype.itemsize


@pytest.mark.parametrize(("tree", "calls", "merges"), [
    ((DOCUMENTS, ()), 4, 0),
    (((20, *[3] * 8), (-1, *[0] * 8)), 10, 1),  # all that continues the first stretch is one call more
    (TREES["three levels"], 7 + 3, 3),
    (TREES["children between other stretches"], 5 + 3, 3),
])  # fmt: skip
def test_each_stretch_is_one_call_and_one_more_if_it_is_continued(tree: Tree, calls: int, merges: int) -> None:
    inputs = tensors(sum(tree[0]))
    with Calls() as made:
        with_gradients(inputs, *tree)
    kernel = "_scaled_dot_product_flash_attention_for_cpu"
    assert made.names.count(kernel) == calls
    assert made.names.count(f"{kernel}_backward") == calls
    assert made.names.count("lerp_") == merges
    assert made.names.count("cat") == 0


@pytest.mark.parametrize("tree", [(DOCUMENTS, ()), TREES["three levels"], TREES["several roots"]])
def test_autograd_finds_the_same_on_devices_without_this_kernel(tree: Tree) -> None:
    inputs = tensors(sum(tree[0]))
    leaves = [one.clone().requires_grad_() for one in inputs]
    out = attention_by_autograd(*leaves, Layout(*tree), dropout=0.0, scaling=None)
    by_autograd = [out.detach(), *torch.autograd.grad(out, leaves, towards(out))]
    for one, other in zip(with_gradients(inputs, *tree), by_autograd, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention_mask": torch.zeros(18, 18)}, "2 dimensions"),
        ({"indices": torch.zeros(1, 18, 4, dtype=torch.long)}, "indices"),
        ({"is_causal": False}, "look ahead"),
    ],
)
def test_what_it_does_not_compute_is_refused(change: dict[str, Any], words: str) -> None:
    query, key, value = tensors(sum(DOCUMENTS))
    given: dict[str, Any] = {"attention_mask": None, "document_tokens": DOCUMENTS} | change

    with pytest.raises(UnknownAttentionError, match=words):
        document_attention(torch.nn.Identity(), query, key, value, **given)


def test_r8_a_row_whose_documents_are_not_handed_on_is_one_document() -> None:
    """As where a layer hands no arguments on to its attention; such a model gets one document in a row."""
    inputs = tensors(9)
    alone, _ = document_attention(torch.nn.Identity(), *inputs, None)
    named, _ = document_attention(torch.nn.Identity(), *inputs, None, document_tokens=(9,))
    assert torch.equal(alone, named)


def test_two_rows_at_once_are_refused() -> None:
    query, key, value = (tensor.repeat(2, 1, 1, 1) for tensor in tensors(4))

    with pytest.raises(ValueError, match="one packed row"):
        document_attention(torch.nn.Identity(), query, key, value, None, document_tokens=(4,))


def test_models_switch_between_training_and_serving(tiny_model: Any) -> None:
    use_packed_attention(tiny_model)
    assert tiny_model.config._attn_implementation == NAME
    ids = torch.arange(6)[None]
    packed = tiny_model(input_ids=ids, document_tokens=(6,), use_cache=False).logits

    use_generation_attention(tiny_model)
    assert tiny_model.config._attn_implementation == "sdpa"
    served = tiny_model(input_ids=ids).logits

    torch.testing.assert_close(packed, served, rtol=1e-5, atol=1e-5)

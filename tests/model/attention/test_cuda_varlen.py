"""The CUDA path on fake tensors, which have shapes, types and a device, but no numbers: results are not tested."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.model.attention import cuda_varlen
from tutelage.model.attention import packed as attention
from tutelage.model.attention.layout import Reach
from tutelage.model.attention.packed import document_attention
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import adamw

GPU = "cuda:0"
LAYERS = 2


class Calls(TorchDispatchMode):
    """Counts operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def no_boundaries_of_other_tests() -> Iterator[None]:
    cuda_varlen.boundaries.cache_clear()
    yield
    cuda_varlen.boundaries.cache_clear()


@pytest.mark.parametrize(("dtype", "flash"), [(torch.bfloat16, 1), (torch.float16, 1), (torch.float32, 0)])
def test_a_packed_row_on_a_gpu_is_one_flash_attention_call_in_narrow_precision(dtype: torch.dtype, flash: int) -> None:
    with FakeTensorMode(), torch.no_grad(), Calls() as calls:
        query, key, value = (torch.empty(1, heads, 100, 16, dtype=dtype, device=GPU) for heads in (4, 2, 2))
        for _layer in range(LAYERS):
            found, weights = document_attention(
                torch.nn.Identity(), query, key, value, None, document_tokens=(30, 1, 69), scaling=0.25
            )

    assert (found.shape, found.dtype, found.device) == ((1, 100, 4, 16), dtype, torch.device(GPU))
    assert weights is None
    assert sum("_varlen_attn" in name for name in calls.names) == flash * LAYERS
    assert cuda_varlen.boundaries.cache_info().misses == flash, "made once a row, not once a layer"


@pytest.mark.parametrize(("asked", "widths", "flash"), [
    ({"attention_mask": Reach(window=10)}, (16, 16), 1),
    ({"attention_mask": Reach(chunk=10)}, (16, 16), 1),
    ({"attention_mask": None}, (24, 12), 1),  # zeros behind what is narrower, in steps of 8
    ({"attention_mask": None}, (320, 320), 0),  # wider than the kernel goes
    ({"attention_mask": None, "softcap": 30.0}, (16, 16), 0),
    ({"attention_mask": Reach(window=10), "s_aux": True}, (16, 16), 0),
])  # fmt: skip
def test_r4_r9_what_a_layer_asks_for_goes_to_flash_attention_where_it_knows_that(
    asked: dict[str, Any], widths: tuple[int, int], flash: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def multiplied(query: torch.Tensor, _key: Any, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return query.new_empty(
            1, query.shape[2], query.shape[1], value.shape[3]
        )  # it indexes, which fakes of CUDA lack

    monkeypatch.setattr(attention, "matmul_attention", multiplied)
    with FakeTensorMode(), torch.no_grad(), Calls() as calls:
        query, key, value = (
            torch.empty(1, heads, 60, width, dtype=torch.bfloat16, device=GPU)
            for heads, width in ((4, widths[0]), (2, widths[0]), (2, widths[1]))
        )
        sinks = torch.empty(4, dtype=torch.bfloat16, device=GPU) if "s_aux" in asked else None
        found, _ = document_attention(
            torch.nn.Identity(), query, key, value, document_tokens=(30, 30), **(asked | {"s_aux": sinks})
        )

    assert (found.shape, found.dtype, found.device) == ((1, 60, 4, widths[1]), torch.bfloat16, torch.device(GPU))
    assert sum("_varlen_attn" in name for name in calls.names) == flash


def test_documents_that_share_a_beginning_go_one_after_the_other_on_a_gpu() -> None:
    with FakeTensorMode(), torch.no_grad():
        query, key, value = (torch.empty(1, heads, 60, 16, dtype=torch.bfloat16, device=GPU) for heads in (4, 2, 2))
        found, weights = document_attention(
            torch.nn.Identity(), query, key, value, None, document_tokens=(30, 10, 20), parents=(-1, 0, 0)
        )

    assert (found.shape, found.dtype, found.device) == ((1, 60, 4, 16), torch.bfloat16, torch.device(GPU))
    assert weights is None


def test_gradients_have_the_shapes_of_queries_keys_and_values() -> None:
    query, key, value = (
        torch.empty(1, heads, 50, 16, dtype=torch.bfloat16, device="meta", requires_grad=True) for heads in (4, 2, 2)
    )

    found = cuda_varlen.packed_attention(query, key, value, document_tokens=(20, 30), scaling=None)
    found.sum().backward()

    assert found.shape == (1, 50, 4, 16)
    for one in (query, key, value):
        assert one.grad is not None
        assert (one.grad.shape, one.grad.dtype) == (one.shape, one.dtype)


def test_boundaries_are_where_documents_start_and_the_last_ends() -> None:
    ends, longest = cuda_varlen.boundaries((3, 5, 2), torch.device("cpu"))

    assert ends.tolist() == [0, 3, 8, 10]
    assert ends.dtype == torch.int32
    assert longest == 5


def test_the_cpu_does_not_take_this_path() -> None:
    assert not cuda_varlen.runs_here(*[torch.empty(1, 1, 1, 8, dtype=torch.bfloat16)] * 2, dropout=0.0)


def test_masters_and_moments_live_on_the_gpu_in_fp32() -> None:
    with FakeTensorMode():
        model = torch.nn.Module()
        for name, shape in {"matrix": (8, 4), "vector": (8,)}.items():
            model.register_parameter(name, torch.nn.Parameter(torch.empty(shape, dtype=torch.bfloat16, device=GPU)))
        masters = MasterWeights(model, build=adamw(weight_decay=0.1, betas=(0.9, 0.999), epsilon=1e-8))
        with torch.no_grad():
            for master in masters.masters.values():
                master.grad = torch.zeros_like(master)
            for optimizer in masters.optimizers:
                optimizer.step()
        state = masters.state()

    assert len(state) == 3 * len(masters.masters)
    for one in (*masters.masters.values(), *state.values()):
        assert (one.dtype, one.device) == (torch.float32, torch.device(GPU))

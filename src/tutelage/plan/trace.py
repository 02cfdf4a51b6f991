"""The engine's own forward and backward on tensors without memory: bytes and operations, counted, not guessed.

torch's fake tensors have shape, type and device and no storage. The row goes through `model.loss.row_loss`, as in
training, and every storage that comes to be is counted until it is gone; so a change to attention, norms or the loss
shows here without a formula to keep up with. What a kernel needs inside itself is not seen.

Source: torch.utils._python_dispatch.TorchDispatchMode and torch._subclasses.FakeTensorMode, PyTorch 2.9.
"""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from tutelage.errors import ConfigError
from tutelage.model.activation_checkpointing import recompute_activations
from tutelage.model.adapters.lora import add_lora, make_all_trainable
from tutelage.model.adapters.prompt_tuning import add_prompt
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.fused.norm_and_mlp import reduce_saved_activations
from tutelage.model.layers import decoder_layers, decoder_of
from tutelage.model.loss import row_loss
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.model.precision import cast_model
from tutelage.model.refusals import REFUSALS
from tutelage.optim.state_size import embedding_parameters
from tutelage.plan.model_shape import CUT_LAYERS, ModelShape
from tutelage.plan.workload import Workload
from tutelage.types import Address, PackedSequence

FAKE_TENSORS_LOG = "torch._subclasses.fake_tensor"
"""Where torch writes a traceback for each operator that fails, before it raises the same."""

TrainableShapes = Counter[tuple[tuple[int, ...], bool]]
"""How many parameters are trained of each shape, and of each kind: in an embedding or the head (True), or inside."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What one row needs beside parameters, gradients and optimizer state.

    Attributes:
        activation_bytes: alive when the last layer has run: what the backward pass will need.
        loss_bytes: more than that at the fullest moment of the loss, with its logits.
        backward_bytes: more than those two together, where a moment inside of a layer is fuller still.
        operations: floating-point operations of matrix products and attention, forward and backward.
        trainable: how many parameters are trained.
        parameters: all of them, adapters included.
        trained: shapes of the trainable parameters, whether each belongs to an embedding or the head, and how many
            there are.
    """

    activation_bytes: int
    loss_bytes: int
    backward_bytes: int
    operations: int
    trainable: int
    parameters: int
    trained: tuple[tuple[tuple[int, ...], bool, int], ...] = ()

    @property
    def peak_bytes(self) -> int:
        """The fullest moment of a row."""
        return self.activation_bytes + self.loss_bytes + self.backward_bytes


@dataclass(frozen=True, slots=True)
class _Depth:
    """A trace of some layers. Each number but the last grows by the same amount with every further equal layer.

    The backward pass is cut where it enters the first layer: before that, the fullest moment is in the last layer,
    which holds the more the more layers there are; after that, the number of layers does not matter.
    """

    held_bytes: int
    forward_peak_bytes: int
    loss_peak_bytes: int
    backward_peak_bytes: int
    operations: int
    trainable: int
    parameters: int
    end_peak_bytes: int

    def result(self, trained: TrainableShapes) -> Trace:
        peak = max(self.forward_peak_bytes, self.loss_peak_bytes, self.backward_peak_bytes, self.end_peak_bytes)
        loss = max(self.loss_peak_bytes - self.held_bytes, 0)
        return Trace(
            activation_bytes=self.held_bytes,
            loss_bytes=loss,
            backward_bytes=peak - self.held_bytes - loss,
            operations=self.operations,
            trainable=self.trainable,
            parameters=self.parameters,
            trained=tuple((*kind, count) for kind, count in sorted(trained.items())),
        )


def trace(model_shape: ModelShape, workload: Workload, *, device: str = "cpu") -> Trace:
    """Run one row of `workload` through the model.

    Equal layers are not all run: what the third adds to the second is what every further one adds.

    Args:
        model_shape: of the model.
        workload: what a step does.
        device: "cpu" or "cuda", which computes the loss in larger chunks, and attention in another way.

    Raises:
        ConfigError: the model or row cannot be run so, or what it does depends on the data.
    """
    if not model_shape.equal_layers or model_shape.layers <= CUT_LAYERS:
        depth, trained = _run(model_shape, workload, model_shape.layers, device)
        return depth.result(trained)
    (two_layers, two_layers_trained), (three_layers, trained) = (
        _run(model_shape, workload, layers, device) for layers in (CUT_LAYERS - 1, CUT_LAYERS)
    )
    further_layers = model_shape.layers - CUT_LAYERS
    extrapolated = [
        last + further_layers * (last - first)
        for first, last in zip(astuple(two_layers), astuple(three_layers), strict=True)
    ]
    all_trained = Counter(
        {kind: count + further_layers * (count - two_layers_trained[kind]) for kind, count in trained.items()}
    )
    return replace(_Depth(*extrapolated), end_peak_bytes=three_layers.end_peak_bytes).result(all_trained)


def _run(model_shape: ModelShape, workload: Workload, layers: int, device: str) -> tuple[_Depth, TrainableShapes]:
    model = prepared_model(model_shape.with_layers(layers), workload)
    fake_tensors = FakeTensorMode(allow_non_fake_inputs=True)
    with fake_tensors:
        materialize(model, parameter=without_memory, buffer=without_memory)
    row = row_of(workload)
    meter = Meter(memory=False, ignore=[*model.parameters(), *model.buffers()])
    marks: dict[str, int] = {}

    def decoder_done(*_: Any) -> None:
        marks["held"], marks["forward"] = meter.live_bytes, meter.peak_since()

    def first_layer_done(_module: Any, _inputs: Any, output: Any) -> None:
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        if hidden.requires_grad:
            hidden.register_hook(backward_came_to_first_layer)

    def backward_came_to_first_layer(_gradient: torch.Tensor) -> None:
        marks["backward"] = meter.peak_since()

    decoder = decoder_of(model)
    decoder.register_forward_hook(decoder_done)
    decoder_layers(model)[1][0].register_forward_hook(first_layer_done)
    try:
        with fake_tensor_log_disabled(), fake_tensors, meter:
            loss, _ = row_loss(model, row, emulated_device=device)
            loss_peak_bytes = meter.peak_since()
            loss.backward()
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            "This model cannot be planned, though it may train",
            where=f"{model_shape.kind}, documents of up to {max(workload.document_tokens)} tokens",
            found=str(error).strip().split("\n")[0][:200],
            expected="a forward and backward pass on tensors without memory",
            fix="train a few steps and read peak_bytes in record.jsonl",
        ) from error
    end_peak_bytes = meter.peak_since()
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    embeddings = embedding_parameters(model)
    trained = Counter(
        (tuple(parameter.shape), name in embeddings)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    )
    depth = _Depth(
        held_bytes=marks["held"],
        forward_peak_bytes=marks["forward"],
        loss_peak_bytes=loss_peak_bytes,
        backward_peak_bytes=marks.get("backward", end_peak_bytes),
        operations=meter.operations,
        trainable=sum(count for count, is_trainable in counts if is_trainable),
        parameters=sum(count for count, _ in counts),
        end_peak_bytes=end_peak_bytes,
    )
    return depth, trained


@contextmanager
def fake_tensor_log_disabled() -> Iterator[None]:
    """Keep torch from logging what is caught and reported in one sentence."""
    fake_tensor_log = logging.getLogger(FAKE_TENSORS_LOG)
    was_disabled, fake_tensor_log.disabled = fake_tensor_log.disabled, True
    try:
        yield
    finally:
        fake_tensor_log.disabled = was_disabled


def prepared_model(model: Any, workload: Workload) -> Any:
    """The meta model in the state in which the loop sees it."""
    model = with_trainable_parameters(model, workload)
    if workload.checkpointing:
        recompute_activations(model)
    reduce_saved_activations(model, recomputed=workload.checkpointing)
    cast_model(model, workload.precision)
    use_packed_attention(model)
    model.train()
    return model


def with_trainable_parameters(model: Any, workload: Workload) -> Any:
    """`model` with the trainable parameters of the method.

    Raises:
        ConfigError: a target or a pattern does not fit this model.
    """
    if workload.method == "full":
        return make_all_trainable(model, frozen=workload.frozen)[0]
    with next(model.parameters()).device:
        if workload.method == "prompt":
            return add_prompt(model, tokens=workload.virtual_tokens, text_ids=[0])[0]
        targets = workload.lora_targets if isinstance(workload.lora_targets, str) else list(workload.lora_targets)
        rank = workload.lora_rank
        return add_lora(model, rank=rank, alpha=rank, dropout=0.0, targets=targets, dora=workload.dora)[0]


def row_of(workload: Workload) -> PackedSequence:
    """A packed row of the lengths of `workload`; its token ids mean nothing, the last of them are trained."""
    parents = workload.parents or (-1,) * len(workload.document_tokens)
    lengths = workload.document_tokens
    starts: list[int] = []  # positions, which go on from the parent's
    for parent in parents:
        starts.append(0 if parent < 0 else starts[parent] + lengths[parent])
    weights = np.ones(sum(lengths), np.float32)
    weights[np.cumsum((0, *lengths[:-1]))] = 0.0  # nothing comes before the first token of a document
    weights[np.flatnonzero(weights)[: -workload.trained_tokens]] = 0.0
    return PackedSequence(
        ids=np.zeros(len(weights), np.int32),
        weights=weights,
        positions=np.concatenate(
            [np.arange(start, start + length, dtype=np.int32) for start, length in zip(starts, lengths, strict=True)]
        ),
        document_tokens=lengths,
        addresses=(Address("planned", 1),) * len(lengths),
        parents=workload.parents,
    )


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def materialize(
    model: torch.nn.Module,
    *,
    parameter: Callable[[torch.Size, torch.dtype], torch.Tensor],
    buffer: Callable[[torch.Size, torch.dtype], torch.Tensor],
) -> None:
    """Replace the meta tensors of `model`; tied ones stay tied, and gradients are dropped as soon as they are computed.

    `optim.master_weights` keeps gradients elsewhere, in fp32.
    """
    materialized: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, meta_parameter in module._parameters.items():
            if meta_parameter is not None:
                if id(meta_parameter) not in materialized:
                    materialized[id(meta_parameter)] = torch.nn.Parameter(
                        parameter(meta_parameter.shape, meta_parameter.dtype),
                        requires_grad=meta_parameter.requires_grad,
                    )
                    if meta_parameter.requires_grad:
                        materialized[id(meta_parameter)].register_post_accumulate_grad_hook(_drop_gradient)
                module._parameters[name] = materialized[id(meta_parameter)]
        for name, meta_buffer in module._buffers.items():
            if meta_buffer is not None:
                module._buffers[name] = buffer(meta_buffer.shape, meta_buffer.dtype)


def without_memory(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """A tensor for `FakeTensorMode`, on the CPU, as attention chooses its kernel by the device."""
    return torch.empty(shape, dtype=dtype, device="cpu")


class Meter(TorchDispatchMode):
    """Counts bytes alive now and at most, and the operations of matmuls.

    Args:
        memory: whether tensors have values; where they have none, each value that is read counts as 0.
        ignore: tensors counted elsewhere.
    """

    def __init__(self, *, memory: bool, ignore: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        self.live_bytes = 0
        self._peak_bytes = 0
        self.operations = 0
        self._memory = memory
        self._live_bytes_by_storage: dict[int, int] = {tensor.untyped_storage()._cdata: 0 for tensor in ignore}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self._memory and func is torch.ops.aten._local_scalar_dense.default:
            return 0.0
        output = _operator_output(func, args, kwargs or {}, memory=self._memory)
        count = _FLOP_COUNTERS.get(func._overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=output)
        for leaf in tree_iter(output):
            if isinstance(leaf, torch.Tensor):
                self._watch(leaf)
        return output

    def _watch(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live_bytes_by_storage:
            return
        self._live_bytes_by_storage[key] = storage.nbytes()
        self.live_bytes += self._live_bytes_by_storage[key]
        self._peak_bytes = max(self._peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._release, key)

    def peak_since(self) -> int:
        """Most bytes alive at once since the last call."""
        peak, self._peak_bytes = self._peak_bytes, self.live_bytes
        return peak

    def _release(self, key: int) -> None:
        self.live_bytes -= self._live_bytes_by_storage.pop(key, 0)


def _operator_output(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, memory: bool) -> Any:
    """What an operator returns. Without memory torch knows grouped matmuls, those of experts, in bf16 only."""
    if memory or func is not torch.ops.aten._grouped_mm.default or args[0].dtype == torch.bfloat16:
        return func(*args, **kwargs)
    bf16_args = (
        argument.bfloat16() if isinstance(argument, torch.Tensor) and argument.is_floating_point() else argument
        for argument in args
    )
    return func(*bf16_args, **kwargs).to(args[0].dtype)


def _grouped_mm_flops(mat1: Any, mat2: Any, *_: Any, out_val: Any, **__: Any) -> int:
    """Operations of a grouped matmul: two for each number of the output and each number summed for it.

    Where groups split the summed dimension, each number of the output sums its own group: the dimension once for all.
    """
    if mat1.ndim == mat2.ndim == 2:
        return 2 * int(mat1.numel()) * int(mat2.shape[1])
    return 2 * int(out_val.numel()) * int(mat1.shape[-1])


def _cpu_attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _cpu_attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


_FLOP_COUNTERS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    torch.ops.aten._grouped_mm: _grouped_mm_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_attention_backward_flops,
}
"""torch's own counts, with those of the CPU's attention and of grouped matmuls, which it leaves out."""

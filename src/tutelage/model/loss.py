"""The loss as (sum, count): cross-entropy at trained positions only, in chunks, its gradient taken on the way.

The vocabulary-wide logits exist for one chunk at a time and never for positions that are not trained. The caller
divides once, by the count of the whole batch.

Shape legend: N = trained positions, D = hidden width, V = vocabulary, R = tokens of a packed row, C = one chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from tutelage.model.adapters.adapter_set import without_adapter
from tutelage.model.adapters.prompt_tuning import DecoderInputs, decoder_inputs
from tutelage.model.architecture import PLAIN, Architecture, bare_model, dummy_token_inputs, native_inputs
from tutelage.model.base_outputs import BaseOutputs, HeldToBase, kept_head
from tutelage.model.kl_to_base import kl_to_base_of
from tutelage.model.layers import decoder_of
from tutelage.model.logits_buffers import LogitsBuffers, cap_slope
from tutelage.model.output_head import Head, forward_logits, head_of
from tutelage.model.token_weights import WeighsTokens
from tutelage.types import PackedSequence

CHUNK_POSITIONS = {"cpu": 256, "cuda": 1024}
"""Positions whose logits exist at once: 256 x 49,152 fp32 logits are 48 MiB. A GPU has more room, and reads and writes
the gradient of the whole head once a chunk."""


def hidden_states(
    model: Any, row: PackedSequence, *, architecture: Architecture = PLAIN, emulated_device: str | None = None
) -> tuple[torch.Tensor, DecoderInputs]:
    """What the decoder makes of a packed row, [1, R, D], and what it was fed.

    Args:
        model: a causal language model that attends as it trains (`model.architecture.use_training_attention`).
        row: ids [R].
        architecture: what was tried on the model.
        emulated_device: as in `row_loss`.
    """
    decoder, fed = decoder_of(model), _row_inputs(model, row)
    if architecture.attention == "own":
        return decoder(**native_inputs(decoder, _single_document_inputs(fed, row)))[0], fed
    emulation = {} if emulated_device is None else {"emulated_device": emulated_device}
    return decoder(**fed.inputs, **emulation, use_cache=False)[0], fed


def _row_inputs(model: Any, row: PackedSequence) -> DecoderInputs:
    device = next(model.parameters()).device
    ids_R = torch.from_numpy(row.ids).to(device, torch.long, non_blocking=True)
    positions_R = torch.from_numpy(row.positions).to(device, torch.long, non_blocking=True)
    return decoder_inputs(model, ids_R, positions_R, row.document_tokens, row.parents)


def _single_document_inputs(fed: DecoderInputs, row: PackedSequence) -> dict[str, Any]:
    """What a model with its own attention is given: one document, from its first position on."""
    assert len(row.document_tokens) == 1, "its own attention would mix the documents of a row"
    return {name: value for name, value in fed.inputs.items() if name in ("input_ids", "inputs_embeds")}


def row_loss(
    model: Any,
    row: PackedSequence,
    *,
    architecture: Architecture = PLAIN,
    emulated_device: str | None = None,
    token_weights: WeighsTokens | None = None,
    held: HeldToBase | None = None,
) -> tuple[torch.Tensor, int]:
    """Summed weighted cross-entropy of a packed row, and how many tokens it was summed over.

    With `token_weights` the gradient is that of the sum in which each token has such a weight as well; with `held` that
    of a replayed row has the divergence from the base, too (`model.kl_to_base`). What is returned is the sum without;
    `held.measured` has the divergence.

    Args:
        model: a causal language model that attends as it trains (`model.architecture.use_training_attention`).
        row: ids and weights [R].
        architecture: what was tried on the model (`model.architecture.architecture_of`).
        emulated_device: compute as on this kind of device, which the planner emulates; None: as on its own.
        token_weights: how tokens are weighted in the gradient; None leaves them their weights in the row.
        held: how replayed rows are held to the base; None where they are not.

    Returns:
        A scalar fp32 tensor that can be differentiated, and the number of tokens with a non-zero weight.
    """
    targets = np.flatnonzero(row.weights)  # here and not on the device, where asking means waiting for it
    if architecture.head == "whole":
        return _loss_of_whole(model, row, targets, token_weights), len(targets)
    held = held if row.replayed and torch.is_grad_enabled() and len(targets) else None
    base_1RD = None if held is None or held.outputs is not None else _base_hidden_states(model, row, architecture)
    hidden_1RD, fed = hidden_states(model, row, architecture=architecture, emulated_device=emulated_device)
    device = hidden_1RD.device
    # The state of the token before predicts a token. A document's first has weight 0: none reaches over a boundary.
    predecessors_N = torch.from_numpy(row.predecessors()[targets]).to(device, torch.long)
    hidden_ND = hidden_1RD[0].index_select(0, fed.places(predecessors_N))  # its gradient adds up faster than of [...]
    labels_N = torch.from_numpy(row.ids[targets]).to(device, torch.long)
    weights_N, positions = (
        torch.from_numpy(row.weights[targets]).to(device),
        CHUNK_POSITIONS[emulated_device or device.type],
    )
    if architecture.head == "own":
        chunks = tuple(tensor.split(positions) for tensor in (hidden_ND, labels_N, weights_N))
        return _loss_of_own_head(model, architecture, hidden_ND, chunks, token_weights), len(targets)
    head = head_of(model)
    loss = _loss_of_product(head, hidden_ND, (labels_N, weights_N), positions, token_weights)
    if held is not None:
        if base_1RD is not None:
            base_ND, base_head = base_1RD[0].index_select(0, fed.places(predecessors_N)), None
        else:
            base_ND, base_head = _kept_outputs(held, row)
        divergence = kl_to_base_of(hidden_ND, base_ND, head, weights_N, positions=positions, base_head=base_head)
        held.measured.add(divergence.detach(), float(row.weights[targets].sum()))
        loss = loss + held.strength * (divergence - divergence.detach())
    return loss, len(targets)


def _loss_of_product(
    head: Head,
    hidden_ND: torch.Tensor,
    labels_and_weights: tuple[torch.Tensor, torch.Tensor],
    positions: int,
    token_weights: WeighsTokens | None,
) -> torch.Tensor:
    loss: torch.Tensor = _TrainedCrossEntropy.apply(  # type: ignore[no-untyped-call] # torch leaves it untyped
        hidden_ND,
        head.weight_VD,
        head.bias_V,
        head,
        *labels_and_weights,
        torch.is_grad_enabled() and not torch.is_inference_mode_enabled(),
        positions,
        token_weights,
    )
    return loss


def _kept_outputs(held: HeldToBase, row: PackedSequence) -> tuple[torch.Tensor, Head]:
    assert held.outputs is not None, "the base is the model without its adapter, or was kept"
    return held.outputs.of(row), held.outputs.head


@torch.no_grad()
def base_outputs_of(model: Any, rows: Iterable[PackedSequence], *, architecture: Architecture = PLAIN) -> BaseOutputs:
    """What a model that is still the base makes of rows, kept with its head; nothing is drawn meanwhile."""
    outputs, was_training = BaseOutputs(kept_head(head_of(model))), model.training
    model.eval()
    for row in rows:
        hidden_1RD, fed = hidden_states(model, row, architecture=architecture)
        predecessors = row.predecessors()[np.flatnonzero(row.weights)]
        places_N = fed.places(torch.from_numpy(predecessors).to(hidden_1RD.device, torch.long))
        outputs.keep(row, hidden_1RD[0].index_select(0, places_N))
    model.train(was_training)
    return outputs


def _base_hidden_states(model: Any, row: PackedSequence, architecture: Architecture) -> torch.Tensor:
    """What the base makes of a row, [1, R, D]: with the adapter switched off and nothing drawn.

    Before the model's own forward: PEFT marks the adapter as not learning meanwhile.
    """
    with torch.no_grad(), without_adapter(model):
        return hidden_states(model, row, architecture=architecture)[0]


def _loss_of_own_head(
    model: Any,
    architecture: Architecture,
    hidden_ND: torch.Tensor,
    chunks: Sequence[Sequence[torch.Tensor]],
    token_weights: WeighsTokens | None,
) -> torch.Tensor:
    """The same through the end of the model's own forward, chunk by chunk, computed again in the backward pass."""
    base_model = bare_model(model)
    arguments = native_inputs(
        base_model, dummy_token_inputs(hidden_ND.device) if architecture.attention == "documents" else {}
    )

    def summed(hidden_CD: torch.Tensor, labels_C: torch.Tensor, weights_C: torch.Tensor) -> torch.Tensor:
        logits_CV = forward_logits(base_model, hidden_CD, arguments).float()
        return _summed(logits_CV, labels_C, weights_C, token_weights)

    total = hidden_ND.sum(dtype=torch.float32) * 0.0  # has a graph where nothing is trained
    for chunk in zip(*chunks, strict=True):
        if len(chunk[0]):
            total = total + checkpoint(summed, *chunk, use_reentrant=False, preserve_rng_state=False)
    return total


def _loss_of_whole(
    model: Any, row: PackedSequence, targets: NDArray[np.intp], token_weights: WeighsTokens | None
) -> torch.Tensor:
    """The same through the model's whole forward, where it cannot be asked in parts."""
    base_model, fed = bare_model(model), _row_inputs(model, row)
    logits_RV = base_model(**native_inputs(base_model, _single_document_inputs(fed, row))).logits[0]
    device = logits_RV.device
    predecessors_N = torch.from_numpy(row.predecessors()[targets]).to(device, torch.long)
    logits_NV = logits_RV.index_select(0, fed.places(predecessors_N)).float()
    labels_N = torch.from_numpy(row.ids[targets]).to(device, torch.long)
    weights_N = torch.from_numpy(row.weights[targets]).to(device)
    return _summed(logits_NV, labels_N, weights_N, token_weights)


def _summed(
    logits_CV: torch.Tensor, labels_C: torch.Tensor, weights_C: torch.Tensor, token_weights: WeighsTokens | None
) -> torch.Tensor:
    """The weighted sum by autograd; with `token_weights` it has the gradient of theirs."""
    loss_C = cross_entropy(logits_CV, labels_C, reduction="none")
    total = (loss_C * weights_C).sum()
    if token_weights is None:
        return total
    scale_C = token_weights.of(loss_C.detach(), logits_CV.detach().softmax(dim=1))
    if not torch.is_grad_enabled():
        return total
    reweighted = (loss_C * (weights_C * scale_C)).sum()
    return reweighted + (total - reweighted).detach()


class _TrainedCrossEntropy(torch.autograd.Function):
    """Sum of weighted cross-entropies; forward also computes the gradients, chunk by chunk."""

    @staticmethod
    def forward(  # noqa: PLR0917 autograd hands its inputs over by position
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        head: Head,
        labels_N: torch.Tensor,
        weights_N: torch.Tensor,
        grad_enabled: bool,
        positions: int,
        token_weights: WeighsTokens | None,
    ) -> torch.Tensor:
        # needs_input_grad speaks of the inputs only: it stays True where gradients are switched off.
        need_hidden, need_weight, need_bias = (grad_enabled and needs_grad for needs_grad in ctx.needs_input_grad[:3])
        grad_ND = torch.empty_like(hidden_ND) if need_hidden else None
        grad_VD = torch.empty_like(weight_VD) if need_weight else None
        grad_V = torch.zeros_like(bias_V) if need_bias and bias_V is not None else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        buffers = LogitsBuffers(hidden_ND, weight_VD, positions)
        for start in range(0, len(hidden_ND), positions):
            chunk = slice(start, start + positions)
            hidden_CD, labels_C1, weights_C = hidden_ND[chunk], labels_N[chunk, None], weights_N[chunk]
            logits_CV = buffers.logits(head, hidden_CD, weight_VD)
            slope_CV = cap_slope(head, logits_CV)
            loss_C, gradient_CV, token_weights_C = _cross_entropy(logits_CV, labels_C1, token_weights)
            total += (loss_C * weights_C).sum()
            if not (need_hidden or need_weight or need_bias):
                continue
            if slope_CV is not None:
                gradient_CV.mul_(slope_CV)
            # Weights go to the narrow side of each product: a pass over V columns costs as much as the softmax.
            if token_weights_C is not None:
                weights_C = weights_C * token_weights_C
            scale_C1 = (weights_C * head.scale)[:, None]
            if grad_V is not None:
                grad_V += (gradient_CV * scale_C1).sum(dim=0).to(grad_V.dtype)
            small_CV = buffers.narrowed(gradient_CV)
            if grad_ND is not None:
                torch.mm(small_CV, weight_VD, out=grad_ND[chunk]).mul_(scale_C1)
            if grad_VD is not None:  # the first chunk overwrites what it finds
                scaled_CD = (hidden_CD * scale_C1).to(hidden_CD.dtype)
                torch.addmm(grad_VD, small_CV.T, scaled_CD, beta=float(start > 0), out=grad_VD)
        if grad_VD is not None and len(hidden_ND) == 0:
            grad_VD.zero_()
        ctx.save_for_backward(grad_ND, grad_VD, grad_V)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_ND, grad_VD, grad_V = ctx.saved_tensors
        scale = upstream[0]
        return (
            None if grad_ND is None else grad_ND * scale.to(grad_ND.dtype),
            None if grad_VD is None else grad_VD.mul_(scale.to(grad_VD.dtype)),
            None if grad_V is None else grad_V * scale.to(grad_V.dtype),
            None,
            None,
            None,
            None,
            None,
            None,
        )


def _cross_entropy(
    logits_CV: torch.Tensor, labels_C1: torch.Tensor, token_weights: WeighsTokens | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Cross-entropy [C] and its gradient by the logits [C, V], with one exponential for each logit, in their place.

    Third are the weights that `token_weights` give, [C]. The largest probability p of a row is at least 1/V, so
    log(sum exp) = its logit - log p loses nothing.
    """
    largest_C = logits_CV.amax(dim=1)
    label_C = logits_CV.gather(1, labels_C1)[:, 0]
    # Written over its own input, whose rows the kernel has read by then; tests compare with cross_entropy.
    gradient_CV = torch.softmax(logits_CV, 1, out=logits_CV)
    loss_C = largest_C - gradient_CV.amax(dim=1).log() - label_C
    # By the probabilities, which the next line spoils.
    token_weights_C = None if token_weights is None else token_weights.of(loss_C, gradient_CV)
    gradient_CV.scatter_add_(1, labels_C1, gradient_CV.new_full(labels_C1.shape, -1.0))
    return loss_C, gradient_CV, token_weights_C

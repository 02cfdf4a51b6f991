"""Attention of one step of generation, through transformers' attention interface.

A step's row holds one new token of each sequence that goes on, and all tokens of each prompt that begins. The former
meet the keys on their shelf in batched products; the latter are documents of a packed row (`model.attention.packed`),
with what they continue laid before them.

Shape legend: H = query heads, G = key/value heads, N = H / G, T = tokens of a step's row, S = sequences of a shelf,
C = keys that a shelf's products meet, P = tokens of a beginning, K = head width, V = that of values, L = C + P.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tutelage.generate.kv_cache import Beginning, LayerKV, Shelf
from tutelage.generate.kv_cache import Sequence as CachedSequence
from tutelage.model.attention.layout import FULL, Reach, UnknownAttentionError, reach_mask
from tutelage.model.attention.packed import NOT_ATTENTION, document_attention

NAME = "tutelage_cached"


@dataclass(frozen=True, slots=True)
class Prefill:
    """Tokens of a prompt that are computed in a step.

    Attributes:
        span: their places in the step's row.
        beginning: what the prompt continues.
        sequence: takes their keys and values, behind those that it holds; None where they are a beginning themselves.
    """

    span: slice
    beginning: Beginning
    sequence: CachedSequence | None


@dataclass(frozen=True, slots=True)
class DecodeGroup:
    """The next token of every sequence of a shelf that grows, in the order of its rows."""

    span: slice
    shelf: Shelf


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """What a layer asks: tokens with their queries, keys and values, and how scores are made of them.

    Attributes:
        layer: tells layers apart.
        query_1HTK: and the two others, of the same tokens.
        key_1GTK: keys.
        value_1GTV: values.
        reach: how far back a token sees.
        scaling: of scores; None: one over the root of the head width.
        cap: scores become cap * tanh(score / cap).
        sinks_H: scores that take their share of the softmax and give nothing.
    """

    layer: int
    query_1HTK: torch.Tensor
    key_1GTK: torch.Tensor
    value_1GTV: torch.Tensor
    reach: Reach
    scaling: float | None
    cap: float | None
    sinks_H: torch.Tensor | None

    def part(self, span: slice) -> LayerInputs:
        """Some of the tokens alone."""
        query, key, value = (tensor[:, :, span] for tensor in (self.query_1HTK, self.key_1GTK, self.value_1GTV))
        return replace(self, query_1HTK=query, key_1GTK=key, value_1GTV=value)


@dataclass(frozen=True, slots=True)
class Newest:
    """Where the new tokens of a shelf go.

    Attributes:
        rows_S: the rows.
        places_S: the place in each.
        longest: tokens of the longest row, its new one included.
    """

    rows_S: torch.Tensor
    places_S: torch.Tensor
    longest: int


@dataclass(slots=True)
class Step:
    """What one forward pass computes; each layer asks it by `attend`."""

    decodes: Sequence[DecodeGroup]
    prefills: Sequence[Prefill]
    _masks: dict[tuple[int, Reach, int], torch.Tensor | None] = field(default_factory=dict)
    _biases: dict[tuple[int, Reach], torch.Tensor | None] = field(default_factory=dict)
    _places: dict[int, Newest] = field(default_factory=dict)

    def attend(self, inputs: LayerInputs) -> torch.Tensor:
        """[1, T, H, V]; the new keys and values are kept."""
        _, heads, tokens, _ = inputs.query_1HTK.shape
        if len(self.decodes) == 1 and not self.prefills:
            return self._decoded(self.decodes[0], inputs)[None]
        out_1THV = inputs.query_1HTK.new_empty(1, tokens, heads, inputs.value_1GTV.shape[3])
        for group in self.decodes:
            out_1THV[0, group.span] = self._decoded(group, inputs.part(group.span))
        if self.prefills:
            rest = slice(self.prefills[0].span.start, tokens)
            out_1THV[:, rest] = self._prefilled(inputs.part(rest))
        return out_1THV

    def _decoded(self, group: DecodeGroup, inputs: LayerInputs) -> torch.Tensor:
        """[S, H, V] of the newest token of each sequence of a shelf; `inputs` hold S tokens."""
        shelf, layer = group.shelf, inputs.layer
        key_GSK, value_GSV = inputs.key_1GTK[0], inputs.value_1GTV[0]
        newest = self._newest(shelf, key_GSK.device)
        keys_SGCK, values_SGCV = shelf.layer(layer, key_GSK[None], value_GSV[None])
        keys_SGCK[newest.rows_S, :, newest.places_S] = key_GSK.transpose(0, 1)
        values_SGCV[newest.rows_S, :, newest.places_S] = value_GSV.transpose(0, 1)
        sequences = len(shelf.growing)
        query_SGNK = inputs.query_1HTK[0].transpose(0, 1).unflatten(1, (len(key_GSK), -1))
        if inputs.cap is None and inputs.sinks_H is None and not shelf.beginning.tokens:
            return torch.nn.functional.scaled_dot_product_attention(
                query_SGNK,
                keys_SGCK[:sequences, :, : newest.longest],
                values_SGCV[:sequences, :, : newest.longest],
                attn_mask=self._bias(shelf, inputs.reach, query_SGNK),
                scale=inputs.scaling,
            ).flatten(1, 2)
        # Whole rows, as products copy what has gaps.
        return self._by_products(
            shelf, query_SGNK.contiguous(), (keys_SGCK[:sequences], values_SGCV[:sequences]), inputs
        )

    def _by_products(self, shelf: Shelf, query_SGNK: torch.Tensor, kept: LayerKV, inputs: LayerInputs) -> torch.Tensor:
        """[S, H, V] where a beginning is met apart, or scores are more than scaled products."""
        beginning, (keys_SGCK, values_SGCV) = shelf.beginning, kept
        shape_SGN, sequences = query_SGNK.shape[:3], len(query_SGNK)
        scores_SGNL = torch.bmm(query_SGNK.flatten(0, 1), keys_SGCK.flatten(0, 1).transpose(1, 2)).view(*shape_SGN, -1)
        if beginning.tokens:
            begun_GPK, begun_GPV = beginning.layers[inputs.layer]
            query_GMK = query_SGNK.transpose(0, 1).flatten(1, 2)  # M = S x N
            begun_GMP = torch.bmm(query_GMK, begun_GPK.transpose(1, 2))
            begun_SGNP = begun_GMP.unflatten(1, (sequences, -1)).transpose(0, 1)
            scores_SGNL = torch.cat([begun_SGNP, scores_SGNL], dim=3)
        hidden_S11L = self._hidden(shelf, keys_SGCK.shape[2], inputs.reach, scores_SGNL.device)
        weights_SGNL = _weights(scores_SGNL, hidden_S11L, inputs).to(values_SGCV.dtype)
        own_SGNC = weights_SGNL[..., beginning.tokens :]
        out_SGNV = torch.bmm(own_SGNC.flatten(0, 1), values_SGCV.flatten(0, 1)).view(*shape_SGN, -1)
        if beginning.tokens:
            begun_GMP = weights_SGNL[..., : beginning.tokens].transpose(0, 1).flatten(1, 2)
            out_SGNV += torch.bmm(begun_GMP, begun_GPV).unflatten(1, (sequences, -1)).transpose(0, 1)
        return out_SGNV.flatten(1, 2)

    def _newest(self, shelf: Shelf, device: torch.device) -> Newest:
        """Where the new tokens of a shelf's rows go."""
        if id(shelf) not in self._places:
            places = [sequence.held for sequence in shelf.growing]
            places_S = torch.tensor(places, device=device)
            self._places[id(shelf)] = Newest(torch.arange(len(places), device=device), places_S, max(places) + 1)
        return self._places[id(shelf)]

    def _hidden(self, shelf: Shelf, keys: int, reach: Reach, device: torch.device) -> torch.Tensor | None:
        """[S, 1, 1, L]: whether one of `keys` keys behind the beginning's is hidden from a row's newest token.

        None where all are seen.
        """
        number = (id(shelf), reach, keys)
        if number not in self._masks:
            places_S = self._newest(shelf, device).places_S
            begun = shelf.beginning.tokens
            key_L = torch.arange(begun + keys, device=device)
            newest_S1 = (places_S + begun)[:, None]
            hidden_SL = key_L > newest_S1
            if reach.window is not None:
                hidden_SL |= key_L <= newest_S1 - reach.window
            if reach.chunk is not None:
                hidden_SL |= key_L < newest_S1 // reach.chunk * reach.chunk
            self._masks[number] = hidden_SL[:, None, None] if bool(hidden_SL.any()) else None
        return self._masks[number]

    def _bias(self, shelf: Shelf, reach: Reach, query_SGNK: torch.Tensor) -> torch.Tensor | None:
        """[S, G, N, L] in the queries' precision: minus infinity for hidden keys; None where all are seen."""
        number = (id(shelf), reach)
        if number not in self._biases:
            longest = self._newest(shelf, query_SGNK.device).longest
            hidden_S11L = self._hidden(shelf, longest, reach, query_SGNK.device)
            if hidden_S11L is not None:
                bias_S11L = query_SGNK.new_zeros(hidden_S11L.shape).masked_fill_(hidden_S11L, float("-inf"))
                self._biases[number] = bias_S11L.expand(*query_SGNK.shape[:3], -1)
            else:
                self._biases[number] = None
        return self._biases[number]

    def _prefilled(self, inputs: LayerInputs) -> torch.Tensor:
        """[1, T, H, V] of the prompts' tokens; `inputs` hold these T alone."""
        layer, query_1HTK, key_1GTK, value_1GTV = inputs.layer, inputs.query_1HTK, inputs.key_1GTK, inputs.value_1GTV
        offset = self.prefills[0].span.start
        lengths, parents, context = _documents(self.prefills)
        before = [_laid_before(item, layer) for item in context]
        for prefill in self.prefills:
            span = slice(prefill.span.start - offset, prefill.span.stop - offset)
            keys_GTK, values_GTV = key_1GTK[0, :, span], value_1GTV[0, :, span]
            if prefill.sequence is None:
                prefill.beginning.layers[layer] = (keys_GTK.contiguous(), values_GTV.contiguous())
            else:
                sequence = prefill.sequence
                assert sequence.shelf is not None
                sequence.shelf.write(layer, sequence, keys_GTK, values_GTV)
        tokens_before = sum(keys_GTK.shape[1] for keys_GTK, _ in before)
        if tokens_before:  # their own outputs are known, so any query will do
            query_1HTK = torch.nn.functional.pad(query_1HTK, (0, 0, tokens_before, 0))
            key_1GTK = torch.cat([*(keys_GTK[None] for keys_GTK, _ in before), key_1GTK], dim=2)
            value_1GTV = torch.cat([*(values_GTV[None] for _, values_GTV in before), value_1GTV], dim=2)
        out_1THV, _ = document_attention(
            _NO_MODULE, query_1HTK, key_1GTK, value_1GTV, inputs.reach, document_tokens=lengths, parents=parents,
            scaling=inputs.scaling, softcap=inputs.cap, s_aux=inputs.sinks_H,
        )  # fmt: skip
        return out_1THV[:, tokens_before:]


_NO_MODULE = torch.nn.Identity()
_STEP: ContextVar[Step | None] = ContextVar("generation_step", default=None)

_Context = Beginning | CachedSequence


def _documents(prefills: Sequence[Prefill]) -> tuple[tuple[int, ...], tuple[int, ...], list[_Context]]:
    """The stretches of a row, what each continues, and those that are laid before the prompts: in that order."""
    context: list[_Context] = []
    numbers: dict[int, int] = {}
    lengths: list[int] = []
    parents: list[int] = []
    last: list[int] = []
    for prefill in prefills:
        parent = -1
        beginning, sequence = prefill.beginning, prefill.sequence
        if sequence is not None and beginning.tokens:
            if id(beginning) not in numbers:
                numbers[id(beginning)] = len(context)
                context.append(beginning)
                lengths.append(beginning.tokens)
                parents.append(-1)
            parent = numbers[id(beginning)]
        if sequence is not None and sequence.tokens:
            context.append(sequence)
            lengths.append(sequence.tokens)
            parents.append(parent)
            parent = len(context) - 1
        last.append(parent)
    lengths += [prefill.span.stop - prefill.span.start for prefill in prefills]
    parents += last
    return tuple(lengths), tuple(parents) if any(parent >= 0 for parent in parents) else (), context


def _laid_before(item: _Context, layer: int) -> LayerKV:
    if isinstance(item, Beginning):
        return item.layers[layer]
    assert item.shelf is not None
    keys_SGCK, values_SGCV = item.shelf.layers[layer]
    own = slice(item.inlined_tokens, item.held)
    return keys_SGCK[item.row, :, own], values_SGCV[item.row, :, own]


def _weights(scores_SGNL: torch.Tensor, hidden_S11L: torch.Tensor | None, inputs: LayerInputs) -> torch.Tensor:
    """[S, G, N, L] in fp32 or wider: what each key counts."""
    scores_SGNL = scores_SGNL.to(torch.promote_types(scores_SGNL.dtype, torch.float32))
    scores_SGNL.mul_(inputs.query_1HTK.shape[3] ** -0.5 if inputs.scaling is None else inputs.scaling)
    if inputs.cap is not None:
        scores_SGNL.div_(inputs.cap).tanh_().mul_(inputs.cap)
    if hidden_S11L is not None:
        scores_SGNL.masked_fill_(hidden_S11L, float("-inf"))
    if inputs.sinks_H is None:
        return torch.softmax(scores_SGNL, -1)
    sinks_1GN1 = inputs.sinks_H.to(scores_SGNL.dtype).view(1, *scores_SGNL.shape[1:3], 1)
    sinks_SGN1 = sinks_1GN1.expand(len(scores_SGNL), -1, -1, 1)
    return torch.softmax(torch.cat([scores_SGNL, sinks_SGN1], -1), -1)[..., :-1]


def step_attention(
    module: torch.nn.Module,
    query_1HTK: torch.Tensor,
    key_1GTK: torch.Tensor,
    value_1GTV: torch.Tensor,
    attention_mask: Reach | torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001 part of the interface; nothing is dropped in evaluation mode
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of the step under way (`attending`).

    Returns:
        [1, T, H, V] and None (no attention weights).

    Raises:
        UnknownAttentionError: the model asks for something this function does not compute.
    """
    step = _STEP.get()
    if step is None or query_1HTK.shape[0] != 1 or key_1GTK.shape[2] != query_1HTK.shape[2]:
        raise UnknownAttentionError("cached attention takes the row of a step")
    tensors = [
        name for name, argument in others.items() if isinstance(argument, torch.Tensor) and name not in NOT_ATTENTION
    ]
    if tensors or is_causal is False or position_bias is not None or isinstance(attention_mask, torch.Tensor):
        raise UnknownAttentionError("attention with a bias, or with tokens that look ahead, is not known here")
    reach = attention_mask if isinstance(attention_mask, Reach) else FULL
    inputs = LayerInputs(id(module), query_1HTK, key_1GTK, value_1GTV, reach, scaling, softcap, s_aux)
    return step.attend(inputs), None


@contextmanager
def attending(step: Step) -> Iterator[None]:
    """In the block, models inside of `cached_attention` attend as the step says."""
    token = _STEP.set(step)
    try:
        yield
    finally:
        _STEP.reset(token)


def configs_of_attention(model: Any) -> list[Any]:
    """The configurations that say how the parts of a model attend, the outermost first."""
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

    AttentionInterface.register(NAME, step_attention)
    AttentionMaskInterface.register(NAME, reach_mask)
    configs = {id(part.config): part.config for part in model.modules() if isinstance(part, PreTrainedModel)}
    return list(configs.values())


@contextmanager
def cached_attention(configs: Sequence[Any]) -> Iterator[None]:
    """In the block, a model with these configurations attends as the step under way says; behind it as before.

    `set_attn_implementation` would do the same, but takes a millisecond, and this is done for every reply.
    """
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = NAME
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name

"""What a model is, as far as training depends on it: tried on the model itself, never looked up by its name.

Shape legend: T = tokens that are tried, D = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tutelage.errors import ConfigError, DataError, cause_of
from tutelage.model.adapters.prompt_tuning import without_prompt
from tutelage.model.attention.isolation_check import (
    SHORT,
    MaxLengths,
    documents_are_isolated,
    equal_but_for_rounding,
    prefixes_can_be_shared,
    rounding_noise,
)
from tutelage.model.attention.packed import use_generation_attention, use_packed_attention
from tutelage.model.layers import decoder_of
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.model.output_head import HeadKind, accepted_arguments, forward_logits, head_of, product_logits
from tutelage.model.refusals import REFUSALS

TRIED_TOKENS = 24
ID_STEP = 13
"""Ids of the trial, spread over the vocabulary."""

Attention = Literal["documents", "own"]
"""Which attention a model trains with: `document_attention`, or its own with one document a row."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What was tried on a model.

    Attributes:
        attention: "documents" where `document_attention` gives what the model's own attention gives;
            "own" where only the model's own does, one document a row.
        head: who makes its logits, see `model.output_head`.
        documents_isolated: documents of a row are kept apart, so that they can share one.
        shares_prefixes: documents of a row can continue one beginning that is laid down once.
        draws_noise: two passes in training mode differ: dropout of the checkpoint's, or of its adapter.
    """

    attention: Attention = "documents"
    head: HeadKind = "product"
    documents_isolated: bool = True
    shares_prefixes: bool = True
    draws_noise: bool = False


PLAIN = Architecture()
"""A model that attends inside documents, whose logits are a product."""


def architecture_of(model: Any, longest: MaxLengths = SHORT) -> Architecture:
    """Try a model; afterwards it attends as it trains (`use_training_attention`), in the mode it was in.

    Args:
        model: a causal language model of transformers, with or without PEFT around it; virtual tokens are left out.
        longest: how long the rows may become that it will be given.

    Raises:
        ConfigError: its own forward fails, or looks at later tokens, so that it is no causal language model.
    """
    base_model = bare_model(model)
    with _undisturbed(base_model), torch.no_grad():
        use_generation_attention(base_model)
        ids_1T = _probe_ids(base_model)
        native_logits_TV = _native_logits(base_model, ids_1T)
        _require_causal(base_model, ids_1T, native_logits_TV)
        hidden_TD = _decoder_hidden_states(base_model, ids_1T)
        head = _head_kind(base_model, hidden_TD, native_logits_TV)
        noise = 0.0 if head == "whole" else rounding_noise(base_model, ids_1T)
        packed_attention_agrees = head != "whole" and _packed_attention_agrees(base_model, ids_1T, hidden_TD, noise)
        attention: Attention = "documents" if packed_attention_agrees else "own"
        documents_isolated = packed_attention_agrees and documents_are_isolated(base_model, longest, noise)
        shares_prefixes = documents_isolated and prefixes_can_be_shared(base_model, noise)
        use_training_attention(base_model, attention)
        draws_noise = _draws_noise(base_model, ids_1T, attention)
    return Architecture(attention, head, documents_isolated, shares_prefixes, draws_noise)


def use_training_attention(model: Any, attention: Attention) -> None:
    """Give `model` the attention it is trained with: inside documents, or its own."""
    if attention == "documents":
        use_packed_attention(model)
    else:
        use_generation_attention(model)


def native_inputs(module: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a forward with the model's own attention: no cache where it can be left out."""
    return accepted_arguments(module, {"use_cache": False}) | arguments


def bare_model(model: Any) -> Any:
    """The model without PEFT around it; layers that PEFT has put into it stay."""
    from peft import PeftModel

    inner_model = without_prompt(model)
    return inner_model.get_base_model() if isinstance(inner_model, PeftModel) else inner_model


@contextmanager
def _undisturbed(model: Any) -> Iterator[None]:
    """Evaluation mode inside the block, and the random numbers of before behind it."""
    devices = [torch.cuda.current_device()] if next(model.parameters()).is_cuda else []
    trained = model.training
    with torch.random.fork_rng(devices=devices):
        model.eval()
        try:
            yield
        finally:
            model.train(trained)


def _probe_ids(model: Any) -> torch.Tensor:
    vocabulary = len(model.get_input_embeddings().weight)
    device = next(model.parameters()).device
    return ((1 + torch.arange(TRIED_TOKENS, device=device) * ID_STEP) % vocabulary)[None]


def _native_logits(model: Any, ids_1T: torch.Tensor) -> torch.Tensor:
    try:
        logits_TV: torch.Tensor = model(input_ids=ids_1T, **native_inputs(model, {})).logits[0].float()
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        raise _untrainable_error(model, f"its own forward fails: {cause_of(error)[:200]}") from error
    if logits_TV.shape[:1] != ids_1T.shape[1:]:
        raise _untrainable_error(model, f"{ids_1T.shape[1]} tokens give logits of shape {list(logits_TV.shape)}")
    if not bool(torch.isfinite(logits_TV).all()):
        raise _untrainable_error(model, "its own forward gives numbers that are not finite")
    return logits_TV


def _require_causal(model: Any, ids_1T: torch.Tensor, native_logits_TV: torch.Tensor) -> None:
    """With another last token, what is said of the tokens before it must stay the same."""
    changed_1T = ids_1T.clone()
    changed_1T[0, -1] = ids_1T[0, 0]
    changed_logits_TV = _native_logits(model, changed_1T)
    if not equal_but_for_rounding(changed_logits_TV[:-1], native_logits_TV[:-1], _dtype(model)):
        raise _untrainable_error(model, "what it says of a token depends on later tokens")


def _decoder_hidden_states(model: Any, ids_1T: torch.Tensor) -> torch.Tensor | None:
    """[T, D] of the decoder by itself; None where it does not take ids alone."""
    decoder = decoder_of(model)
    try:
        output = decoder(input_ids=ids_1T, **native_inputs(decoder, {}))
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        return None
    hidden_1TD = output[0]
    return hidden_1TD[0] if isinstance(hidden_1TD, torch.Tensor) and hidden_1TD.ndim == 3 else None


def _head_kind(model: Any, hidden_TD: torch.Tensor | None, native_logits_TV: torch.Tensor) -> HeadKind:
    """The first of the ways to make logits that gives the model's own."""
    if hidden_TD is None:
        return "whole"
    dtype = _dtype(model)
    try:
        if equal_but_for_rounding(product_logits(head_of(model), hidden_TD), native_logits_TV, dtype):
            return "product"
    except (*REFUSALS, ConfigError) as error:
        if is_out_of_memory(error):
            raise
    try:
        if equal_but_for_rounding(
            forward_logits(model, hidden_TD, native_inputs(model, {})).float(), native_logits_TV, dtype
        ):
            return "own"
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
    return "whole"


def _packed_attention_agrees(model: Any, ids_1T: torch.Tensor, hidden_TD: torch.Tensor | None, noise: float) -> bool:
    """Whether attention inside documents gives the hidden states of the model's own, which it may refuse."""
    assert hidden_TD is not None, "only a decoder that can be asked by itself"
    if not model._can_set_attn_implementation():
        return False
    try:
        use_packed_attention(model)
        decoder = decoder_of(model)
        packed_hidden_TD = decoder(**document_inputs(ids_1T), use_cache=False)[0][0]
    except (*REFUSALS, DataError, ConfigError) as error:
        if is_out_of_memory(error):
            raise
        return False
    return packed_hidden_TD.shape == hidden_TD.shape and equal_but_for_rounding(
        packed_hidden_TD.float(), hidden_TD.float(), hidden_TD.dtype, noise
    )


def document_inputs(ids_1T: torch.Tensor) -> dict[str, Any]:
    """What a decoder that attends inside documents is given for a row of one document."""
    tokens = ids_1T.shape[1]
    positions_1T = torch.arange(tokens, device=ids_1T.device)[None]
    return {"input_ids": ids_1T, "position_ids": positions_1T, "document_tokens": (tokens,)}


def dummy_token_inputs(device: torch.device) -> dict[str, Any]:
    """What the decoder is given beside its id for one token that stands for nothing (`model.head.forward_logits`)."""
    inputs = document_inputs(torch.zeros(1, 1, dtype=torch.long, device=device))
    return {name: value for name, value in inputs.items() if name != "input_ids"}


def _draws_noise(model: Any, ids_1T: torch.Tensor, attention: Attention) -> bool:
    """Whether two passes in training mode differ."""
    model.train()
    inputs = document_inputs(ids_1T) if attention == "documents" else {"input_ids": ids_1T}
    try:
        first_logits, second_logits = (model(**inputs, **native_inputs(model, {})).logits for _ in range(2))
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        raise _untrainable_error(model, f"its own forward fails in training mode: {cause_of(error)[:200]}") from error
    finally:
        model.eval()
    return not torch.equal(first_logits, second_logits)


def _dtype(model: Any) -> torch.dtype:
    dtype: torch.dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    return dtype


def _untrainable_error(model: Any, reason: str) -> ConfigError:
    model_type = model.config.get_text_config().model_type
    return ConfigError(
        f"The model cannot be trained as a causal language model: {reason}",
        where=f"{type(model).__name__} (model_type {model_type})",
        expected="logits for each token of a row of ids, from that token and those before it",
        fix="give a model that writes text from text alone",
    )

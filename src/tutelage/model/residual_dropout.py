"""Dropout over residual connections, rising from the bottom layer to the last, or the same at every layer.

Source: Zhou et al. 2023 (LIMA), section 3, after Ouyang et al. 2022: 0.0 at the bottom layer, linearly to 0.3 (0.2 for
smaller models) at the last. Ouyang et al. 2022 (InstructGPT), appendix C, give one number, 0.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.functional import dropout

from tutelage.errors import ConfigError
from tutelage.model.layers import decoder_layers, decoder_of

NORMED_BRANCHES = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
"""Children of a layer whose outputs are added to the residual stream where a branch ends in a norm: Gemma 2 and 3,
OLMo 2 and 3; GLM 4. Dropout before that norm would be scaled away by it."""

ATTENTIONS = ("self_attn", "attention", "attn", "self_attention", "linear_attn")
FEED_FORWARDS = ("mlp", "feed_forward", "block_sparse_moe")

PROBE_TOKENS = 4


def add_residual_dropout(model: Any, *, last: float, rises: bool = True) -> tuple[float, ...]:
    """Zero, in training only, a share of what each layer's attention and feed-forward add to the residual stream.

    Args:
        model: a causal language model that attends inside documents (`model.attention.packed.use_packed_attention`).
        last: probability at the last layer.
        rises: layer i of n has last * i / (n - 1); otherwise every layer has the same.

    Returns:
        The probability at each layer.

    Raises:
        ConfigError: the modules whose outputs are added were not found in this architecture.
    """
    layers = list(decoder_layers(model)[1])
    branches = [_branches(layer) for layer in layers]
    _require_all_branches(model, layers, branches)
    rising = tuple(last * number / max(1, len(layers) - 1) for number in range(len(layers)))
    shares = rising if rises else (last,) * len(layers)
    for share, modules in zip(shares, branches, strict=True):
        for module in modules:
            if share > 0:
                module.register_forward_hook(_dropout_hook(share))
    return shares


def _branches(layer: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    """The two modules of a layer that add to the residual stream, by the names that architectures give them."""
    children = dict(layer.named_children())
    for pair in NORMED_BRANCHES:
        if all(name in children for name in pair):
            return tuple(children[name] for name in pair)
    return tuple(children[name] for names in (ATTENTIONS, FEED_FORWARDS) for name in names if name in children)


@torch.no_grad()
def _require_all_branches(
    model: Any, layers: Sequence[torch.nn.Module], branches: list[tuple[torch.nn.Module, ...]]
) -> None:
    """With every branch at zero, what enters the first layer must leave the last one unchanged."""
    residuals: list[torch.Tensor] = []

    def entering(_layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        residuals.append((args[0] if args else kwargs["hidden_states"]).clone())

    def leaving(_layer: torch.nn.Module, _given: Any, output: Any) -> None:
        residuals.append(output[0] if isinstance(output, tuple) else output)

    device = next(model.parameters()).device
    ids_1R = torch.arange(PROBE_TOKENS, device=device)[None]
    with ExitStack() as stack:
        stack.enter_context(_evaluating(model))
        handles = [layers[0].register_forward_pre_hook(entering, with_kwargs=True)]
        handles += [
            module.register_forward_hook(_output_hook(torch.zeros_like)) for branch in branches for module in branch
        ]
        handles.append(layers[-1].register_forward_hook(leaving))
        for handle in handles:
            stack.callback(handle.remove)
        decoder = decoder_of(model)
        decoder(input_ids=ids_1R, position_ids=ids_1R, document_tokens=(PROBE_TOKENS,), use_cache=False)
    if not torch.equal(residuals[0], residuals[-1]):
        raise _unknown_layout_error(
            model, "layers that add more to the residual stream than the modules known by their names"
        )


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _dropout_hook(share: float) -> Callable[[torch.nn.Module, Any, Any], Any]:
    def hook(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        return output_hook(module, inputs, output) if module.training else None

    output_hook = _output_hook(lambda branch: dropout(branch, share))
    return hook


def _output_hook(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.nn.Module, Any, Any], Any]:
    """A hook that changes a module's output, or its first where it gives several."""

    def hook(_module: torch.nn.Module, _given: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return hook


def _unknown_layout_error(model: Any, reason: str) -> ConfigError:
    return ConfigError(
        "Residual dropout does not know how the layers of this model are laid out",
        where="train.residual_dropout",
        found=f"{model.config.get_text_config().model_type}: {reason}",
        expected="layers that add an attention and a feed-forward to the residual stream",
        fix="leave train.residual_dropout out",
    )

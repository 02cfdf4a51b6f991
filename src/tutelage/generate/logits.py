"""Logits of the last hidden states of a step.

Shape legend: S = replies that get a token, D = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tutelage.generate.attention import Prefill, Step, attending
from tutelage.generate.few_rows import vector_product
from tutelage.generate.kv_cache import Beginning
from tutelage.model.attention.isolation_check import equal_but_for_rounding
from tutelage.model.output_head import HeadKind, Product, forward_logits, head_of, plain_product, product_logits

TRIED_STATES = 3
LAID_OUT_FOR = 64
"""Hidden states at once for which the head's weight is laid out; others are computed as well."""


LogitsOfHidden = Callable[[torch.Tensor], torch.Tensor]
"""[S, D] -> [S, V] in fp32."""


def logits_of(model: Any, kind: HeadKind, *, lay_out: bool) -> LogitsOfHidden:
    """What makes [S, V] in fp32 of [S, D], in evaluation mode and while the weights stay as they are.

    Args:
        model: a causal language model without PEFT around it.
        kind: who makes its logits.
        lay_out: a copy of the head's weight may be made, which many steps then use.
    """
    if kind == "product":
        head = head_of(model)
        product = (_laid_out(head.weight_VD) if lay_out else None) or plain_product
        if head.weight_VD.device.type == "cpu" and head.weight_VD.dtype == torch.bfloat16:
            product = _for_one_state(product)
        return lambda hidden_SD: product_logits(head, hidden_SD, product)
    positions_11 = torch.zeros(1, 1, dtype=torch.long, device=model.get_input_embeddings().weight.device)

    def own_logits(hidden_SD: torch.Tensor) -> torch.Tensor:
        token = Step((), (Prefill(slice(0, 1), Beginning(1, (0,)), None),))
        with attending(token):
            return forward_logits(model, hidden_SD, {"position_ids": positions_11, "use_cache": False}).float()

    return own_logits


def _for_one_state(product: Product) -> Product:
    """A product that takes one state alone as a vector, which is twice as fast (docs/log.md, "One reply alone")."""

    def product_of_any(hidden_SD: torch.Tensor, weight_VD: torch.Tensor) -> torch.Tensor:
        if len(hidden_SD) == 1:
            return vector_product(weight_VD, hidden_SD[0])[None]
        return product(hidden_SD, weight_VD)

    return product_of_any


def _laid_out(weight_VD: torch.Tensor) -> Product | None:
    """The product with a copy of the weight in oneDNN's own layout; None where there is none here.

    A head is by far the widest layer, and for the few dozen states of a step the library that torch asks else spends
    more time on laying its weight out, every time, than on the product. Measured in docs/log.md, "Continuous batching".
    """
    if weight_VD.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    operators = torch.ops.mkldnn
    try:
        packed = operators._reorder_linear_weight(weight_VD.detach(), LAID_OUT_FOR)

        def product(hidden_SD: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            logits_SV: torch.Tensor = operators._linear_pointwise(hidden_SD, packed, None, "none", [], "")
            return logits_SV

        states_SD = weight_VD[:TRIED_STATES]
        expected_SV = plain_product(states_SD, weight_VD)
        fits = equal_but_for_rounding(product(states_SD, weight_VD), expected_SV, weight_VD.dtype)
    except (AttributeError, RuntimeError, TypeError):  # neither operator is promised to stay as it is
        return None
    return product if fits else None

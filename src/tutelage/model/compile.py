"""torch.compile, one decoder layer's part at a time: feed-forward and norms, whose passes over memory it joins.

Attention stays as it is: its documents are other numbers in every row, and each would be compiled anew.
"""

from __future__ import annotations

from typing import Any

from tutelage.model.layers import decoder_layers


def compile_layers(model: Any, *, backend: Any = "inductor") -> int:
    """Compile what is not attention in each decoder layer, for rows of any length; return how many parts.

    Layers of equal shape share what is compiled. Rounding may differ from the plain run in the last bits.

    Args:
        model: a transformers causal language model, with or without PEFT around it; call this before it is sharded.
        backend: of torch.compile.
    """
    modules = [
        child
        for layer in decoder_layers(model)[1]
        for child in layer.children()
        if "Attention" not in type(child).__name__
    ]
    for module in modules:
        module.compile(backend=backend, dynamic=True)
    return len(modules)

"""Documents of packed rows, and attention of each from its definition, for tests to compare with."""

from __future__ import annotations

from typing import Any

import torch

from tutelage.model.attention.packed import document_attention

DOCUMENTS = (5, 1, 9, 3)
HEADS, GROUPS, WIDTH = 4, 2, 8
Tree = tuple[tuple[int, ...], tuple[int, ...]]
"""Lengths of stretches and the parent of each."""
TREES: dict[str, Tree] = {
    "nothing shared": ((5, 1, 9), (-1, -1, -1)),
    "one beginning": ((6, 3, 1, 4), (-1, 0, 0, 0)),
    "two levels": ((4, 3, 2, 5, 6), (-1, 0, 1, 1, 0)),
    "three levels": ((4, 1, 3, 2, 5, 1, 7), (-1, 0, 1, 2, 2, 1, 0)),
    "several roots": ((3, 4, 2, 5, 1, 6, 2), (-1, 0, 0, -1, -1, 4, 5)),
    "only single tokens": ((1, 1, 1, 1), (-1, 0, 1, 0)),
    "children between other stretches": ((3, 4, 5, 2, 6), (-1, -1, 0, 1, 0)),
    "long enough for several blocks": ((600, 40, 300, 70, 1), (-1, 0, 0, 2, 2)),
}


def tensors(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(4)
    query = torch.randn(1, HEADS, tokens, WIDTH, generator=random)
    key = torch.randn(1, GROUPS, tokens, WIDTH, generator=random)
    value = torch.randn(1, GROUPS, tokens, WIDTH, generator=random)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def with_gradients(
    inputs: Any, document_tokens: tuple[int, ...], parents: tuple[int, ...], scaling: float | None = None
) -> list[torch.Tensor]:
    """The output, and the gradients of queries, keys and values towards a fixed random direction."""
    leaves = [one.detach().requires_grad_() for one in inputs]
    out, _ = document_attention(
        torch.nn.Identity(), *leaves, None, document_tokens=document_tokens, parents=parents, scaling=scaling
    )
    return [out.detach(), *torch.autograd.grad(out, leaves, towards(out))]


def towards(out: torch.Tensor) -> torch.Tensor:
    return torch.randn(out.shape, generator=torch.Generator().manual_seed(8)).to(out.dtype)


def alone_in_double(
    inputs: Any, document_tokens: tuple[int, ...], parents: tuple[int, ...], scaling: float = WIDTH**-0.5
) -> list[torch.Tensor]:
    """The same from the definition: each stretch is the end of a document that is laid down whole, by itself."""
    leaves = [one.detach().double().requires_grad_() for one in inputs]
    query, key, value = (
        leaf.repeat_interleave(HEADS // leaf.shape[1], dim=1).split(document_tokens, dim=2) for leaf in leaves
    )
    ends = []
    for number, tokens in enumerate(document_tokens):
        chain = [number]
        while parents and parents[chain[0]] >= 0:
            chain.insert(0, parents[chain[0]])
        q, k, v = (torch.cat([one[stretch] for stretch in chain], dim=2) for one in (query, key, value))
        scores = q @ k.transpose(2, 3) * scaling
        hidden = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
        ends.append((scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v)[:, :, -tokens:])
    out = torch.cat(ends, dim=2).transpose(1, 2)
    return [out.detach(), *torch.autograd.grad(out, leaves, towards(out))]

"""Whether a GPU computes what the CPU does: attention inside documents, loss, gradients; and whether it repeats itself.

    python -m benchmarks.cuda.exactness MODEL_FOLDER

Errors are norms of differences by norms. "Whole row" is what attention over document boundaries would give: the check
must tell it from the right one. Figures, not a test: it prints and fails only where an error is out of all proportion.

Shape legend: H = query heads, G = key/value heads, R = tokens of a packed row, K = head width.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from tutelage.model.attention.packed import document_attention, use_packed_attention
from tutelage.model.loss import row_loss
from tutelage.model.precision import DTYPES
from tutelage.types import Address, PackedSequence

DOCUMENTS = (7, 130, 220, 1, 400, 64, 333, 2, 511, 90)
ALLOWED = {"fp32": 1e-3, "bf16": 3e-2}


def off(found: torch.Tensor, right: torch.Tensor) -> float:
    """The norm of the difference by the norm of what is right."""
    found, right = found.double().cpu(), right.double().cpu()
    return float((found - right).norm() / right.norm())


def attention_errors(dtype: torch.dtype) -> dict[str, float]:
    """Output and gradients of queries, keys and values, against fp64 one document at a time."""
    generator = torch.Generator("cuda").manual_seed(1)
    rows = sum(DOCUMENTS)
    made = [torch.randn(1, heads, rows, 64, generator=generator, device="cuda") for heads in (9, 3, 3)]
    upstream = torch.randn(1, rows, 9, 64, generator=generator, device="cuda").to(dtype)
    narrow = [one.to(dtype) for one in made]

    def run(widened: torch.dtype, documents: tuple[int, ...], *, packed: bool) -> list[torch.Tensor]:
        leaves = [one.to(widened).requires_grad_() for one in narrow]
        if packed:
            out = document_attention(torch.nn.Module(), *leaves, None, document_tokens=documents)[0]
        else:
            split = zip(*(leaf.split(documents, dim=2) for leaf in leaves), strict=True)
            done = [scaled_dot_product_attention(*one, is_causal=True, enable_gqa=True) for one in split]
            out = torch.cat(done, dim=2).transpose(1, 2)
        return [out, *torch.autograd.grad(out, leaves, upstream.to(widened))]

    right = run(torch.float64, DOCUMENTS, packed=False)
    wrong = run(torch.float64, (rows,), packed=False)
    found = run(dtype, DOCUMENTS, packed=True)
    names = ("output", "queries", "keys", "values")
    errors = {name: off(one, other) for name, one, other in zip(names, found, right, strict=True)}
    return errors | {"whole row": off(wrong[0], right[0])}


def a_row(vocabulary: int) -> PackedSequence:
    """A packed row of random words; the second half of each document is trained."""
    generator = np.random.default_rng(3)
    weights = np.concatenate(
        [(np.arange(document) >= max(1, document // 2)).astype(np.float32) for document in DOCUMENTS]
    )
    return PackedSequence(
        ids=generator.integers(0, vocabulary, len(weights)).astype(np.int32),
        weights=weights,
        positions=np.concatenate([np.arange(document, dtype=np.int32) for document in DOCUMENTS]),
        document_tokens=DOCUMENTS,
        addresses=(Address("made", 1),) * len(DOCUMENTS),
    )


def loss_and_gradient(folder: Path, device: str, precision: str) -> tuple[float, torch.Tensor]:
    """Of one row: the summed loss, and all gradients end to end."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device, DTYPES[precision])
    use_packed_attention(model)
    model.train()
    loss, _ = row_loss(model, a_row(49152))
    loss.backward()
    return float(loss), torch.cat([parameter.grad.flatten().float().cpu() for parameter in model.parameters()])


def main() -> None:
    """Compare, print."""
    folder = Path(sys.argv[1])
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, documents of {DOCUMENTS} tokens in one row\n")
    problems = []
    print("| attention | " + " | ".join(("output", "queries", "keys", "values", "whole row")) + " |")
    print("|---|---|---|---|---|---|")
    for precision in ("fp32", "bf16"):
        errors = attention_errors(DTYPES[precision])
        print(f"| {precision} | " + " | ".join(f"{error:.1e}" for error in errors.values()) + " |", flush=True)
        wrong = errors.pop("whole row")
        if max(errors.values()) > ALLOWED[precision] or wrong < 10 * ALLOWED[precision]:
            problems.append(f"attention in {precision}: {errors}")
    torch.set_num_threads(max(torch.get_num_threads(), 8))
    right, gradient = loss_and_gradient(folder, "cpu", "fp32")
    print(f"\nLoss of a row on the CPU in fp32: {right:.4f}")
    for precision in ("fp32", "bf16"):
        loss, found = loss_and_gradient(folder, "cuda", precision)
        again, found_again = loss_and_gradient(folder, "cuda", precision)
        same = loss == again and torch.equal(found, found_again)
        print(
            f"On the GPU in {precision}: {loss:.4f}, off by {abs(loss - right) / right:.1e}; gradients by "
            f"{off(found, gradient):.1e}; a second run is {'the same bit for bit' if same else 'NOT the same'}"
            f"{'' if same else f' (gradients {off(found_again, found):.1e} apart)'}",
            flush=True,
        )
        if off(found, gradient) > ALLOWED[precision]:
            problems.append(f"gradients in {precision}")
    if problems:
        raise SystemExit("Out of all proportion: " + "; ".join(problems))


if __name__ == "__main__":
    main()

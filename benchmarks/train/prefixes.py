"""What sharing prefixes saves: seconds of training 300 tool-calling rows with and without it, by turns.

    python -m benchmarks.train.prefixes --rows gpteacher_toolformer06.json
    python -m benchmarks.train.prefixes --rows glaive_toolcall_en_demo.json --template qwen2.5.jinja \
        --max-seq-length 2048

Both ways see the same batches, with the same weights: forward, loss and backward passes of the engine, no optimizer
step, so that losses and gradients can be compared batch by batch. Prints tokens, medians, their ratio, and the largest
difference of loss and gradients.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tutelage import config
from tutelage.builders.dataset import prepare
from tutelage.model.adapters.lora import add_lora, make_all_trainable
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.load import load
from tutelage.model.locate import model_folder
from tutelage.model.loss import row_loss
from tutelage.model.precision import cast_model, resolve_precision
from tutelage.pack import Sampler, batches
from tutelage.types import Batch, Example


def prepared(arguments: argparse.Namespace) -> Sequence[Example]:
    """The proven examples of the rows."""
    values: dict[str, Any] = {
        "model": {"name": arguments.model},
        "data": {"train": [arguments.rows], "max_rows": arguments.count},
        "pack": {"max_seq_length": arguments.max_seq_length, "row_tokens": arguments.row_tokens},
    }
    if arguments.template:
        values["render"] = {"template": arguments.template}
    settings = config.from_mapping(values, where="benchmark")
    return prepare(settings, model_folder(arguments.model)).train


def train_state(arguments: argparse.Namespace) -> Any:
    """The model, ready to train."""
    model, _ = load(model_folder(arguments.model))
    if arguments.method == "lora":
        model, _ = add_lora(model, rank=16, alpha=32, dropout=0.0, targets="all-linear")
    else:
        model, _ = make_all_trainable(model)
    cast_model(model, resolve_precision(arguments.precision))
    use_packed_attention(model)
    return model.train()


def pass_over(model: Any, batch: Batch) -> tuple[float, float]:
    """Loss of a batch and the seconds it took; gradients are left in the parameters."""
    model.zero_grad(set_to_none=True)
    started, total = time.perf_counter(), 0.0
    for row in batch.rows:
        row_sum, _ = row_loss(model, row)
        (row_sum / batch.trained_tokens).backward()
        total += row_sum.item()
    return total / batch.trained_tokens, time.perf_counter() - started


def gradient_of(model: Any) -> torch.Tensor:
    """All gradients, end to end."""
    return torch.cat(
        [parameter.grad.flatten().float() for parameter in model.parameters() if parameter.grad is not None]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True, help="a file of tool-calling rows")
    parser.add_argument("--template", help="a Jinja file, where the model's own writes no tool calls")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-seq-length", type=int, default=1024)
    parser.add_argument("--row-tokens", type=int, default=2048)
    parser.add_argument("--batches", type=int, default=6, help="how many of the batches are timed")
    arguments = parser.parse_args()

    examples = prepared(arguments)
    order = Sampler(len(examples), arguments.batch, 1.0, 0)
    ways = [
        list(batches(examples, order, row_tokens=arguments.row_tokens, share_prefixes=share)) for share in (False, True)
    ]
    model = train_state(arguments)
    pass_over(model, ways[0][0])  # the first pass compiles products and fills caches
    seconds: list[list[float]] = [[], []]
    loss_gap = gradient_gap = 0.0
    for number, pair in enumerate(zip(*ways, strict=True)):
        if number == arguments.batches:
            break
        found = {}
        for way in (0, 1) if number % 2 == 0 else (1, 0):
            loss, took = pass_over(model, pair[way])
            seconds[way].append(took / pair[way].tokens)
            found[way] = (loss, gradient_of(model))
        loss_gap = max(loss_gap, abs(found[0][0] - found[1][0]) / found[0][0])
        gradient_gap = max(gradient_gap, float((found[0][1] - found[1][1]).norm() / found[0][1].norm()))
    table = Table(title=f"{len(examples)} sequences, batches of {arguments.batch}, {arguments.method}")
    for name in ("", "tokens", "computed", "tokens/s, median"):
        table.add_column(name, justify="right" if name else "left")
    for way, name in enumerate(("side by side", "shared prefixes")):
        table.add_row(
            name,
            f"{sum(one.tokens for one in ways[way]):,}",
            f"{sum(one.computed_tokens for one in ways[way]):,}",
            f"{1 / statistics.median(seconds[way]):.1f}",
        )
    out = Console()
    out.print(table)
    ratio = statistics.median(plain / shared for plain, shared in zip(*seconds, strict=True))
    dtype = next(model.parameters()).dtype
    out.print(
        f"{ratio:.2f} x as fast, the median of {len(seconds[0])} pairs, {dtype}, {torch.get_num_threads()} threads"
    )
    out.print(f"largest difference: loss {loss_gap:.1e}, gradient {gradient_gap:.1e} of its norm")


if __name__ == "__main__":
    main()

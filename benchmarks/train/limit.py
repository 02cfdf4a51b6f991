"""How fast this machine multiplies matrices, which is the most that training can reach.

Shape legend: M = tokens, I = inputs and O = outputs of a layer.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from benchmarks.train.measured import Method

SQUARE = 2048
TOKENS = 2048
TOKEN_FACTOR_FLOP: dict[Method, int] = {"full": 6, "lora": 4}
"""FLOP a token and matrix parameter: two each for the forward pass, for the inputs' gradient and, where weights are
trained, for their gradient. Source: Kaplan et al. 2020, section 2.1."""
LEAST_SECONDS = 0.3
LEAST_RUNS = 3


@dataclass(frozen=True, slots=True)
class Limit:
    """Measured rates and the tokens a second that follow.

    Args:
        matrix_parameters: of all linear layers, the output head included.
        square_flops: FLOP a second of one large square product.
        model_flops: the same over all products of the model, each as often as it occurs.
    """

    matrix_parameters: int
    square_flops: float
    model_flops: float

    def tokens_a_second(self, method: Method, flops: float) -> float:
        """What a rate allows."""
        return flops / (TOKEN_FACTOR_FLOP[method] * self.matrix_parameters)

    def share(self, method: Method, tokens_a_second: float) -> tuple[float, float]:
        """What was reached, of the model's own products and of the square product."""
        reached = tokens_a_second * TOKEN_FACTOR_FLOP[method] * self.matrix_parameters
        return reached / self.model_flops, reached / self.square_flops


def linear_shapes(model_folder: Path) -> Counter[tuple[int, int]]:
    """(O, I) of each linear layer and how many have it; read from the configuration, without weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_folder))
    layers = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
    return Counter((layer.out_features, layer.in_features) for layer in layers)


def measure(model_folder: Path, method: Method, dtype: torch.dtype) -> Limit:
    """Multiply matrices of the model's shapes and a large square one."""
    shapes = linear_shapes(model_folder)
    seconds, flop = 0.0, 0.0
    for (outputs, inputs), count in shapes.items():
        for run in _products(TOKENS, inputs, outputs, method, dtype):
            seconds += count * _fastest(run)
            flop += count * 2.0 * TOKENS * inputs * outputs
    a, b = torch.randn(SQUARE, SQUARE).to(dtype), torch.randn(SQUARE, SQUARE).to(dtype)
    square = 2.0 * SQUARE**3 / _fastest(lambda: torch.mm(a, b))
    parameters = sum(outputs * inputs * count for (outputs, inputs), count in shapes.items())
    return Limit(parameters, square, flop / seconds)


def _products(
    tokens: int, inputs: int, outputs: int, method: Method, dtype: torch.dtype
) -> list[Callable[[], torch.Tensor]]:
    x_MI = torch.randn(tokens, inputs).to(dtype)
    weight_OI = torch.randn(outputs, inputs).to(dtype)
    gradient_MO = torch.randn(tokens, outputs).to(dtype)
    runs: list[Callable[[], torch.Tensor]] = [
        lambda: torch.mm(x_MI, weight_OI.T),
        lambda: torch.mm(gradient_MO, weight_OI),
    ]
    return runs if method == "lora" else [*runs, lambda: torch.mm(gradient_MO.T, x_MI)]


def _fastest(run: Callable[[], torch.Tensor]) -> float:
    """Seconds of the fastest of several runs: a limit is what was possible once."""
    fastest, runs, began = math.inf, 0, time.perf_counter()
    while runs < LEAST_RUNS or time.perf_counter() - began < LEAST_SECONDS:
        started = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - started)
        runs += 1
    return fastest

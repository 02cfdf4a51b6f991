"""What every contestant is told and what it has to say; nothing but the standard library, as each has its own packages.

A contestant is a process: `PYTHON -m benchmarks.train.by_TOOL TASK.json`, which trains once and prints one JSON line.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Method = Literal["full", "lora"]
Numerics = Literal["fp32", "mixed", "bf16"]
"""fp32 throughout; bf16 products with trained weights in fp32; everything in bf16."""


@dataclass(frozen=True, slots=True)
class Task:
    """One training run.

    Args:
        rows: the Alpaca rows, one JSON object a line.
        examples: the same rows as ids and labels (-100 where nothing is trained), in the order of training.
        model_folder: Hugging Face folder of the model.
        prepared_folder: where a tool keeps what it made of the model once, such as its own checkpoint format.
        method: all weights, or LoRA on all linear layers but the output head.
        numerics: see `Numerics`.
        micro_examples: examples in one forward pass, padded to the longest.
        batch_size: examples an optimizer step.
        steps: optimizer steps.
        learning_rate: the same for all, tiny: only the first step's loss is compared.
        lora_rank: rank of the adapters; alpha is twice as much.
        overrides: settings of ours, as `section.field=value`.
        fused_kernels: of a tool that has some of its own to switch on.
    """

    rows: str
    examples: str
    model_folder: str
    prepared_folder: str
    method: Method
    numerics: Numerics
    micro_examples: int
    batch_size: int
    steps: int
    learning_rate: float = 1e-5
    lora_rank: int = 16
    overrides: list[str] = field(default_factory=list)
    fused_kernels: bool = False

    @property
    def accumulated(self) -> int:
        """Forward passes an optimizer step, for tools that work by micro-batches."""
        return self.batch_size // self.micro_examples

    def read_examples(self) -> list[dict[str, list[int]]]:
        """The examples of all steps, `input_ids` and `labels`."""
        lines = Path(self.examples).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines][: self.steps * self.batch_size]


@dataclass(slots=True)
class Measured:
    """What a run measured of itself.

    Args:
        step_seconds: wall time from the end of the step before; of the first, from the start of training.
        step_losses: mean over the trained tokens of the step.
        tokens: that went through the model, as the tool counted them; padding is left out.
        peak_bytes: highest resident memory up to the end of the last step, loading included; on a GPU, what PyTorch's
            allocator took of it.
        trained_dtype: number format of the weights that the optimizer steps.
        trained_parameters: how many of them.
        versions: of the tool and of what it computes with.
    """

    step_seconds: list[float]
    step_losses: list[float]
    tokens: int
    peak_bytes: int
    trained_dtype: str
    trained_parameters: int
    versions: dict[str, str]

    def tell(self) -> None:
        """Print the line that the comparison reads."""
        print("\n" + json.dumps(asdict(self)), flush=True)


def task_from_arguments() -> Task:
    """The task whose file is the only argument."""
    values: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return Task(**values)


def peak_bytes() -> int:
    """Highest memory so far: what PyTorch took of the GPU, else of this process (VmHWM); Linux only."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024


def versions_of(*packages: str) -> dict[str, str]:
    """Installed versions."""
    return {name: importlib.metadata.version(name) for name in packages}


class Stopwatch:
    """Seconds of each step and the peak at its end."""

    def __init__(self) -> None:
        self.step_seconds: list[float] = []
        self.peak_bytes = 0
        self._last = 0.0

    def start(self) -> None:
        """Training begins now."""
        self._last = time.perf_counter()

    def step(self) -> None:
        """A step ends now."""
        now = time.perf_counter()
        self.step_seconds.append(now - self._last)
        self._last = now
        self.peak_bytes = peak_bytes()

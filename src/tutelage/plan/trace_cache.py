"""Traces that were made before, on the disk: a plan, a dry run and a start of one model ask for the same.

A trace takes seconds of a processor and is a few numbers. What it depends on is in its key: the model's configuration
and the shapes of its parameters, the workload, our own code that it runs through, the libraries, and the processor's
instructions. A model whose class is not of transformers has code that the key would not see, and is traced each time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tutelage.plan.model_shape import ModelShape
from tutelage.plan.trace import Trace
from tutelage.plan.workload import Workload
from tutelage.system.files import cache_folder, write_bytes
from tutelage.system.source_code import source_code_sha256

DECIDING_PACKAGES = (
    "tutelage.model",
    "tutelage.model.adapters",
    "tutelage.model.attention",
    "tutelage.model.fused",
    "tutelage.optim",
    "tutelage.plan",
)
"""Whose code a trace runs through."""
DECIDING_LIBRARIES = ("torch", "transformers", "peft")


def trace_file(model_shape: ModelShape, workload: Workload, device: str) -> Path | None:
    """Where the trace is kept, whether or not it is there; None where its key would not tell all that it depends on."""
    model = model_shape.cut
    if not type(model).__module__.startswith("transformers."):
        return None
    facts = {
        "model": [type(model).__qualname__, model.config.to_json_string(use_diff=False), model_shape.layers],
        "equal_layers": model_shape.equal_layers,
        "parameters": [[name, list(shape.shape), str(shape.dtype)] for name, shape in model.named_parameters()],
        "workload": asdict(workload),
        "device": device,
        "made_by": _made_by(),
    }
    return (
        cache_folder() / "traces" / (hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest() + ".json")
    )


@cache
def _made_by() -> list[Any]:
    """The code and the instructions; read once a process."""
    return [
        source_code_sha256(DECIDING_PACKAGES),
        [version(library) for library in DECIDING_LIBRARIES],
        torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),
    ]


def kept_trace(file: Path) -> Trace | None:
    """The trace in `file`; None where there is none, or what is there is none."""
    try:
        return _trace(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_trace(file: Path, trace: Trace) -> None:
    """Write it down for the next time; a disk that refuses costs that time and nothing else."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, json.dumps(asdict(trace)).encode(), shared=True)
    except OSError:
        return


def _trace(values: Mapping[str, Any]) -> Trace:
    trained = tuple((tuple(map(int, shape)), bool(inside), int(count)) for shape, inside, count in values["trained"])
    return Trace(**{name: int(value) for name, value in values.items() if name != "trained"}, trained=trained)

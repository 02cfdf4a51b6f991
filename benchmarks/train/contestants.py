"""Who is compared, each with the best settings found for it, and how one run of one of them is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.train.measured import Measured, Numerics, Task

from tutelage.model.precision import Precision
from tutelage.system.allocator import better_allocator, preload_environment
from tutelage.system.startup import training_environment

ROOT = Path(__file__).parents[2]
OURS = "tutelage"
TOOLS = (OURS, "trl", "litgpt", "llamafactory")
SHOWN_CHARACTERS = 3000


@dataclass(frozen=True, slots=True)
class Contestant:
    """One tool with one set of settings.

    Args:
        name: in the table.
        tool: one of `TOOLS`.
        numerics: what it is asked to compute in.
        micro_examples: examples in one forward pass; ours packs instead and does not read it.
        compared: False for settings that are shown, but that no ratio is taken of.
        preloaded: with the allocator that ours takes where it is installed, which the tool does not do by itself.
        environment: variables that it is given besides.
    """

    name: str
    tool: str
    numerics: Numerics
    micro_examples: int = 1
    compared: bool = True
    preloaded: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def contestants(
    precision: Precision, tools: Sequence[str], *, plain: bool = True, preloaded: bool = False
) -> list[Contestant]:
    """All of `tools`, ours first. Which settings are best for whom was measured: see README.md.

    Args:
        precision: what is computed in.
        tools: names of `TOOLS`.
        plain: with the settings that no ratio is taken of.
        preloaded: the others with our allocator, too.
    """
    every = {
        "bf16": [
            Contestant(OURS, OURS, "mixed"),
            Contestant("TRL, bf16 mixed, 1 x 16", "trl", "mixed"),
            Contestant("TRL, bf16 weights, 1 x 16", "trl", "bf16"),
            Contestant("TRL, bf16 mixed, 8 x 2 (plain)", "trl", "mixed", micro_examples=8, compared=False),
            Contestant("LitGPT, bf16-mixed, 1 x 16", "litgpt", "mixed"),
            Contestant("LitGPT, bf16-true, 1 x 16", "litgpt", "bf16"),
            Contestant("LLaMA-Factory, bf16, 1 x 16", "llamafactory", "mixed"),
        ],
        "fp32": [
            Contestant(OURS, OURS, "fp32"),
            Contestant("TRL, fp32, 1 x 16", "trl", "fp32"),
            Contestant("TRL, fp32, 8 x 2 (plain)", "trl", "fp32", micro_examples=8, compared=False),
            Contestant("LitGPT, 32-true, 1 x 16", "litgpt", "fp32"),
            Contestant("LLaMA-Factory, fp32, 1 x 16", "llamafactory", "fp32"),
        ],
    }
    chosen = [one for one in every[precision] if one.tool in tools and (plain or one.compared)]
    return [replace(one, preloaded=preloaded and one.tool != OURS) for one in chosen]


def python_of(tool: str, environments: Path | None) -> Path:
    """The Python that has the tool: this one for ours.

    Raises:
        SystemExit: there is no environment for it.
    """
    if tool == OURS:
        return Path(sys.executable)
    if environments is None or not (python := environments / tool / "bin" / "python").is_file():
        raise SystemExit(
            f"There is no environment for {tool}. Make them: bash benchmarks/train/environments.sh FOLDER, then name "
            "the folder: --environments FOLDER; or leave the tool out: --tools tutelage"
        )
    return python


def measure(contestant: Contestant, task: Task, environments: Path | None) -> Measured:
    """Train once in a process of its own.

    Raises:
        SystemExit: the run failed.
    """
    asked = replace(task, numerics=contestant.numerics, micro_examples=min(contestant.micro_examples, task.batch_size))
    python = python_of(contestant.tool, environments)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1"}
    if contestant.tool == OURS:
        environment = training_environment(environment)  # as `tutelage train` starts itself again
    else:
        environment.pop("PYTHONPATH", None)
        library = better_allocator(environment)
        if contestant.preloaded and library is not None:
            environment = preload_environment(library, environment)
    environment |= contestant.environment
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.json"
        path.write_text(json.dumps(asdict(asked)), encoding="utf-8")
        environment["HF_DATASETS_CACHE"] = folder
        try:
            said = told_by(str(python), f"benchmarks.train.by_{contestant.tool}", path, environment)
        except RuntimeError as error:
            raise SystemExit(f"{contestant.name}: {error}") from error
    return Measured(**said)


def told_by(python: str, module: str, task: Path, environment: dict[str, str]) -> dict[str, Any]:
    """What `PYTHON -m MODULE TASK` says in its last line, as JSON.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [python, "-m", module, str(task)],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = (done.stdout + done.stderr)[-SHOWN_CHARACTERS:]
        raise RuntimeError(f"ended with status {done.returncode}:\n{said}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found

"""What an export is asked for, and what it says when it is done. Imports without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import RenderableType

from tutelage.config import Settings
from tutelage.report.console.progress import Screen

DtypeName = Literal["float32", "bfloat16", "float16"]
SHARD_BYTES = 5 * 10**9
"""Most bytes of a file of weights, as huggingface_hub has it."""
PROMPTS = 64
"""What an export is compared on, at most."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """One export: a finished run, and the folder or file that is to be made.

    Attributes:
        run: the run's folder.
        settings: that it was trained with.
        out: made; refused where it holds something.
        screen: told what happens.
        kind: type of a GGUF file; None for the usual one.
        dial: a value between the base (0) and what was trained (1); None for what was trained.
        dtype: of the weights that are written; None: as the base, or the run's whole model, stores each of them.
        shard_bytes: most bytes of a file of weights.
        prompts: how many the result is compared on, in a process of its own; 0 leaves the comparison out.
        push: `owner/name` of a repository on the hub that the folder is uploaded to; None uploads nothing.
        preferences: a file of pairs for DPO; None takes the run's own rows, without a rejected reply.
    """

    run: Path
    settings: Settings
    out: Path
    screen: Screen
    dial: float | None = None
    kind: str | None = None
    dtype: DtypeName | None = None
    shard_bytes: int = SHARD_BYTES
    prompts: int = PROMPTS
    push: str | None = None
    preferences: Path | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what there is to show of it.

    Attributes:
        path: the folder or file.
        tables: for a terminal, in this order.
        facts: the same for programs, as JSON holds it.
    """

    path: Path
    tables: tuple[RenderableType, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

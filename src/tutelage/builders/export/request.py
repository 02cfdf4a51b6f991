"""What an export is asked for, and what it says when it is done. Imports without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.config import Settings
from tutelage.report.console.measures import Drawn
from tutelage.report.console.progress import Screen


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
    """

    run: Path
    settings: Settings
    out: Path
    screen: Screen
    dial: float | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what there is to show of it.

    Attributes:
        path: the folder or file.
        tables: for a terminal, in this order.
        facts: the same for programs, as JSON holds it.
    """

    path: Path
    tables: tuple[Drawn, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

"""`before.json` and `after.json`: what a model was measured at, with every reply."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from tutelage.evaluate.measure import Measures, Sitting
from tutelage.train import folder as run_files


def write_sitting(path: Path, sitting: Sitting) -> None:
    """Write it aside and rename it.

    Raises:
        SaveError: the disk is full or refuses.
    """
    saved = {
        "measures": asdict(sitting.measures),
        "task": list(sitting.task_replies),
        "general": list(sitting.general_replies),
        "failed": dict(sitting.failed),
    }
    run_files.write_json(path, saved)


def read_sitting(path: Path) -> Sitting:
    """What `write_sitting` wrote."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    return Sitting(Measures(**saved["measures"]), tuple(saved["task"]), tuple(saved["general"]), saved["failed"])

"""`before.json` and `after.json`: what a model was measured at, with every reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tutelage.errors import cause_of
from tutelage.evaluate.suite import Measures, Sitting
from tutelage.runs import folder as run_files


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


def read_sitting(path: Path, *, say: Callable[[str], None]) -> Sitting | None:
    """What `write_sitting` wrote; None where there is nothing, or it is not as it was written, which `say` is told."""
    try:
        saved = run_files.read_json(path)
        return Sitting(Measures(**saved["measures"]), tuple(saved["task"]), tuple(saved["general"]), saved["failed"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:  # the last two: of another version
        say(f"  note: {path.name} is damaged ({cause_of(error)}); the model is measured again")
        return None

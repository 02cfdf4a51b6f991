"""Which checkpoint a run ends with, where people or a judge chose it: `choice.json` in its folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import CheckpointError, cause_of
from tutelage.runs import folder as run_files


@dataclass(frozen=True, slots=True)
class CheckpointChoice:
    """What was chosen, and why.

    Attributes:
        step: whose weights the run ends with.
        heldout_step: what the run chose itself: the step of the lowest held-out loss, or its last one.
        decided_by: whose word it was, such as `people` or `judge NAME`; None: nobody's, as nothing was shown.
        comparisons: of each other checkpoint with that of `heldout_step`, as plain values.
    """

    step: int
    heldout_step: int
    decided_by: str | None
    comparisons: tuple[dict[str, Any], ...]


def write_choice(folder: Path, choice: CheckpointChoice) -> None:
    """Keep it in the run's folder.

    Raises:
        SaveError: the disk refuses.
    """
    run_files.write_json(folder / run_files.CHOICE, asdict(choice))


def read_choice(folder: Path) -> CheckpointChoice | None:
    """What was chosen for the run in this folder; None where nobody chose.

    Raises:
        CheckpointError: it is damaged.
    """
    path = folder / run_files.CHOICE
    try:
        saved = run_files.read_json(path)
        return CheckpointChoice(**saved | {"comparisons": tuple(saved["comparisons"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            "Which checkpoint was chosen for this run is damaged",
            where=str(path),
            found=cause_of(error),
            expected="the file as it was written",
            fix="delete it, and choose again; until then the run ends with the step of its lowest held-out loss",
        ) from error

"""`report`: writes a run's page again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage import report as report_room
from tutelage.cli.run_options import AsJson, Run
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.runs import folder as run_files


def report(run: Run, as_json: AsJson = False) -> None:
    """Write a run's page (report.html) again, also while it goes on; print where it is."""
    path = report_room.write(run_files.existing_run_folder(run))
    if as_json:
        print_json({"report": str(path), "result": result_or_none(Path(run))})
    else:
        Terminal().write_line(f"Report: {path}")


def result_or_none(run: Path) -> dict[str, Any] | None:
    """The run's `result.json`; None where it is missing or damaged, which the page reports."""
    try:
        return run_files.read_json(run / run_files.RESULT)
    except (OSError, ValueError):
        return None

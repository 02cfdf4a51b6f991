"""What was measured at values of the dial -> what it shows, and its page, `dial.html`, in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tutelage.evaluate.dial import dial_of
from tutelage.evaluate.dial_results import DialMeasure
from tutelage.evaluate.uncertainty import uncertainty_of
from tutelage.report.dial import Dial, DialRow, value_text
from tutelage.report.html.dial_page import write_dial_page
from tutelage.runs import folder as run_files

MARGIN = 0.03
"""What may be lost of the general set: 3 points. Our choice."""


@dataclass(frozen=True, slots=True)
class DialPage:
    """What was found, the rows of its tables by the text of the value, and where the page is."""

    dial: Dial
    rows: dict[str, DialRow]
    path: Path


def dial_page(folder: Path, measures: Mapping[float, DialMeasure], *, margin: float | None) -> DialPage:
    """Work out gain, forgetting and knee, and write the page.

    Args:
        folder: of the run.
        measures: of `builders.dial.measure_dial`.
        margin: what may be lost of the general set; None: `MARGIN`.

    Raises:
        ConfigError: a file of that name is there that is no page of ours.
        SaveError: the page could not be written.
    """
    dial = dial_of(measures, margin=MARGIN if margin is None else margin)
    rows = {
        value_text(value): DialRow(
            asdict(measure.metrics), uncertainty_of({}, measure.outcomes, measure.clusters), dict(measure.divergence)
        )
        for value, measure in measures.items()
    }
    name = run_files.read_settings(folder).name or folder.name
    return DialPage(dial, rows, write_dial_page(folder, name, dial, rows))

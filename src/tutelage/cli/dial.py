"""`evaluate --dial`: a run's model between its base and what it trained, as a table, a page and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError
from tutelage.report.console.dial import change_table, dial_table
from tutelage.report.console.measures import Drawn
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.report.dial import Dial, DialRow, value_text
from tutelage.report.html.dial_page import require_page_place, write_dial_page
from tutelage.runs import folder as run_files

USUAL = "0,0.25,0.5,0.75,1"
MARGIN = 0.03
"""What may be lost of the general set: 3 points. Our choice."""


def evaluate_dial(run: str, listed: str | None, *, margin: float | None, as_json: bool) -> None:
    """Measure the values that are listed, write `dial.html`, and print a table or JSON.

    Raises:
        TutelageError: of the kind that fits; see `builders.dial.measure_dial`.
    """
    if listed is None:
        raise ConfigError("--margin belongs to --dial", where="--margin", fix=f"write --dial {USUAL}, or leave it out")
    values = dial_values(listed)
    from tutelage.builders.dial import measure_dial
    from tutelage.evaluate.dial import dial_of
    from tutelage.evaluate.uncertainty import uncertainty_of

    folder = run_files.existing_run_folder(run)
    require_page_place(folder)
    measures = measure_dial(run, values, screen=Screen(Terminal(stderr=True)))
    dial = dial_of(measures, margin=MARGIN if margin is None else margin)
    rows = {
        value_text(value): DialRow(
            asdict(measure.metrics), uncertainty_of({}, measure.outcomes), dict(measure.divergence)
        )
        for value, measure in measures.items()
    }
    page = write_dial_page(folder, run_files.read_settings(folder).name or folder.name, dial, rows)
    if as_json:
        print_json(_as_json(dial, rows, page))
        return
    terminal = Terminal()
    terminal.print(Drawn(dial_table(rows), title="All measures"))
    terminal.print(Drawn(change_table(dial), title=f"{run}: against the base"))
    for sentence in dial.sentences:
        terminal.print(sentence)
    terminal.write_line(f"Page: {page}")


def dial_values(listed: str) -> list[float]:
    """The values of a list with commas, as they were given.

    Raises:
        ConfigError: one is no number, or is there twice, or there is none.
    """
    words = [word.strip() for word in listed.split(",")]
    values: list[float] = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            raise _bad_list(word or f"'{listed}'") from None
        if not math.isfinite(value):
            raise _bad_list(word)
        values.append(value + 0.0)  # -0 is 0
    if twice := sorted({value for value in values if values.count(value) > 1}):
        raise _bad_list(f"{', '.join(map(value_text, twice))} twice")
    return values


def _bad_list(found: str) -> ConfigError:
    return ConfigError(
        "The dial takes numbers with commas between them, each once",
        where="--dial",
        found=found,
        expected="numbers such as 0.25, from 0 (the base) to 1 (what was trained)",
        fix=f"write --dial {USUAL}",
    )


def _as_json(dial: Dial, rows: Mapping[str, DialRow], page: Path) -> dict[str, Any]:
    values = []
    for point in dial.points:
        row = rows[point.label]
        shares = row.uncertainty.shares | row.uncertainty.scores | row.uncertainty.fields
        values.append(
            {
                "value": point.value,
                "gain": None if point.gain is None else asdict(point.gain),
                "forgotten": None if point.forgotten is None else asdict(point.forgotten),
                "metrics": row.metrics,
                "intervals": {name: asdict(share.after) for name, share in shares.items() if share.after is not None},
                "divergence": {place: asdict(measure) for place, measure in row.divergence.items()},
            }
        )
    return {
        "gain": dial.gain,
        "forgetting": dial.forgetting,
        "values": values,
        "knee": None if dial.knee is None else asdict(dial.knee),
        "no_knee": dial.no_knee,
        "margin": dial.margin,
        "within_margin": None if dial.within_margin is None else dial.within_margin.value,
        "page": str(page),
    }

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
from tutelage.report.html.dial_page import require_page_place
from tutelage.runs import folder as run_files

USUAL = "0,0.25,0.5,0.75,1"
KNEE = "knee"
"""Stands for the value of the knee in `--save-dial`."""


def evaluate_dial(
    run: str,
    listed: str | None,
    *,
    margin: float | None,
    save: tuple[str, str] | None = None,
    as_json: bool,
) -> None:
    """Measure the values that are listed, write `dial.html`, print a table or JSON, and keep one value as a model.

    Args:
        run: its folder.
        listed: the values, with commas between them.
        margin: what may be lost of the general set.
        save: a value, or "knee", and the folder that the model at it is written to.
        as_json: print JSON in place of the tables.

    Raises:
        TutelageError: of the kind that fits; see `builders.dial.measure_dial` and `builders.dial_model`.
    """
    if listed is None:
        option = "--margin" if save is None else "--save-dial"
        raise ConfigError(f"{option} belongs to --dial", where=option, fix=f"write --dial {USUAL}, or leave it out")
    values = dial_values(listed)
    if save is not None and save[0] != KNEE:
        values = sorted({*values, *dial_values(save[0])})
    from tutelage.builders.dial import measure_dial
    from tutelage.builders.dial_page import dial_page

    folder, screen = run_files.existing_run_folder(run), Screen(Terminal(stderr=True))
    require_page_place(folder)
    if save is not None:
        from tutelage.export.model_folder import require_free

        require_free(Path(save[1]))
    measures = measure_dial(run, values, screen=screen)
    found = dial_page(folder, measures, margin=margin)
    if as_json:
        saved = {} if save is None else {"saved": str(_saved(folder, found.dial, save, screen))}
        print_json(_as_json(found.dial, found.rows, found.path) | saved)
        return
    terminal = Terminal()
    terminal.print(Drawn(dial_table(found.rows), title="All measures"))
    terminal.print(Drawn(change_table(found.dial), title=f"{run}: against the base"))
    for sentence in found.dial.sentences:
        terminal.print(sentence)
    terminal.write_line(f"Page: {found.path}")
    if save is not None:
        terminal.write_line(f"Model: {_saved(folder, found.dial, save, screen)}")


def _saved(folder: Path, dial: Dial, save: tuple[str, str], screen: Screen) -> Path:
    """Where the model at the value, or at the knee, was written.

    Raises:
        ConfigError: no knee is shown.
    """
    from tutelage.builders.dial_model import save_dial_model

    value, out = save
    if value != KNEE:
        return save_dial_model(folder, dial_values(value)[0], Path(out), screen=screen)
    if dial.knee is None:
        raise ConfigError(
            "No knee is shown, so no model was written",
            where="--save-dial",
            found=dial.no_knee,
            expected="a knee that these items bear out, or a value",
            fix=f"choose a value yourself: --save-dial 0.5 {save[1]}",
        )
    return save_dial_model(folder, dial.knee.value, Path(out), screen=screen)


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

"""`evaluate A B ...`: several models asked the same questions, the first of them what the others are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from tutelage.cli.evaluated import as_one_model, notes_of
from tutelage.report.console.measures import Drawn, MeasuresTable, change_notes, result_table, several_models
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.runs.uncertainty import Uncertainty

if TYPE_CHECKING:
    from tutelage.builders.compared_models import Questions
    from tutelage.builders.measured import Measured


def evaluate_together(
    names: Sequence[str], questions: Questions, overrides: Sequence[str], *, as_json: bool
) -> Uncertainty | None:
    """Ask all of them, print a table or JSON; of two models, returns what is uncertain of their difference.

    Raises:
        TutelageError: a model or a file that cannot be used.
    """
    from tutelage.builders.compared_models import evaluate_models, questions_of
    from tutelage.builders.measured import comparison

    questions = questions_of(names, questions)
    measured = evaluate_models(names, questions, overrides=overrides, screen=Screen(Terminal(stderr=True)))
    changes = changes_from_first(measured)
    if as_json:
        compared = {name: asdict(uncertainty) for name, uncertainty in changes.items()}
        models = {name: as_one_model(one, comparison(None, one)) for name, one in measured.items()}
        print_json({"models": models, "compared": compared})
    else:
        Terminal().print(Drawn(models_table(measured, changes), title="The same questions"))
    return next(iter(changes.values())) if len(measured) == 2 else None


def changes_from_first(measured: Mapping[str, Measured]) -> dict[str, Uncertainty]:
    """Of each model but the first: its shares beside those of the first, on the same items."""
    from tutelage.builders.measured import uncertainty_between

    (first, *others) = measured.values()
    return {name: uncertainty_between(first, other) for name, other in zip(list(measured)[1:], others, strict=True)}


def models_table(measured: Mapping[str, Measured], changes: Mapping[str, Uncertainty]) -> MeasuresTable:
    """A column each; of two models the change and its verdict, too, of more a note for each but the first."""
    from tutelage.builders.measured import comparison, uncertainty_between

    if len(measured) == 2:
        first, second = measured
        return result_table(comparison(measured[first], measured[second]), names=(first, second))
    rows = {name: asdict(one.metrics) for name, one in measured.items()}
    table = several_models(rows, {name: uncertainty_between(None, one) for name, one in measured.items()})
    first = next(iter(rows))
    notes = {name: "; ".join(change_notes(uncertainty)) for name, uncertainty in changes.items()}
    beside = (f"{name} beside {first}: {words}." for name, words in notes.items() if words)
    own = (note for name, one in measured.items() for note in notes_of(name, one))
    return replace(table, notes=(*own, *beside))

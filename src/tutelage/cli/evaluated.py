"""What `evaluate` says of one model among several: its numbers for machines, sentences under a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tutelage.report.health import health_sentence
from tutelage.report.likelihoods import likelihood_sentences
from tutelage.runs.losses import loss_measures_in
from tutelage.runs.multiple_choice import choice_measure_in

if TYPE_CHECKING:
    from tutelage.builders.measured import Measured


def as_one_model(measured: Measured, compared: Mapping[str, Any]) -> dict[str, Any]:
    """For `--json`: the numbers of one model as ever, with losses by source, the choices, and what is uncertain."""
    extra = ("uncertainty", "losses", "multiple_choice")
    return {**asdict(measured.metrics), **{name: compared[name] for name in extra}}


def notes_of(name: str, measured: Measured) -> list[str]:
    """Sentences under a table of several models: losses by source, choices and lengths of one of them."""
    from tutelage.builders.measured import comparison

    compared = comparison(None, measured)
    sentences = list(likelihood_sentences(loss_measures_in(compared), choice_measure_in(compared)))
    health = health_sentence({}, asdict(measured.metrics)["health"])
    sentences += [] if health is None else [health]
    return [f"{name}. {sentence}" if not sentence.startswith(" ") else sentence for sentence in sentences]

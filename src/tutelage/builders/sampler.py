"""Sampling weights of data sources -> the order of a run. Imports without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tutelage.config import Settings
from tutelage.errors import DataError, command
from tutelage.formats.sources import SourceFile
from tutelage.pack import ExampleStore, Sampler
from tutelage.pack.sampler import Source


def weighted_sources(
    sources: Sequence[str],
    weights: Mapping[str, float],
    train: ExampleStore,
    *,
    files_of: Callable[[Sequence[str]], Sequence[SourceFile]],
) -> tuple[Source, ...]:
    """The examples of each source with its weight, 1 where none was given; empty without weights.

    Args:
        sources: as a recipe names them. A file that two of them hold belongs to the first.
        weights: by name of a source.
        train: what is trained on.
        files_of: finds the files of sources.

    Raises:
        DataError: no example of a source that has a weight is left.
    """
    if not weights:
        return ()
    owner: dict[str, int] = {}
    for number, source in enumerate(sources):
        for file in files_of([source]):
            owner.setdefault(file.shown, number)
    owner_of_file = np.array([owner[name] for name in train.files], dtype=np.int64)
    owners = owner_of_file[train.column("file")]
    found = []
    for number, source in enumerate(sources):
        places = np.flatnonzero(owners == number).astype(np.int32)
        if len(places):
            found.append(Source(source, number, places, weights.get(source, 1.0)))
        elif source in weights:
            raise DataError(
                "A weight was given to a source of which nothing is left to train on",
                where=source,
                found=f"data.weights = {weights[source]:g}, and no proven row",
                expected="at least one proven row",
                fix=f"look at its rows and the reasons: {command('check', source)}; or take it out of data.train",
            )
    return tuple(found)


def sampler_for(
    settings: Settings, *, examples: int, sources: tuple[Source, ...], part_ends: tuple[tuple[int, int], ...] = ()
) -> Sampler:
    """The order in which a run visits its examples; `part_ends` as in `Sampler`."""
    asked = settings.train
    return Sampler(examples, asked.batch_size, asked.epochs, settings.seed, asked.max_steps, sources, part_ends)


def questions_of_length(settings: Settings, order: Sampler) -> list[str]:
    """What the settings ask for that a run of this length cannot give, as questions."""
    asked, found = settings.train, []
    if asked.warmup_steps is not None and asked.warmup_steps >= order.steps:
        found.append(
            f"train.warmup_steps is {asked.warmup_steps}, and the run has {order.steps} steps: its rate climbs to "
            "the end, and never falls"
        )
    without_bound = replace(order, max_steps=None).steps
    if asked.max_steps is not None and asked.max_steps > without_bound:
        found.append(
            f"train.max_steps is {asked.max_steps}, and the run ends after {without_bound} steps, as train.epochs is "
            f"{asked.epochs:g}; it is a bound, and more steps take more epochs"
        )
    return found


def epoch_steps(order: Sampler) -> int:
    """Optimizer steps of one epoch, the last one perhaps smaller."""
    return math.ceil(order.epoch_visits / order.batch_size)


def epoch_tokens(train: ExampleStore, sources: tuple[Source, ...]) -> float:
    """Tokens of one epoch, those of repeated visits counted; on average, where weights make it a fraction."""
    tokens = train.column("tokens")
    return (
        sum(source.weight * float(tokens[source.indices].sum()) for source in sources)
        if sources
        else float(tokens.sum())
    )

"""Sampling weights of data sources -> the order of a run. Imports without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from tutelage.config import Settings
from tutelage.errors import DataError, command
from tutelage.formats.sources import SourceFile
from tutelage.pack import Examples, ExampleStore, Sampler
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
            owner.setdefault(file.display_name, number)
    owner_of_file = np.array([owner[name] for name in train.files], dtype=np.int64)
    owners = owner_of_file[train.column("file_number")]
    weighted = []
    for number, source in enumerate(sources):
        indices = np.flatnonzero(owners == number).astype(np.int32)
        if len(indices):
            weighted.append(Source(source, number, indices, weights.get(source, 1.0)))
        elif source in weights:
            raise DataError(
                "A weight was given to a source of which nothing is left to train on",
                where=source,
                found=f"data.weights = {weights[source]:g}, and no proven row",
                expected="at least one proven row",
                fix=f"look at its rows and the reasons: {command('check', source)}; or take it out of data.train",
            )
    return tuple(weighted)


def with_replay_source(
    sources: tuple[Source, ...], *, task: Sequence[str], replay: Sequence[str], counts: tuple[int, int], ratio: float
) -> tuple[Source, ...]:
    """The sources of the task, and one more whose visits are `ratio` of all visits of an epoch, on average exactly.

    Args:
        sources: as `weighted_sources` gives them.
        task: names of the sources of the task.
        replay: names of the others.
        counts: examples of the task, and those that follow them.
        ratio: above 0 and below 1.
    """
    trained, replayed = counts
    own = sources or (Source(", ".join(task), 0, np.arange(trained, dtype=np.int32), 1.0),)
    share = Fraction(str(ratio))
    visits = sum((source.epoch_visits for source in own), start=Fraction(0)) * share / (1 - share)
    indices = np.arange(trained, trained + replayed, dtype=np.int32)
    return (*own, Source(", ".join(replay), len(task), indices, visits / replayed, replayed=True))


def replay_source(sources: Sequence[Source]) -> Source | None:
    """The one that is replayed; None where none is."""
    return next((source for source in sources if source.replayed), None)


def replay_line(sources: Sequence[Source]) -> str | None:
    """How much an epoch replays, for people; None where nothing is."""
    replayed = replay_source(sources)
    if replayed is None:
        return None
    visits, of = float(replayed.epoch_visits), float(sum(source.epoch_visits for source in sources))
    return f"{visits:,.4g} of {len(replayed.indices):,} sequences an epoch, {visits / of:.2%} of all: {replayed.name}"


def sampler_for(
    settings: Settings, *, examples: int, sources: tuple[Source, ...], part_ends: tuple[tuple[int, int], ...] = ()
) -> Sampler:
    """The order in which a run visits its examples; `part_ends` are the ends of its parts of other lengths."""
    train_settings = settings.train
    return Sampler(
        examples,
        train_settings.batch_size,
        train_settings.epochs,
        settings.seed,
        train_settings.max_steps,
        sources,
        part_ends,
    )


def questions_of_length(settings: Settings, sampler: Sampler) -> list[str]:
    """What the settings ask for that a run of this length cannot give, as questions."""
    train_settings, questions = settings.train, []
    if train_settings.warmup_steps is not None and train_settings.warmup_steps >= sampler.steps:
        questions.append(
            f"train.warmup_steps is {train_settings.warmup_steps}, and the run has {sampler.steps} steps: its rate "
            "climbs to "
            "the end, and never falls"
        )
    replayed = replay_source(sampler.sources)
    if replayed is not None and train_settings.epochs * replayed.epoch_visits < 1:
        questions.append(
            f"data.replay_ratio is {settings.data.replay_ratio:g}, which is less than one example in "
            f"{sampler.visits}: the run replays nothing"
        )
    if replayed is not None and replayed.weight > 1:
        questions.append(
            f"data.replay_ratio is {settings.data.replay_ratio:g}, and data.replay has {len(replayed.indices)} "
            f"sequences: an epoch takes each {float(replayed.weight):.3g} times"
        )
    without_bound = replace(sampler, max_steps=None).steps
    if train_settings.max_steps is not None and train_settings.max_steps > without_bound:
        questions.append(
            f"train.max_steps is {train_settings.max_steps}, and the run ends after {without_bound} steps, as "
            "train.epochs is "
            f"{train_settings.epochs:g}; it is a bound, and more steps take more epochs"
        )
    return questions


def epoch_steps(sampler: Sampler) -> int:
    """Optimizer steps of one epoch, the last one perhaps smaller."""
    return math.ceil(sampler.epoch_visits / sampler.batch_size)


def epoch_tokens(train: Examples, sources: tuple[Source, ...], *, column: str = "tokens") -> float:
    """Tokens of one epoch, those of repeated visits counted; on average, where weights make it a fraction.

    Args:
        train: all that may be visited.
        sources: how often.
        column: "trained_tokens" counts those alone.
    """
    tokens = train.column(column)
    return (
        sum(float(source.weight) * float(tokens[source.indices].sum()) for source in sources)
        if sources
        else float(tokens.sum())
    )


def replayed_from(settings: Settings, task_examples: int) -> int | None:
    """The first example that has rows apart from those of the task; None where what is replayed is packed with them."""
    return None if settings.train.kl_to_base is None else task_examples

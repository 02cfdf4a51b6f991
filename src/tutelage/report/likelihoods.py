"""Losses by source and multiple choice, in sentences for people; and the held-out loss's cells of the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from tutelage.report.numbers import MINUS, count, loss, loss_change, percent, percent_range, significant
from tutelage.runs.losses import PLACES, LossMeasure, Mean, PlaceMeasure, Rate
from tutelage.runs.multiple_choice import COUNTED, WAYS, ChoiceMeasure

MOST_SOURCES = 6
ARROW = "→"
SHORT_FROM = 0.1


def likelihood_sentences(losses: Mapping[str, PlaceMeasure], choices: ChoiceMeasure | None) -> tuple[str, ...]:
    """A sentence for each place where losses were measured, one for each of few sources, and one for the choices."""
    sentences = []
    for place, measure in losses.items():
        sentences.append(f"Loss on {PLACES[place]}, nats a token: {_rate_text(measure.all)}.")
        shown = list(measure.sources.items())[:MOST_SOURCES]
        names = short_names(tuple(measure.sources))
        sentences += [f"  {names[source]}: {_rate_text(found)}" for source, found in shown]
        if len(measure.sources) > len(shown):
            sentences.append(f"  {len(measure.sources) - len(shown)} more sources in result.json")
    return (*sentences, *(() if choices is None else choice_sentences(choices)))


def short_names(sources: Sequence[str]) -> dict[str, str]:
    """What to call each source: of absolute paths no more of their end than tells them apart, all else as it is."""
    paths = {source: PurePath(source).parts for source in sources if PurePath(source).is_absolute()}
    names = {source: source for source in sources}
    for parts in range(1, max(map(len, paths.values()), default=0)):
        short = names | {source: "/".join(path[-parts:]) for source, path in paths.items()}
        if len(set(short.values())) == len(short):
            return short
    return names


def choice_sentences(measure: ChoiceMeasure) -> tuple[str, ...]:
    """One over all questions, and one for each of few topics."""
    shown = list(measure.topics.items())[:MOST_SOURCES]
    sentences = [choice_sentence(measure), *(f"  {name}: {choice_sentence(found)}" for name, found in shown)]
    if len(measure.topics) > len(shown):
        sentences.append(f"  {len(measure.topics) - len(shown)} more topics in result.json")
    return tuple(sentences)


def choice_sentence(measure: ChoiceMeasure) -> str:
    """All four ways, before and after, with intervals."""
    ways = [
        f"{name}{' (counts in the general set)' if way == COUNTED else ''} {_way(measure, way)}"
        for way, name in WAYS.items()
    ]
    same = f" {ARROW} ".join(percent(share) for share in (measure.same_before, measure.same_after) if share is not None)
    return (
        f"Multiple choice, {count(measure.items)} questions, chance {percent(measure.chance)}: {'; '.join(ways)}. "
        f"All four choose the same reply in {same}."
    )


def loss_cells(rate: Rate, cells: Sequence[str]) -> tuple[str, ...]:
    """A table's cells of a loss (the last three: change, interval, verdict), with what its interval shows.

    The intervals of before and after, which are wider than those of shares, stand in the sentence.
    """
    moved = rate.change
    if moved is None:
        return tuple(cells)
    return *cells[:-2], _short_ends(moved.low, moved.high), moved.verdict


def _short_ends(low: float | None, high: float | None) -> str:
    """An interval of a change for a narrow column, two decimals where both ends are at least 0.1 from 0."""
    if low is None or high is None:
        return ""
    places = 2 if min(abs(low), abs(high)) >= SHORT_FROM else 3
    return "…".join(f"{end:+.{places}f}".replace("-", MINUS) for end in (low, high))


def _way(measure: ChoiceMeasure, way: str) -> str:
    share = measure.shares.get(way)
    sides = []
    for shares, interval in (
        (measure.before, share.before if share else None),
        (measure.after, share.after if share else None),
    ):
        if way in shares:
            ends = "" if interval is None else f" ({percent_range(interval.low, interval.high)})"
            sides.append(f"{percent(shares[way])}{ends}")
    verdict = f", {share.change.verdict}" if share and share.change else ""
    above = [points[way] for points in (measure.above_before, measure.above_after) if way in points]
    beyond = f", above chance {f' {ARROW} '.join(map(percent, above))}" if above else ""
    return f" {ARROW} ".join(sides) + verdict + beyond


def _rate_text(measure: LossMeasure) -> str:
    rate = measure.per_token
    sides = [mean for mean in (rate.before, rate.after) if mean is not None]
    text = f" {ARROW} ".join(_with_ends(mean) for mean in sides)
    if rate.change is not None:
        ends = ends_text(rate.change.low, rate.change.high, change=True)
        text += f", change {loss_change(rate.change.value)}{f' ({ends})' if ends else ''}, {rate.change.verdict}"
    text += f"; perplexity {f' {ARROW} '.join(_perplexity(mean) for mean in sides)}"
    if measure.per_byte is not None:
        means = [mean for mean in (measure.per_byte.before, measure.per_byte.after) if mean is not None]
        text += f"; a byte {f' {ARROW} '.join(loss(mean.value) for mean in means)}"
    return f"{text}; {count(measure.documents)} {'document' if measure.documents == 1 else 'documents'}"


def _perplexity(mean: Mean) -> str:
    """With its interval: the exponential of a loss keeps the order, so that of both ends is one of 95 % as well."""
    if mean.low is None or mean.high is None:
        return _exponential(mean.value)
    return f"{_exponential(mean.value)} ({_exponential(mean.low)} to {_exponential(mean.high)})"


def _exponential(value: float) -> str:
    try:
        return significant(math.exp(value), 4)
    except OverflowError:
        return "beyond numbers"


def _with_ends(mean: Mean) -> str:
    ends = mean_ends(mean)
    return f"{loss(mean.value)} ({ends})" if ends else loss(mean.value)


def mean_ends(mean: Mean | None) -> str:
    """Both ends of its interval; empty where it has none."""
    return "" if mean is None else ends_text(mean.low, mean.high)


def ends_text(low: float | None, high: float | None, *, change: bool = False) -> str:
    """Both ends of an interval; those of a change have signs."""
    if low is None or high is None:
        return ""
    write = loss_change if change else loss
    return f"{write(low)} to {write(high)}"

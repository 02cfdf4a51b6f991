"""A comparison in words: the table and its notes, which terminal and page show alike."""

from __future__ import annotations

from tutelage.evaluate.pairwise.results import ComparisonResult, RaterResult, Share
from tutelage.evaluate.statistics import LEVEL, MARGIN, POWER
from tutelage.report.console.measures import MeasuresTable
from tutelage.report.numbers import GAP, count, percent, percent_change, percent_range

HEADINGS = ("", "pairs", "B better", "tie", "A better", f"B wins ({LEVEL * 100:.0f}{GAP}%)", "p", "verdict")
FEWEST_FOR_LENGTH = 10
"""Pairs with a winner and two lengths below which nothing is said about length."""


def title(result: ComparisonResult) -> str:
    """Which is which."""
    return f"A: {result.name_a}   B: {result.name_b}"


def table(result: ComparisonResult) -> MeasuresTable:
    """A row for each rater; what else could have decided is said by `notes`."""
    return MeasuresTable(HEADINGS, tuple(_row(rater) for rater in result.raters))


def notes(result: ComparisonResult) -> list[str]:
    """What the table leaves out, one sentence or two each."""
    said = [_pairs_note(result)]
    if any(rater.shown for rater in result.raters):
        said.append(
            "B wins: a tie is half a win. Gained: B is better; lost: A is; kept: neither, by more than "
            f"{points(MARGIN)}; p: exact sign test, by Holm's method."
        )
    said += _not_shown(result)
    said.append(
        f"Mean length in characters: A {count(round(result.mean_length_a))}, B {count(round(result.mean_length_b))}."
    )
    for rater in result.raters:
        said += _rater_notes(rater)
    if result.agreement is not None:
        said.append(_agreement_note(result))
    if result.stray_verdicts:
        said.append(f"Not counted: {_counted(result.stray_verdicts, 'verdict')} on pairs that are not among these.")
    return said


def label(rater: RaterResult) -> str:
    """What the table calls a rater."""
    return f"judge {rater.rater}" if rater.kind == "judge" else rater.rater


def verdict_sentence(result: ComparisonResult) -> str:
    """What the first line with a verdict comes to."""
    for rater in result.raters:
        if rater.shown is None or rater.win_rate is None:
            continue
        who = f"{label(rater)}, {rater.pairs} of {result.pairs} pairs: B wins {percent(rater.win_rate)}"
        return f"{who}, {rater.shown.verdict}."
    return "No verdict yet."


def _row(rater: RaterResult) -> tuple[str, ...]:
    name = f"  {rater.rater}" if rater.kind == "person" and rater.shown is None else label(rater)
    counts = tuple(count(number) for number in (rater.pairs, rater.better_b, rater.ties, rater.better_a))
    if rater.win_rate is None or rater.interval is None:
        return (name, *counts, "-", "", "")
    wins = f"{percent(rater.win_rate)} ({percent_range(rater.interval.low, rater.interval.high)})"
    shown = ("", "") if rater.shown is None else (p_value_text(rater.shown.adjusted_p), rater.shown.verdict)
    return (name, *counts, wins, *shown)


def p_value_text(p_value: float) -> str:
    """Three decimals."""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _pairs_note(result: ComparisonResult) -> str:
    parts = [_counted(result.pairs, "pair")]
    if result.identical:
        parts.append(f"{count(result.identical)} of them with one reply twice, which are ties")
    if result.alone_a or result.alone_b:
        parts.append(f"without a partner: {count(result.alone_a)} of A, {count(result.alone_b)} of B")
    return "; ".join(parts) + "."


def _not_shown(result: ComparisonResult) -> list[str]:
    told = []
    for rater in result.raters:
        if rater.shown is not None and rater.shown.verdict == "not shown":
            smallest = rater.shown.smallest_detectable
            words = f"none ({_counted(rater.pairs, 'pair')})" if smallest is None else f"{points(smallest)} from even"
            told.append(f"{label(rater)} {words}")
    if not told:
        return []
    return [
        "Not shown: so few pairs cannot tell. The smallest distance of B wins that they show in "
        f"{POWER * 100:.0f}{GAP}% of such comparisons: {', '.join(told)}."
    ]


def _rater_notes(rater: RaterResult) -> list[str]:
    name, said = label(rater), []
    if (longer := rater.longer_won) is not None and longer.of >= FEWEST_FOR_LENGTH:
        more = "; length may be what decided" if longer.interval.low > 0.5 else ""
        said.append(f"{name}: the longer reply won {_share(longer)}{more}.")
    if (left := rater.left_won) is not None and not left.interval.low <= 0.5 <= left.interval.high:
        said.append(f"{name}: the left reply won {_share(left)}, more or less often than chance.")
    if (held := rater.consistency) is not None and held.pairs:
        said.append(
            f"{name}: the same verdict in both orders in {held.same} of {held.pairs} pairs "
            f"({percent(held.same / held.pairs)}); the first reply in both {held.first_twice}, the second "
            f"{held.second_twice}. Where they differ it is a tie."
        )
    if rater.unsaid:
        said.append(
            f"{name}: {'no verdict on' if rater.kind == 'judge' else 'skipped'} {_counted(rater.unsaid, 'pair')}."
        )
    return said


def _share(share: Share) -> str:
    return (
        f"{share.count} of {share.of} ({percent(share.value)}, "
        f"{LEVEL * 100:.0f}{GAP}% {percent_range(share.interval.low, share.interval.high)})"
    )


def _counted(number: int, noun: str) -> str:
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def points(share: float) -> str:
    """A distance of shares, in percentage points."""
    return percent_change(share).removeprefix("+")


def _agreement_note(result: ComparisonResult) -> str:
    assert result.agreement is not None
    agreement = result.agreement
    if agreement.percent is None:
        return f"No pair has verdicts of two raters yet ({', '.join(agreement.raters)})."
    alpha = "not defined" if agreement.alpha is None else f"{agreement.alpha:.2f}"
    return (
        f"Agreement of {len(agreement.raters)} raters on {agreement.pairs} pairs: {percent(agreement.percent)}, "
        f"Krippendorff's alpha {alpha}."
    )

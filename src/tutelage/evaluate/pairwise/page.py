"""A comparison and its verdicts -> what its page shows."""

from __future__ import annotations

from tutelage.evaluate.pairwise.judge import reason_of
from tutelage.evaluate.pairwise.pairs import Pair, Pairing
from tutelage.evaluate.pairwise.results import ComparisonResult, RaterResult
from tutelage.evaluate.pairwise.summary import label, notes, p_value_text, verdict_sentence
from tutelage.evaluate.pairwise.verdicts import Choice, Kind, VerdictFile
from tutelage.evaluate.statistics import LEVEL
from tutelage.report.html.comparison_page import ComparedPair, ComparisonPage, Opinion, RaterLine
from tutelage.report.numbers import GAP, percent, percent_range

MOST_PAIRS = 200
WORDS: dict[Choice, str] = {
    "a": "A is better",
    "b": "B is better",
    "tie": "tie",
    "skip": "cannot say",
    "none": "no verdict",
    "undone": "",
}
"""Of an undone verdict nothing is shown."""


def comparison_page(pairing: Pairing, verdicts: VerdictFile, result: ComparisonResult) -> ComparisonPage:
    """The table of the terminal, and the first pairs, those with a verdict before the others."""
    opinions = _opinions(verdicts)
    pairs = sorted(pairing.pairs, key=lambda pair: pair.key not in opinions)
    return ComparisonPage(
        name_a=result.name_a,
        name_b=result.name_b,
        sentence=verdict_sentence(result),
        raters=tuple(_line(rater) for rater in result.raters),
        notes=tuple(notes(result)),
        pairs=tuple(_compared(pair, opinions.get(pair.key, [])) for pair in pairs[:MOST_PAIRS]),
        pairs_left_out=max(0, len(pairs) - MOST_PAIRS),
    )


def _line(rater: RaterResult) -> RaterLine:
    interval = rater.interval
    return RaterLine(
        name=label(rater),
        level=int(rater.kind == "person" and rater.shown is None),
        better_b=rater.better_b,
        ties=rater.ties,
        better_a=rater.better_a,
        win_rate="" if rater.win_rate is None else percent(rater.win_rate),
        interval="" if interval is None else f"{LEVEL * 100:.0f}{GAP}% {percent_range(interval.low, interval.high)}",
        p_value="" if rater.shown is None else p_value_text(rater.shown.adjusted_p),
        verdict="" if rater.shown is None else rater.shown.verdict,
    )


def _opinions(verdicts: VerdictFile) -> dict[str, list[tuple[Choice, Opinion]]]:
    """By the key of the pair, what each rater said of it, people first."""
    by_pair: dict[str, list[tuple[Choice, Opinion]]] = {}
    kinds: tuple[Kind, ...] = ("person", "judge")
    for kind in kinds:
        for rater in verdicts.raters(kind):
            for (key, _), verdict in verdicts.of(kind, rater).items():
                order = f", {verdict.left.upper()} first" if kind == "judge" and verdict.request else ""
                name = f"judge {rater}{order}" if kind == "judge" else rater
                reason = reason_of(verdict.answer or "") or (verdict.answer or "" if verdict.choice == "none" else "")
                opinion = Opinion(name, WORDS[verdict.choice], reason)
                by_pair.setdefault(key, []).append((verdict.choice, opinion))
    return by_pair


def _compared(pair: Pair, said: list[tuple[Choice, Opinion]]) -> ComparedPair:
    choices = {choice for choice, _ in said if choice in ("a", "b", "tie")}
    outcome = WORDS[choices.pop()] if len(choices) == 1 else "not of one mind" if choices else ""
    return ComparedPair(
        pair.address, pair.prompt, pair.reply_a, pair.reply_b, outcome, tuple(opinion for _, opinion in said)
    )

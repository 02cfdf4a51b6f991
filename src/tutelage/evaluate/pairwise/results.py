"""Verdicts on pairs -> win rates of B over A, what they show, and what else could have decided them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tutelage.evaluate.pairwise.agreement import krippendorff_alpha, percent_agreement
from tutelage.evaluate.pairwise.pairs import Pair, Pairing, Side, mean_length
from tutelage.evaluate.pairwise.verdicts import VerdictFile
from tutelage.evaluate.statistics import (
    MARGIN,
    Interval,
    PairedChange,
    Transitions,
    Verdict,
    judge_changes,
    paired_interval,
    wilson_interval,
)

Outcome: TypeAlias = Literal["a", "b", "tie"]
PEOPLE = "people"


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, with Wilson's interval; there is at least one of all."""

    count: int
    of: int
    interval: Interval

    @property
    def value(self) -> float:
        """From 0 to 1."""
        return self.count / self.of


@dataclass(frozen=True, slots=True)
class Shown:
    """What a win rate shows.

    Attributes:
        p_value: of the exact sign test over the pairs that are no ties.
        adjusted_p: the same by Holm's method, over all win rates with a verdict.
        verdict: gained where B is better, lost where A is, kept where neither by more than `MARGIN`.
        smallest_detectable: the smallest distance of the win rate from one half that so many pairs show; None: none.
    """

    p_value: float
    adjusted_p: float
    verdict: Verdict
    smallest_detectable: float | None


@dataclass(frozen=True, slots=True)
class Consistency:
    """Of a judge, over the pairs that it was shown in both orders, with a verdict in each."""

    same: int
    """The same reply, or a tie, in both orders."""
    first_twice: int
    """Whichever reply came first was the better one."""
    second_twice: int
    other: int
    """A tie in one order only."""

    @property
    def pairs(self) -> int:
        """All of them."""
        return self.same + self.first_twice + self.second_twice + self.other


@dataclass(frozen=True, slots=True)
class RaterResult:
    """What one rater said, or several together.

    Attributes:
        rater: a name, or `PEOPLE`.
        kind: people, where each pair counts once, with what most of its raters said, and as a tie where they are split.
        better_a, better_b, ties: pairs.
        unsaid: pairs that a person skipped, or that a judge gave no verdict on.
        win_rate: of B over A, a tie as half a win, from 0 to 1; None where nothing was said.
        interval: of the win rate.
        shown: None of one person among several, whose verdicts count in those of all.
        longer_won: of the pairs with a winner and two lengths, those that the longer reply won; None of none.
        left_won: of a person, the verdicts with a winner in which that stood on the left; None of none, and of a judge.
        consistency: of a judge.
        tokens: that a judge's endpoint counted, over all answers that are kept.
    """

    rater: str
    kind: Literal["people", "person", "judge"]
    better_a: int
    better_b: int
    ties: int
    unsaid: int
    win_rate: float | None
    interval: Interval | None
    shown: Shown | None
    longer_won: Share | None
    left_won: Share | None
    consistency: Consistency | None
    tokens: int = 0

    @property
    def pairs(self) -> int:
        """Those with a verdict."""
        return self.better_a + self.better_b + self.ties


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of several raters on the pairs that more than one of them gave a verdict on, and whose replies differ."""

    raters: tuple[str, ...]
    pairs: int
    percent: float | None
    alpha: float | None


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """All that the verdicts on two sets of replies say.

    Attributes:
        name_a, name_b: of the two.
        pairs: how many there are; `identical` of them hold one reply twice.
        alone_a, alone_b: replies without a partner.
        mean_length_a, mean_length_b: in characters, over all pairs.
        raters: people first, then judges.
        agreement: None of a single rater.
        stray_verdicts: on pairs that are not among these, as where replies have changed since.
    """

    name_a: str
    name_b: str
    pairs: int
    identical: int
    alone_a: int
    alone_b: int
    mean_length_a: float
    mean_length_b: float
    raters: tuple[RaterResult, ...]
    agreement: Agreement | None
    stray_verdicts: int


@dataclass(frozen=True, slots=True)
class _Said:
    """The outcomes of one rater by the key of the pair, and what goes with them."""

    rater: str
    kind: Literal["people", "person", "judge"]
    outcomes: Mapping[str, Outcome]
    unsaid: int = 0
    left_won: Share | None = None
    consistency: Consistency | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What all raters said of one pairing; `claims` are those whose win rates are judged."""

    pairs: Mapping[str, Pair]
    persons: Sequence[_Said]
    judges: Sequence[_Said]
    together: Sequence[_Said]

    @property
    def claims(self) -> dict[str, Transitions]:
        claims = [said for said in (*(self.together or self.persons), *self.judges) if said.outcomes]
        return {f"{said.kind} {said.rater}": _transitions(said) for said in claims}


def result_of(pairing: Pairing, verdicts: VerdictFile) -> ComparisonResult:
    """Count what was said of these pairs, by each rater and by all people together."""
    return results_of([pairing], verdicts)[0]


def results_of(pairings: Sequence[Pairing], verdicts: VerdictFile) -> list[ComparisonResult]:
    """The same of several pairings, judged together: Holm's method is over the win rates of all of them."""
    gathered = [_gathered(pairing, verdicts) for pairing in pairings]
    changes = judge_changes(
        {f"{number} {claim}": moved for number, said in enumerate(gathered) for claim, moved in said.claims.items()},
        margin=2 * MARGIN,
    )  # of wins less losses, which moves by 2 where the win rate moves by 1
    return [
        _result(pairing, verdicts, said, {claim: changes[f"{number} {claim}"] for claim in said.claims})
        for number, (pairing, said) in enumerate(zip(pairings, gathered, strict=True))
    ]


def _gathered(pairing: Pairing, verdicts: VerdictFile) -> _Gathered:
    pairs = {pair.key: pair for pair in pairing.pairs}
    persons = [said for name in verdicts.raters("person") if (said := _person(name, verdicts, pairs)).outcomes]
    judges = [_judge(model, verdicts, pairs) for model in verdicts.raters("judge")]
    return _Gathered(pairs, persons, judges, [_together(persons)] if len(persons) > 1 else [])


def _result(
    pairing: Pairing, verdicts: VerdictFile, said: _Gathered, changes: Mapping[str, PairedChange]
) -> ComparisonResult:
    pairs, raters = said.pairs, (*said.together, *said.persons, *said.judges)
    lines = tuple(_line(rater, pairs, changes.get(f"{rater.kind} {rater.rater}")) for rater in raters)
    return ComparisonResult(
        name_a=pairing.name_a,
        name_b=pairing.name_b,
        pairs=len(pairing.pairs),
        identical=sum(pair.is_identical for pair in pairing.pairs),
        alone_a=len(pairing.alone_a),
        alone_b=len(pairing.alone_b),
        mean_length_a=mean_length(pair.reply_a for pair in pairing.pairs),
        mean_length_b=mean_length(pair.reply_b for pair in pairing.pairs),
        raters=lines,
        agreement=_agreement([*said.persons, *said.judges], pairs),
        stray_verdicts=sum(verdict.pair not in pairs for verdict in verdicts.verdicts),
    )


def judged_outcome(first: str, second: str) -> Outcome:
    """What a judge's choices in the two orders come to: a tie where they differ."""
    return "a" if first == second == "a" else "b" if first == second == "b" else "tie"


def _person(name: str, verdicts: VerdictFile, pairs: Mapping[str, Pair]) -> _Said:
    held = {key: verdict for (key, _), verdict in verdicts.of("person", name).items() if key in pairs}
    outcomes: dict[str, Outcome] = {
        key: verdict.choice for key, verdict in held.items() if verdict.choice in ("a", "b", "tie")
    }
    won = [held[key].left == choice for key, choice in outcomes.items() if choice != "tie"]
    return _Said(name, "person", outcomes, unsaid=len(held) - len(outcomes), left_won=_share(won))


def _judge(model: str, verdicts: VerdictFile, pairs: Mapping[str, Pair]) -> _Said:
    held = {key: verdict for key, verdict in verdicts.of("judge", model).items() if key[0] in pairs}
    outcomes: dict[str, Outcome] = {}
    counts: Counter[str] = Counter()
    unsaid = 0
    for key in dict.fromkeys(pair for pair, _ in held):
        orders = [held.get((key, side)) for side in ("a", "b")]
        choices = [order.choice for order in orders if order is not None and order.choice != "none"]
        if len(choices) < 2:
            unsaid += 1
            continue
        outcomes[key] = judged_outcome(*choices)
        if not pairs[key].is_identical:
            counts[_how(*choices)] += 1
    consistency = Consistency(**{how: counts[how] for how in ("same", "first_twice", "second_twice", "other")})
    tokens = sum(
        verdict.tokens or 0 for verdict in verdicts.verdicts if (verdict.kind, verdict.rater) == ("judge", model)
    )
    return _Said(model, "judge", outcomes, unsaid=unsaid, consistency=consistency, tokens=tokens)


def _how(with_a_first: str, with_b_first: str) -> str:
    if with_a_first == with_b_first:
        return "same"
    return {("a", "b"): "first_twice", ("b", "a"): "second_twice"}.get((with_a_first, with_b_first), "other")


def _together(persons: Sequence[_Said]) -> _Said:
    by_pair: dict[str, Counter[Outcome]] = {}
    for said in persons:
        for key, outcome in said.outcomes.items():
            by_pair.setdefault(key, Counter())[outcome] += 1
    outcomes: dict[str, Outcome] = {}
    for key, counts in by_pair.items():
        (first, most), *rest = counts.most_common()
        outcomes[key] = "tie" if rest and rest[0][1] == most else first
    return _Said(PEOPLE, "people", outcomes)


def _transitions(said: _Said) -> Transitions:
    """As items that B has right and A wrong, the other way round, or both alike: a win rate is 1/2 + difference / 2."""
    counts = Counter(said.outcomes.values())
    return Transitions(stayed_right=counts["tie"], broken=counts["a"], fixed=counts["b"], stayed_wrong=0)


def _line(said: _Said, pairs: Mapping[str, Pair], change: PairedChange | None) -> RaterResult:
    moved = _transitions(said)
    interval = paired_interval(moved) if moved.items else None
    shown = None
    if change is not None:
        smallest = change.smallest_detectable
        shown = Shown(change.p_value, change.adjusted_p, change.verdict, None if smallest is None else smallest / 2)
    return RaterResult(
        rater=said.rater,
        kind=said.kind,
        better_a=moved.broken,
        better_b=moved.fixed,
        ties=moved.stayed_right,
        unsaid=said.unsaid,
        win_rate=(1 + moved.difference) / 2 if moved.items else None,
        interval=None if interval is None else Interval((1 + interval.low) / 2, (1 + interval.high) / 2),
        shown=shown,
        longer_won=_share(
            [_is_longer(pairs[key], side) for key, side in said.outcomes.items() if _has_longer(pairs[key], side)]
        ),
        left_won=said.left_won,
        consistency=said.consistency,
        tokens=said.tokens,
    )


def _has_longer(pair: Pair, outcome: Outcome) -> bool:
    return outcome != "tie" and len(pair.reply_a) != len(pair.reply_b)


def _is_longer(pair: Pair, outcome: Outcome) -> bool:
    longer: Side = "a" if len(pair.reply_a) > len(pair.reply_b) else "b"
    return outcome == longer


def _share(hits: Sequence[bool]) -> Share | None:
    return Share(sum(hits), len(hits), wilson_interval(sum(hits), len(hits))) if hits else None


def _agreement(raters: Sequence[_Said], pairs: Mapping[str, Pair]) -> Agreement | None:
    raters = [said for said in raters if said.outcomes]
    if len(raters) < 2:
        return None
    units = [
        [said.outcomes[key] for said in raters if key in said.outcomes]
        for key, pair in pairs.items()
        if not pair.is_identical
    ]
    shared = [unit for unit in units if len(unit) > 1]
    names = tuple(said.rater for said in raters)
    return Agreement(names, len(shared), percent_agreement(shared), krippendorff_alpha(shared))

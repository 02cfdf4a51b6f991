"""Several checkpoints of one run against the one that held-out loss chose: which is shown to be preferred, if any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tutelage.evaluate.pairwise.pairs import Pair, Pairing, Replies, in_drawn_order, pair_replies
from tutelage.evaluate.pairwise.results import ComparisonResult, RaterResult, results_of
from tutelage.evaluate.pairwise.summary import label, p_value_text, points
from tutelage.evaluate.pairwise.verdicts import VerdictFile
from tutelage.evaluate.statistics import LEVEL, POWER
from tutelage.report.console.measures import MeasuresTable
from tutelage.report.numbers import GAP, count, percent, percent_range
from tutelage.report.numbers import loss as loss_text

HEADINGS = ("", "held-out loss", "pairs", "better", "tie", "worse", f"wins ({LEVEL * 100:.0f}{GAP}%)", "p", "verdict")


@dataclass(frozen=True, slots=True)
class Contest:
    """What was said of each other checkpoint beside the one that held-out loss chose.

    Attributes:
        heldout_step: of that one, which is A in every comparison.
        results: by the step of B, judged together.
        decided_by: whose word decides; None where nobody said anything, or several judges and no people did.
        judges: all that said something.
        base_step: the one of them that is no checkpoint, and is never chosen; None: it is not among them.
    """

    heldout_step: int
    results: Mapping[int, ComparisonResult]
    decided_by: str | None
    judge_decides: bool
    judges: tuple[str, ...]
    base_step: int | None = None

    def line(self, step: int) -> RaterResult | None:
        """What whoever decides said of a step."""
        for line in self.results[step].raters:
            is_deciding = label(line) == self.decided_by if self.judge_decides else line.kind != "judge"
            if is_deciding and line.shown is not None:
                return line
        return None

    @property
    def better_steps(self) -> list[int]:
        """Those that are shown to be preferred, the most preferred first; of equals the earliest."""
        shown = [
            (-line.win_rate, step)
            for step in self.results
            if step != self.base_step
            and (line := self.line(step)) is not None
            and line.win_rate is not None
            and line.shown is not None
            and line.shown.verdict == "gained"
        ]
        return [step for _, step in sorted(shown)]

    @property
    def chosen_step(self) -> int:
        """The most preferred of those that are shown to be; where none is, what held-out loss chose."""
        return next(iter(self.better_steps), self.heldout_step)


def pairings_with(replies: Mapping[int, Replies], heldout_step: int, *, seed: int) -> dict[int, Pairing]:
    """By the step of every other model, its replies paired with those of the step that held-out loss chose.

    Raises:
        DataError: two have no prompt in common.
    """
    first = replies[heldout_step]
    return {step: pair_replies(first, other, seed=seed) for step, other in replies.items() if step != heldout_step}


def questions(pairings: Sequence[Pairing], *, seed: int) -> Pairing:
    """The pairs of all, each asked once though several checkpoints gave the same reply, in one drawn order."""
    pairs: dict[str, Pair] = {pair.key: pair for pairing in pairings for pair in pairing.pairs}
    names = ", ".join(pairing.name_b for pairing in pairings)
    return Pairing(pairings[0].name_a, names, in_drawn_order(pairs.values(), seed=seed), (), ())


def contest_of(
    pairings: Mapping[int, Pairing],
    verdicts: VerdictFile,
    *,
    heldout_step: int,
    judge: str | None,
    base_step: int | None = None,
) -> Contest:
    """Count what was said.

    Args:
        pairings: by the step of B, as `pairings_with` gives them.
        verdicts: on them.
        heldout_step: of A.
        judge: the model that decides, where people said nothing and several judges did.
        base_step: as in `Contest`.
    """
    results = dict(zip(pairings, results_of(list(pairings.values()), verdicts), strict=True))
    lines = [line for result in results.values() for line in result.raters if line.pairs]
    people = sorted({line.rater for line in lines if line.kind == "person"})
    judges = sorted({line.rater for line in lines if line.kind == "judge"})
    if people:
        decided_by = people[0] if len(people) == 1 else "people"
    elif judge in judges or len(judges) == 1:
        decided_by = f"judge {judge if judge in judges else judges[0]}"
    else:
        decided_by = None
    return Contest(heldout_step, results, decided_by, not people, tuple(judges), base_step)


def contest_table(contest: Contest, names: Mapping[int, str], losses: Mapping[int, float]) -> MeasuresTable:
    """A row for each checkpoint, in order.

    Args:
        contest: what was said.
        names: of all steps.
        losses: held-out losses by step, as far as they were measured.
    """
    rows: list[tuple[str, ...]] = []
    for step in sorted(names):
        loss = loss_text(losses[step]) if step in losses else "-"
        if step == contest.heldout_step:
            rows.append((names[step], loss, "", "", "", "", "", "", "held-out loss chose it"))
            continue
        line = contest.line(step)
        if line is None or line.win_rate is None or line.interval is None or line.shown is None:
            rows.append((names[step], loss, "0", "", "", "", "", "", "no verdict"))
            continue
        counts = tuple(count(number) for number in (line.pairs, line.better_b, line.ties, line.better_a))
        wins = f"{percent(line.win_rate)} ({percent_range(line.interval.low, line.interval.high)})"
        rows.append((names[step], loss, *counts, wins, p_value_text(line.shown.adjusted_p), line.shown.verdict))
    return MeasuresTable(HEADINGS, tuple(rows))


def contest_notes(contest: Contest, names: Mapping[int, str]) -> list[str]:
    """Who decides, and what is shown."""
    if contest.decided_by is None:
        if not contest.judges:
            return ["No verdict yet: --by judge, --by browser or --by terminal asks for some."]
        return [f"Several judges said something ({', '.join(contest.judges)}): name the one that decides with --model."]
    kept = names[contest.heldout_step]
    said = [
        f"By {contest.decided_by}; a tie is half a win. Each is compared with {kept}, which held-out loss chose; p: "
        "exact sign test, by Holm's method over all of them."
    ]
    if contest.better_steps:
        return [*said, f"Preferred to {kept}: {names[contest.chosen_step]}."]
    shown = [line.shown for step in contest.results if (line := contest.line(step)) is not None]
    smallest = [one.smallest_detectable for one in shown if one is not None and one.smallest_detectable is not None]
    ending = f"{kept}, of the lowest held-out loss, is kept."
    if not smallest:
        return [*said, f"None is shown to be preferred: {ending}"]
    power = f"{POWER * 100:.0f}{GAP}%"
    return [*said, f"None is shown to be preferred (so few pairs show {points(max(smallest))} in {power}): {ending}"]

"""Do people agree: on whether a prompt can be answered, on how good texts are, and in the texts that they write."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.annotate.workspace import Workspace
from tutelage.evaluate.pairwise.agreement import krippendorff_alpha, percent_agreement
from tutelage.words import rouge_l

MOST_PAIRS = 2000
"""Of texts that are compared for chance; enough for two digits."""


@dataclass(frozen=True, slots=True)
class Consistency:
    """What people said of the same things.

    Attributes:
        prompts: that more than one person decided on (written, skipped or flagged).
        decided: share of equal decisions.
        decided_alpha: Krippendorff's alpha of them, nominal.
        written: prompts with texts of more than one person.
        likeness: mean ROUGE-L of two people's texts of one prompt.
        likeness_by_chance: the same of two people's texts of different prompts; None where there are none.
        rated: texts with more than one rating.
        rated_alpha: Krippendorff's alpha of ratings, ordinal.
        mean_rating: of all ratings.
    """

    prompts: int
    decided: float | None
    decided_alpha: float | None
    written: int
    likeness: float | None
    likeness_by_chance: float | None
    rated: int
    rated_alpha: float | None
    mean_rating: float | None


def consistency_of(workspace: Workspace) -> Consistency:
    """Count what more than one person said."""
    decisions: list[list[str]] = []
    texts: list[list[tuple[str, str]]] = []
    for prompt in workspace.all_prompts():
        works = [(person, workspace.work(person, prompt.key)) for person in workspace.people]
        decisions.append([work.outcome for _, work in works if work.outcome is not None])
        texts.append([(person, work.revision.text) for person, work in works if work.revision is not None])
    ratings = [list(scores.values()) for scores in workspace.ratings.values()]
    shared = [said for said in texts if len(said) > 1]
    same = [rouge_l(one, two) for said in shared for (_, one), (_, two) in itertools.combinations(said, 2)]
    return Consistency(
        prompts=sum(len(decided) > 1 for decided in decisions),
        decided=percent_agreement(decisions),
        decided_alpha=krippendorff_alpha(decisions),
        written=len(shared),
        likeness=statistics.mean(same) if same else None,
        likeness_by_chance=_by_chance(shared),
        rated=sum(len(scores) > 1 for scores in ratings),
        rated_alpha=krippendorff_alpha(ratings, level="ordinal"),
        mean_rating=statistics.mean(itertools.chain.from_iterable(ratings)) if ratings else None,
    )


def _by_chance(shared: Sequence[Sequence[tuple[str, str]]]) -> float | None:
    """Of texts of other people about other prompts: what the words of the language alone give."""
    pairs = (
        rouge_l(one, two)
        for first, second in itertools.combinations(shared, 2)
        for whose, one in first
        for other, two in second
        if whose != other
    )
    compared = list(itertools.islice(pairs, MOST_PAIRS))
    return statistics.mean(compared) if compared else None


def notes_on(found: Consistency) -> list[str]:
    """What it comes to, a sentence or two each; nothing of what nobody said twice."""
    notes = []
    if found.decided is not None:
        notes.append(
            f"{found.prompts} prompts were decided on (written, skipped, flagged) by more than one person: "
            f"{found.decided:.0%} of the decisions agree, Krippendorff's alpha {_alpha(found.decided_alpha)}."
        )
    if found.likeness is not None:
        chance = (
            ""
            if found.likeness_by_chance is None
            else f", of texts of different prompts {found.likeness_by_chance:.2f}"
        )
        notes.append(
            f"{found.written} prompts have texts of more than one person. Likeness of two such texts (ROUGE-L: 1 where "
            f"they have the same words in the same order) {found.likeness:.2f}{chance}. Good texts may well differ: it "
            "says whether people answer in one way, not whether they answer well."
        )
    if found.mean_rating is not None:
        alpha = f", Krippendorff's alpha (ordinal) {_alpha(found.rated_alpha)}" if found.rated else ""
        notes.append(
            f"Mean rating {found.mean_rating:.1f}; {found.rated} texts were rated by more than one person{alpha}."
        )
    if notes and (found.decided_alpha is not None or found.rated_alpha is not None):
        notes.append(
            "Alpha is 1 where all agree and 0 where they agree as chance would have it; Krippendorff asks for 0.8, and "
            "for 0.667 where a conclusion may be tentative."
        )
    return notes


def _alpha(alpha: float | None) -> str:
    return "not defined (all said the same)" if alpha is None else f"{alpha:.2f}"

"""Multiple choice by likelihood: which of given replies a model finds most likely, weighed in four ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tutelage.distributed.collective_errors import collective_call
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.evaluate.capabilities import CAPABILITY, capability_outcomes
from tutelage.evaluate.choice_items import ChoiceItem
from tutelage.evaluate.choice_replies import WeighedReply, answer_only_replies, weighed_replies
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.grading import Outcome, Outcomes
from tutelage.generate.scoring import GivenText, score
from tutelage.model.architecture import Architecture
from tutelage.render import Renderer
from tutelage.runs.multiple_choice import COUNTED, ChoiceScores


def score_choices(
    model: Any,
    renderer: Renderer,
    items: Sequence[ChoiceItem],
    architecture: Architecture,
    *,
    done: Callable[[int], None] = lambda _: None,
    process_group: ProcessGroup = SINGLE,
) -> list[ChoiceScores]:
    """What a model makes of the choices of each item, in order; it attends as it trains from here on.

    Args:
        model: with or without PEFT around it, whole on this process.
        renderer: writes the replies.
        items: the questions.
        architecture: what was tried on the model.
        done: called with the number of choices weighed since the last call.
        process_group: processes that share the items; all get all scores.

    Raises:
        DataError: the template cannot write a choice as a reply.
        MemoryError, CollectiveError: on all of several processes, as one could not score (`collective_errors`).
    """
    own = range(process_group.rank, len(items), process_group.size)
    scored = collective_call(
        process_group,
        lambda: _scored(model, renderer, [items[place] for place in own], architecture, done),
    )
    by_place: dict[int, ChoiceScores] = {}
    for rank_scores in process_group.gather(dict(zip(own, scored, strict=True))):
        by_place |= rank_scores
    return [by_place[place] for place in range(len(items))]


def _scored(
    model: Any,
    renderer: Renderer,
    items: Sequence[ChoiceItem],
    architecture: Architecture,
    done: Callable[[int], None],
) -> list[ChoiceScores]:
    asked, neutral = weighed_replies(renderer, items), answer_only_replies(renderer, items)
    texts = [_text(reply) for replies in asked for reply in replies]
    # Sorted, those with one prompt stand together, and share it.
    alone = sorted({_key(reply): _text(reply) for replies in neutral for reply in replies}.items())
    scores = iter(score(model, texts, architecture, done=done))
    neutral_totals = {
        key: scored.total
        for (key, _), scored in zip(alone, score(model, [text for _, text in alone], architecture), strict=True)
    }
    return [
        ChoiceScores(
            tuple(next(scores).total for _ in replies),
            tuple(neutral_totals[_key(reply)] for reply in unasked),
            tuple(len(reply.ids) for reply in replies),
        )
        for replies, unasked in zip(asked, neutral, strict=True)
    ]


def _text(reply: WeighedReply) -> GivenText:
    return GivenText(reply.prompt, reply.ids)


def _key(reply: WeighedReply) -> tuple[bytes, bytes]:
    return reply.prompt.tobytes(), reply.ids.tobytes()


def weighed(item: ChoiceItem, scores: ChoiceScores) -> Mapping[str, tuple[float, ...]]:
    """What each choice weighs, by way of weighing; the highest is the model's choice.

    sum: the logarithm of the reply's probability. per_token, per_byte: that divided by its tokens, or by the bytes of
    its text in UTF-8; source: "acc_norm" of EleutherAI's lm-evaluation-harness divides by bytes, Brown et al. 2020
    (GPT-3, arXiv:2005.14165, section 2.4) by tokens. answer_only: the sum less that of the same reply behind an
    answer-only prompt; source: Holtzman et al. 2021 (arXiv:2104.08315), domain-conditional PMI.
    """
    replies = list(zip(scores.sums, scores.answer_only, scores.tokens, item.choices, strict=True))
    return {
        "sum": scores.sums,
        "per_token": tuple(total / tokens for total, _, tokens, _ in replies),
        "per_byte": tuple(total / len(choice.encode()) for total, _, _, choice in replies),
        "answer_only": tuple(total - alone for total, alone, _, _ in replies),
    }


def chosen_rightly(items: Sequence[ChoiceItem], scores: Sequence[ChoiceScores]) -> dict[str, list[bool]]:
    """Whether the right choice weighs more than every other, of each item by way of weighing."""
    by_item = [weighed(item, found) for item, found in zip(items, scores, strict=True)]
    return {
        way: [_wins(weights[way], item.answer) for weights, item in zip(by_item, items, strict=True)]
        for way in (by_item[0] if by_item else ())
    }


def _wins(weights: Sequence[float], answer: int) -> bool:
    return all(weights[answer] > weight for place, weight in enumerate(weights) if place != answer)


def agreement(items: Sequence[ChoiceItem], scores: Sequence[ChoiceScores]) -> float:
    """Share of the items of which all four ways choose the same reply, right or wrong."""
    same = 0
    for item, found in zip(items, scores, strict=True):
        chosen = {max(range(len(weights)), key=weights.__getitem__) for weights in weighed(item, found).values()}
        same += len(chosen) == 1
    return same / len(items)


def chance_level(items: Sequence[ChoiceItem]) -> float:
    """How many of the items guesses have right, as a share: the mean of 1 / choices."""
    return math.fsum(item.chance for item in items) / len(items)


def above_chance(share: float, chance: float) -> float:
    """A share with 0 for guessing and 1 for all right; below 0 where guesses do better."""
    return (share - chance) / (1 - chance)


def with_choices(
    outcomes: Outcomes,
    items: Sequence[ChoiceItem],
    scores: Sequence[ChoiceScores],
    *,
    asked: Sequence[GeneralItem],
) -> dict[str, list[Outcome]]:
    """Outcomes of a suite, the questions behind the other items of the general set, weighed as `COUNTED` says.

    They count in its capabilities, too: a topic is one with all its items, whatever these ask for.

    Args:
        outcomes: of the replies (`grading.grade`).
        items: the questions, at least one.
        scores: in the same order.
        asked: other items of the general set. Where they, or the questions, have no outcomes, the set has none.
    """
    found = {name: list(by_item) for name, by_item in outcomes.items() if not name.startswith(CAPABILITY)}
    general = found.pop("general", [])
    if len(scores) == len(items) and len(general) == len(asked):
        found["general"] = [*general, *chosen_rightly(items, scores)[COUNTED]]
        found |= capability_outcomes([*asked, *items], found["general"])
    return found


def as_general(items: Sequence[ChoiceItem], scores: Sequence[ChoiceScores]) -> tuple[list[GeneralItem], list[str]]:
    """The questions as items of the general set that are replied to, and the choice that weighs most as the reply."""
    general = [
        GeneralItem(item.address, item.topic, item.messages[-1].content or "", (), item.id, item.choices[item.answer])
        for item in items
    ]
    chosen = []
    for item, found in zip(items, scores, strict=True):
        weights = weighed(item, found)[COUNTED]
        chosen.append(item.choices[max(range(len(weights)), key=weights.__getitem__)])
    return general, chosen

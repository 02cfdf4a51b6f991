"""Replies as such, whatever they say: do they end, say anything, go round in circles, keep to the language?

Each question counts replies in good health, so that a share that rises got better and `gained` means what it says, as
of any other share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.grading import Outcome
from tutelage.evaluate.language import prose_language
from tutelage.generate.requests import End
from tutelage.types import Prompt

HEALTH = "health "
"""Stands before the names of these outcomes: `health task ended`."""

LOOP_TIMES = 3
LOOP_CHARACTERS = 30
"""A reply loops whose end is one and the same piece of text at least so many times, in at least so many characters.
Source: our choice; of the demonstrations that `tests/evaluate/test_health.py` reads none does."""
LOOP_WINDOW = 3000
"""Characters at the end of a reply in which a loop is looked for."""

NGRAM = 4
"""Of the repetition in a reply. Source: seq-rep-n of Welleck et al. 2020 (arXiv:1908.04319), whose n is 4."""

_WORDS = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|\w+|[^\w\s]")


def loops(text: str) -> bool:
    """Whether a text ends in a circle: the same piece over and over, the last time perhaps in part."""
    stripped = text.rstrip()[-LOOP_WINDOW:]
    for separator in ("", " ", "\n"):  # what stands between the pieces may be missing behind the last
        for period, matching in enumerate(_matching_beginnings((stripped + separator)[::-1])):
            if period and period + matching >= max(LOOP_TIMES * period, LOOP_CHARACTERS):
                return True
    return False


def repetition(text: str) -> float:
    """seq-rep-4: the share of a text's runs of four words that were there before in it, from 0 to 1.

    Words are runs of letters and digits, single marks, and single signs where words are not divided by spaces (the
    paper counts tokens). 0 of fewer than four.
    """
    words = _WORDS.findall(text)
    ngrams = list(zip(*(words[start:] for start in range(NGRAM)), strict=False))
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def health_outcomes(
    task: Sequence[Prompt],
    general: Sequence[GeneralItem],
    replies: Mapping[str, Sequence[str]],
    ends: Mapping[str, Sequence[End]],
) -> dict[str, list[Outcome]]:
    """By question and set, whether each reply is in good health; None where that cannot be told.

    Args:
        task: the prompts; a reply should be in the language of the demonstration.
        general: the items; a reply should be in the language of its prompt.
        replies: by set; of one that is missing nothing is said.
        ends: how they ended, by set; where it is not known, only whether they did is left out.
    """
    models = {"task": [prompt.reference for prompt in task], "general": [item.prompt for item in general]}
    outcomes: dict[str, list[Outcome]] = {}
    for name, texts in replies.items():
        if not texts or len(texts) != len(models[name]):
            continue
        if len(ends.get(name, ())) == len(texts):
            outcomes[f"{HEALTH}{name} ended"] = [by != "length" for _, by in ends[name]]
        outcomes[f"{HEALTH}{name} not_empty"] = [bool(text.strip()) for text in texts]
        outcomes[f"{HEALTH}{name} no_loop"] = [not loops(text) for text in texts]
        kept: list[Outcome] = [_keeps_language(model, text) for model, text in zip(models[name], texts, strict=True)]
        if any(outcome is not None for outcome in kept):
            outcomes[f"{HEALTH}{name} same_language"] = kept
    return outcomes


def health_figures(
    replies: Mapping[str, Sequence[str]], ends: Mapping[str, Sequence[End]], outcomes: Mapping[str, Sequence[Outcome]]
) -> dict[str, dict[str, float]]:
    """By set: the shares of `health_outcomes`, repetition, and the length in tokens that half and 90 % do not pass."""
    figures: dict[str, dict[str, float]] = {}
    for name, texts in replies.items():
        if not texts:
            continue
        prefix = f"{HEALTH}{name} "
        figures[name] = {
            question.removeprefix(prefix): fmean(float(outcome) for outcome in found if outcome is not None)
            for question, found in outcomes.items()
            if question.startswith(prefix)
        }
        figures[name]["repetition"] = fmean(map(repetition, texts))
        if tokens := sorted(count for count, _ in ends.get(name, ())):
            figures[name]["median_tokens"] = float(median(tokens))
            figures[name]["tokens_90"] = float(tokens[math.ceil(0.9 * len(tokens)) - 1])
    return figures


def _keeps_language(model: str, text: str) -> bool | None:
    expected, actual = prose_language(model), prose_language(text)
    return None if expected is None or actual is None else expected == actual


def _matching_beginnings(text: str) -> list[int]:
    """Of each place, how many characters from there on are those that the text begins with (Gusfield's Z values)."""
    matching = [0] * len(text)
    left = right = 0
    for place in range(1, len(text)):
        length = min(right - place, matching[place - left]) if place < right else 0
        while place + length < len(text) and text[length] == text[place + length]:
            length += 1
        matching[place] = length
        if place + length > right:
            left, right = place, place + length
    return matching

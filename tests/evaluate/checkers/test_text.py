"""Text checkers: values worked by hand, SQuAD's and ROUGE's properties, and languages that are not English.

`rouge_l` was compared once with rouge-score 0.1.2 (rougeL, use_stemmer=False) on 4,000 pairs of ASCII texts of 1 to 30
words, drawn with a fixed seed, and on 2,000 pairs of GSM8K answers: the F-measures agreed within 1e-12. `token_f1` and
`normalized_match` were compared on the same pairs with SQuAD's definition, written again word by word.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluate.checkers.checker import without_reference
from tutelage.evaluate.checkers.text import (
    exact_match,
    normalized_match,
    normalized_words,
    rouge_l,
    token_f1,
)
from tutelage.types import Address, Prompt
from tutelage.words import longest_common_subsequence

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12)


def asked(reference: str) -> Prompt:
    return Prompt(Address("task.jsonl", 1), np.zeros(1, dtype=np.int32), "", reference)


@pytest.mark.parametrize(
    ("reference", "reply", "score"),
    [("Paris", " Paris\n", 1), ("Paris", "paris", 0), ("Paris", "Paris.", 0), ("a b", "a  b", 0), ("a\n", "a", 1)],
)
def test_exact_match_strips_the_outside_only(reference: str, reply: str, score: float) -> None:
    assert exact_match(asked(reference), reply) == score


@pytest.mark.parametrize(
    ("reference", "reply", "score"),
    [
        ("The U.S. Army", "us army!", 1),  # the points go and leave no space, as SQuAD has it
        ("a cat", "The cat", 1),
        ("theory", "ory", 0),  # an article inside a word stays
        ("30 %", "30", 1),
        ("Köln", "köln.", 1),
        ("koln", "Köln", 0),
        ("东京", "东京。", 1),
        ("l'été", "lété", 1),
        ("der Hund", "Hund", 0),  # only English articles are known
        ("cat", "dog", 0),
    ],
)
def test_normalized_match(reference: str, reply: str, score: float) -> None:
    assert normalized_match(asked(reference), reply) == score


@pytest.mark.parametrize(
    ("reference", "reply", "score"),
    [
        ("the cat sat on the mat", "a cat on mat", 2 * 3 / (3 + 4)),  # cat on mat of: cat sat on mat
        ("to be or not to be", "to be to be to be", 2 * 4 / (6 + 6)),  # each word at most as often as on both sides
        ("cat", "dog", 0),
        ("cat", "", 0),
        ("the", "a", 1),  # both without words
        ("the", "cat", 0),
        ("东京塔", "东京", 2 * 2 / (2 + 3)),
    ],
)
def test_token_f1_by_hand(reference: str, reply: str, score: float) -> None:
    assert token_f1(asked(reference), reply) == pytest.approx(score)


@pytest.mark.parametrize(
    ("reference", "reply", "score"),
    [
        # Lin 2004, section 3.1: S1, S2 and S3, whose scores by ROUGE-L are 3/4 and 2/4.
        ("police killed the gunman", "police kill the gunman", 3 / 4),
        ("police killed the gunman", "the gunman kill police", 2 / 4),
        ("a b c d e", "a c e x", 2 * 3 / (4 + 5)),
        ("a b", "b a", 1 / 2),
        ("a b", "", 0),
        ("!", "?", 1),
        ("Don't", "don t", 1),
        ("東京に行く", "東京へ行く", 4 / 5),
        ("नमस्ते दुनिया", "नमस्ते", 2 * 1 / (1 + 2)),  # vowel signs do not cut a word
    ],
)
def test_rouge_l_by_hand(reference: str, reply: str, score: float) -> None:
    assert rouge_l(asked(reference), reply) == pytest.approx(score)


@given(WORDS, WORDS)
def test_the_longest_common_subsequence_is_that_of_the_table(first: list[str], second: list[str]) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for row, word in enumerate(first):
        for column, other in enumerate(second):
            longer = max(table[row][column + 1], table[row + 1][column])
            table[row + 1][column + 1] = table[row][column] + 1 if word == other else longer

    assert longest_common_subsequence(first, second) == table[-1][-1]


@given(st.text(max_size=30), st.text(max_size=30))
def test_scores_stay_between_0_and_1_and_are_1_on_the_reference(reply: str, reference: str) -> None:
    for checker in (exact_match, normalized_match, token_f1, rouge_l):
        assert 0 <= checker(asked(reference), reply) <= 1
        assert checker(asked(reference), reference) == 1


def test_articles_go_as_words_only() -> None:
    assert normalized_words("An apple, the pear; a fig -- anthem") == ["apple", "pear", "fig", "anthem"]


def test_a_row_without_words_has_no_reference() -> None:
    assert without_reference(asked(" \n")) == "an empty reply"
    assert without_reference(asked("x")) is None

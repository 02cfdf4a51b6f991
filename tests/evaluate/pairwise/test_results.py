from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.compared_replies import judged, pairing, replies, said
from tutelage.evaluate.pairwise.pairs import pair_replies
from tutelage.evaluate.pairwise.results import RaterResult, judged_outcome, result_of
from tutelage.evaluate.pairwise.summary import notes, table
from tutelage.evaluate.pairwise.verdicts import Choice, VerdictFile
from tutelage.evaluate.statistics import mcnemar_p, wilson_interval

MADE = pairing(60)
KEYS = [pair.key for pair in MADE.pairs]


def rated(folder: Path, by_rater: dict[str, str]) -> VerdictFile:
    """Verdicts on the first pairs by a letter each: a, b, t for a tie, s for skipped, - for none."""
    words: dict[str, Choice] = {"a": "a", "b": "b", "t": "tie", "s": "skip"}
    file = VerdictFile.open(folder)
    for rater, letters in by_rater.items():
        for key, letter in zip(KEYS, letters, strict=False):
            if letter in words:
                said(file, key, words[letter], rater=rater)
    return file


def lines(folder: Path, by_rater: dict[str, str]) -> Sequence[RaterResult]:
    return result_of(MADE, rated(folder, by_rater)).raters


def test_without_ties_the_interval_is_wilsons_and_p_that_of_the_sign_test(tmp_path: Path):
    (line,) = lines(tmp_path, {"anna": "b" * 30 + "a" * 10})
    assert (line.better_b, line.better_a, line.ties, line.win_rate) == (30, 10, 0, 0.75)
    wilson = wilson_interval(30, 40)
    assert line.interval is not None
    assert (line.interval.low, line.interval.high) == pytest.approx((wilson.low, wilson.high), abs=1e-9)
    assert line.shown is not None
    assert line.shown.p_value == pytest.approx(mcnemar_p(30, 10))
    assert line.shown.verdict == "gained"


def test_a_tie_is_half_a_win_and_makes_the_interval_narrower_than_two_halves_would(tmp_path: Path):
    (line,) = lines(tmp_path, {"anna": "b" * 20 + "a" * 5 + "t" * 15})
    assert line.win_rate == pytest.approx((20 + 7.5) / 40)
    assert line.interval is not None
    # Wilson's formula with the mean, whose variance p (1 - p) is the most that values from 0 to 1 can have.
    share, weight, z = 27.5 / 40, 1.959964**2 / 40, 1.959964
    half = z / (1 + weight) * (share * (1 - share) / 40 + weight / 160) ** 0.5
    center = (share + weight / 2) / (1 + weight)
    assert center - half < line.interval.low < line.interval.high < center + half


@pytest.mark.parametrize(
    ("letters", "verdict"),
    [("a" * 30 + "b" * 8, "lost"), ("t" * 60, "kept"), ("ab" * 5, "not shown"), ("ab" * 30, "not shown")],
)
def test_verdicts(letters: str, verdict: str, tmp_path: Path):
    (line,) = lines(tmp_path, {"anna": letters})
    assert line.shown is not None
    assert line.shown.verdict == verdict


def test_several_people_count_each_pair_once_as_most_of_them_said(tmp_path: Path):
    together, *each = lines(tmp_path, {"anna": "bbat-b", "ben": "bat-ab", "cleo": "bas---"})
    # b b b; b a a; a t (cleo skipped); t alone; a alone; b b
    assert (together.kind, together.better_b, together.better_a, together.ties) == ("people", 2, 2, 2)
    assert together.shown is not None
    assert [line.rater for line in each] == ["anna", "ben", "cleo"]
    assert [line.shown for line in each] == [None, None, None]
    assert each[2].unsaid == 1


def test_agreement_leaves_out_pairs_of_one_rater_and_equal_replies(tmp_path: Path):
    result = result_of(MADE, rated(tmp_path, {"anna": "bbaat", "ben": "bbaba-"}))
    assert result.agreement is not None
    assert result.agreement.pairs == 5
    assert result.agreement.percent == pytest.approx(3 / 5)
    assert result.agreement.alpha == pytest.approx(1 - 36 / 58)  # worked out in test_agreement.py

    same = pair_replies(replies("a", "same"), replies("b", "same"))
    file = VerdictFile.open(tmp_path / "same")
    for rater in ("anna", "ben"):
        said(file, same.pairs[0].key, "tie", rater=rater)
    agreement = result_of(same, file).agreement
    assert agreement is not None
    assert (agreement.pairs, agreement.percent, agreement.alpha) == (0, None, None)


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        ("a", "a", "a"),
        ("b", "b", "b"),
        ("tie", "tie", "tie"),
        ("a", "b", "tie"),
        ("b", "a", "tie"),
        ("a", "tie", "tie"),
    ],
)
def test_orders_that_differ_are_a_tie(first: str, second: str, outcome: str):
    assert judged_outcome(first, second) == outcome


def test_consistency_of_a_judge(tmp_path: Path):
    file = VerdictFile.open(tmp_path)
    for key, orders in zip(KEYS, ["aa", "bb", "ab", "ab", "ba", "at", "tt"], strict=False):
        judged(file, key, *({"a": "a", "b": "b", "t": "tie"}[letter] for letter in orders))  # type: ignore[arg-type] # letters of the test
    said(file, KEYS[7], "a", rater="m", kind="judge", left="a")  # one order alone says nothing
    judged(file, KEYS[8], "a", "none")
    (line,) = result_of(MADE, file).raters
    assert (line.better_a, line.better_b, line.ties, line.unsaid) == (1, 1, 5, 2)
    held = line.consistency
    assert held is not None
    assert (held.same, held.first_twice, held.second_twice, held.other, held.pairs) == (3, 2, 1, 1, 7)
    assert line.left_won is None


def test_length_and_side_are_told_where_they_could_have_decided(tmp_path: Path):
    file = VerdictFile.open(tmp_path)
    for number, key in enumerate(KEYS[:20]):
        choice: Choice = "a" if number < 2 else "b"
        said(file, key, choice, left=choice)
    result = result_of(MADE, file)
    (line,) = result.raters
    assert line.longer_won is not None
    assert (line.longer_won.count, line.longer_won.of) == (18, 20)
    assert line.left_won is not None
    assert (line.left_won.count, line.left_won.of) == (20, 20)
    text = " ".join(notes(result))
    assert "the longer reply won 18 of 20" in text
    assert "length may be what decided" in text
    assert "the left reply won 20 of 20" in text
    assert "Mean length in characters: A 8, B 15." in text


def test_verdicts_on_other_pairs_are_not_counted_and_told(tmp_path: Path):
    file = rated(tmp_path, {"anna": "bb"})
    said(file, "another", "a")
    result = result_of(MADE, file)
    assert (result.raters[0].pairs, result.stray_verdicts) == (2, 1)
    assert "Not counted: 1 verdict on" in " ".join(notes(result))


def test_the_table_has_a_row_for_each_rater(tmp_path: Path):
    file = rated(tmp_path, {"anna": "bbb", "ben": "bba"})
    judged(file, KEYS[0], "b", "b")
    made = table(result_of(MADE, file))
    assert [row[0] for row in made.rows] == ["people", "  anna", "  ben", "judge m"]
    assert {len(row) for row in made.rows} == {len(made.headings)}


def test_nothing_said_is_no_row():
    result = result_of(MADE, VerdictFile(Path("nowhere")))
    assert result.raters == ()
    assert result.agreement is None

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.compared_replies import pairing, replies
from tutelage.evaluate.pairwise.pairs import pair_replies
from tutelage.evaluate.pairwise.rating import Rating
from tutelage.evaluate.pairwise.terminal import rate_in_terminal
from tutelage.evaluate.pairwise.verdicts import VerdictFile
from tutelage.report.console.terminal import Terminal

PAIRS = pairing(5).pairs


def rating_of(folder: Path, rater: str = "anna", **named: object) -> Rating:
    return Rating(PAIRS, VerdictFile.open(folder), rater, **named)  # type: ignore[arg-type] # letters of the test


def choices(folder: Path, rater: str = "anna") -> dict[str, str]:
    return {pair: verdict.choice for (pair, _), verdict in VerdictFile.open(folder).of("person", rater).items()}


def test_what_is_said_of_a_side_is_kept_of_the_model_that_stood_there(tmp_path: Path):
    rating = rating_of(tmp_path)
    asked = []
    while (question := rating.question()) is not None:
        asked.append(question.pair)
        rating.say(question.pair, "left" if question.left == question.pair.reply_b else "right")
    assert asked == list(PAIRS)
    assert choices(tmp_path) == {pair.key: "b" for pair in PAIRS}
    assert {verdict.left for verdict in VerdictFile.open(tmp_path).verdicts} == {"a", "b"}


def test_a_later_start_goes_on_and_another_rater_begins(tmp_path: Path):
    first = rating_of(tmp_path)
    for said in ("left", "tie", "skip"):
        question = first.question()
        assert question is not None
        first.say(question.pair, said)  # type: ignore[arg-type] # letters of the test
    second = rating_of(tmp_path).question()
    assert second is not None
    assert (second.pair, second.number, second.total) == (PAIRS[3], 4, 5)
    other = rating_of(tmp_path, "ben").question()
    assert other is not None
    assert (other.pair, other.number) == (PAIRS[0], 1)


def test_undo_goes_back_as_far_as_there_are_verdicts_also_of_an_earlier_start(tmp_path: Path):
    first = rating_of(tmp_path)
    for pair in PAIRS[:2]:
        first.question()
        first.say(pair, "tie")
    again = rating_of(tmp_path)
    again.question()
    again.say(PAIRS[2], "tie")
    for pair in reversed(PAIRS[:3]):
        assert again.undo()
        question = again.question()
        assert question is not None
        assert question.pair == pair
    assert not again.undo()
    assert choices(tmp_path) == {}
    assert len(VerdictFile.open(tmp_path).verdicts) == 6


def test_undo_asks_the_pair_again_before_it_goes_on(tmp_path: Path):
    rating = rating_of(tmp_path)
    for pair in PAIRS[:2]:
        rating.say(pair, "left")
    rating.undo()
    question = rating.question()
    assert question is not None
    assert (question.pair, question.number) == (PAIRS[1], 2)
    rating.say(question.pair, "right")
    following = rating.question()
    assert following is not None
    assert following.pair == PAIRS[2]


def test_equal_replies_are_ties_that_nobody_is_asked_about(tmp_path: Path):
    pairs = pair_replies(replies("a", "same", "x"), replies("b", "same", "y")).pairs
    rating = Rating(pairs, VerdictFile.open(tmp_path), "anna")
    question = rating.question()
    assert question is not None
    assert (question.pair.reply_a, question.total) == ("x", 1)
    rating.say(question.pair, "left")
    assert rating.question() is None
    assert sorted(choices(tmp_path).values()) in (["a", "tie"], ["b", "tie"])


def test_time_left_is_the_median_pace_and_a_pause_does_not_count(tmp_path: Path):
    now = iter([0.0, 10.0, 10.0, 30.0, 30.0, 5000.0, 5000.0])
    rating = rating_of(tmp_path, clock=lambda: next(now))
    for _ in range(3):
        question = rating.question()
        assert question is not None
        rating.say(question.pair, "tie")
    last = rating.question()
    assert last is not None
    assert last.seconds_left == pytest.approx(2 * 15.0)
    assert last.progress == "4 of 5, about a minute left"
    assert replace(last, seconds_left=601.0).progress == "4 of 5, about 11 min left"
    assert [verdict.seconds for verdict in VerdictFile.open(tmp_path).verdicts] == [10.0, 20.0, 4970.0]


def rate(folder: Path, keys: str, *, width: int = 100) -> str:
    """Rate with these keys; an input that ends quits."""
    pressed: Iterator[str] = iter(keys)

    def read_key() -> str:
        key = next(pressed, None)
        if key is None:
            raise EOFError
        return key

    shown = io.StringIO()
    rate_in_terminal(rating_of(folder), Terminal(file=shown, width=width), read_key)
    return shown.getvalue()


def test_keys_of_the_terminal(tmp_path: Path):
    text = rate(tmp_path, "1x2uTsq")
    assert list(choices(tmp_path).values())[1:] == ["tie", "skip"]
    assert "taken back" in text
    assert "4 of 5" in text
    assert "5 of 5" not in text
    rate(tmp_path, "11111111")
    assert len(choices(tmp_path)) == 5


def test_the_terminal_never_says_whose_reply_it_is(tmp_path: Path):
    for width in (100, 50):
        text = rate(tmp_path / str(width), "12", width=width)
        assert "short" in text
        assert not {"old", "new", "A", "B"} & set(text.replace(":", " ").split())


def test_a_reply_cannot_steer_the_terminal(tmp_path: Path):
    pairs = pair_replies(replies("a", "\x1b[2Jgone [red]x[/red]"), replies("b", "")).pairs
    shown = io.StringIO()
    rating = Rating(pairs, VerdictFile.open(tmp_path), "anna")
    rate_in_terminal(rating, Terminal(file=shown, width=100), lambda: "q")
    assert "\x1b" not in shown.getvalue()
    assert "[red]x[/red]" in shown.getvalue()
    assert "(says nothing)" in shown.getvalue()


def test_the_last_verdict_can_be_taken_back_when_all_is_rated(tmp_path: Path):
    text = rate(tmp_path, "11111")
    assert "all is rated" in text
    first = choices(tmp_path)
    rate(tmp_path, "u2x2")
    second = choices(tmp_path)
    assert [first[key] == second[key] for key in first] == [True] * 4 + [False]


def test_ctrl_c_is_a_way_to_quit(tmp_path: Path):
    def read_key() -> str:
        raise KeyboardInterrupt

    rate_in_terminal(rating_of(tmp_path), Terminal(file=io.StringIO(), width=100), read_key)
    assert choices(tmp_path) == {}


def test_nothing_is_taken_back_where_nothing_was_said(tmp_path: Path):
    assert "nothing to take back" in rate(tmp_path, "uq")

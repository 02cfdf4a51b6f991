from __future__ import annotations

import pytest

from tests.support.compared_replies import pairing, replies
from tutelage.errors import DataError
from tutelage.evaluate.pairwise.pairs import Answered, Replies, left_side, pair_replies
from tutelage.types import Message


def test_pairs_are_joined_by_the_prompt_and_what_is_alone_is_named():
    made = pair_replies(replies("a", "x0", "x1", "x2"), replies("b", "y1", "y2", "y3", first=1))
    assert {(pair.reply_a, pair.reply_b) for pair in made.pairs} == {("x1", "y1"), ("x2", "y2")}
    assert made.alone_a == ("a:0",)
    assert made.alone_b == ("b:3",)


def test_a_prompt_that_is_there_several_times_goes_first_with_first():
    def twice(name: str, *texts: str) -> Replies:
        return Replies(name, tuple(Answered(f"{name}:{n}", (Message("user", "q"),), t) for n, t in enumerate(texts)))

    made = pair_replies(twice("a", "x0", "x1"), twice("b", "y0", "y1", "y2"))
    assert {(pair.reply_a, pair.reply_b) for pair in made.pairs} == {("x0", "y0"), ("x1", "y1")}
    assert made.alone_b == ("b:2",)
    same = pair_replies(twice("a", "x", "x"), twice("b", "y", "y"))
    assert len({pair.key for pair in same.pairs}) == 2


def test_a_system_prompt_is_part_of_the_prompt():
    plain = Answered("a:1", (Message("user", "q"),), "x")
    led = Answered("b:1", (Message("system", "Be brief."), Message("user", "q")), "y")
    with pytest.raises(DataError) as caught:
        pair_replies(Replies("a", (plain,)), Replies("b", (led,)))
    assert "Be brief." in str(caught.value)


def test_the_order_is_drawn_and_does_not_depend_on_the_order_of_the_files():
    forward = pairing(40)
    a, b = replies("old", *(f"short {n}" for n in range(40))), replies("new", *(f"a longer one {n}" for n in range(40)))
    backward = pair_replies(Replies("old", a.rows[::-1]), Replies("new", b.rows[::-1]))
    keys = [pair.key for pair in forward.pairs]
    assert keys == [pair.key for pair in backward.pairs]
    assert keys != [pair.key for pair in pairing(40, seed=1).pairs]
    assert [pair.reply_a for pair in forward.pairs] != [f"short {n}" for n in range(40)]


def test_sides_are_drawn_for_each_pair_and_rater():
    pairs = pairing(400).pairs
    sides = [left_side(pair, seed=0, rater="anna") for pair in pairs]
    assert sides == [left_side(pair, seed=0, rater="anna") for pair in pairs]
    assert 160 < sides.count("a") < 240
    elsewhere = [left_side(pair, seed=0, rater="ben") for pair in pairs]
    assert 160 < sum(one == two for one, two in zip(sides, elsewhere, strict=True)) < 240


def test_another_reply_makes_another_pair():
    one, two = (pair_replies(replies("a", "x"), replies("b", text)).pairs[0] for text in ("y", "z"))
    assert one.key != two.key
    assert pair_replies(replies("a", "x"), replies("b", "x")).pairs[0].is_identical

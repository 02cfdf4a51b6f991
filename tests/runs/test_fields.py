from __future__ import annotations

import math

import pytest

from tutelage.runs.fields import Fields


def fields(**content):
    return Fields.of(content, "result.json", [])


def test_values_of_the_right_kind_pass_unchanged():
    one = fields(a=1.5, b=3, c="x", d=True, e=[{"f": 1}], g={"h": 2}, n=["line"])
    assert one.number("a") == 1.5
    assert one.integer("b") == 3
    assert one.text("c") == "x"
    assert one.flag("d") is True
    assert one.items("e")[0].integer("f") == 1
    assert one.inner("g").counts() == {"h": 2}
    assert one.lines("n") == ["line"]
    assert one.notices == []


def test_absent_and_null_are_none_and_need_no_notice():
    one = fields(a=None)
    assert one.number("a") is None
    assert one.text("b") is None
    assert one.flag("b") is None
    assert one.items("b") == []
    assert one.lines("b") == []
    assert one.inner("b").content == {}
    assert one.notices == []


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (Fields.number, "0.5"),
        (Fields.number, True),
        (Fields.number, 10**400),
        (Fields.integer, 1.5),
        (Fields.integer, math.nan),
        (Fields.text, ["x"]),
        (Fields.flag, 1),
        (Fields.items, {"a": 1}),
        (Fields.lines, "abc"),
        (Fields.lines, [1]),
    ],
)
def test_a_value_of_another_kind_is_left_out_and_named(read, value):
    one = fields(loss=value)
    assert read(one, "loss") in (None, [])
    assert len(one.notices) == 1
    assert one.notices[0].startswith("result.json: loss is ")


def test_a_number_can_stand_where_a_text_is_wanted_and_a_whole_float_where_a_count_is():
    one = fields(seed=17, steps=30.0)
    assert one.text("seed") == "17"
    assert one.integer("steps") == 30


def test_a_value_that_is_no_object_reads_as_empty():
    notices: list[str] = []
    assert Fields.of([1], "ledger.json", notices).content == {}
    assert notices == ["ledger.json holds [1] where an object was expected."]

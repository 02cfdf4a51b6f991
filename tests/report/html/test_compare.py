from __future__ import annotations

import pytest

from tutelage.report.html.compare import LONGEST_TEXT, compare
from tutelage.runs.reading import Sample


def replies(reference, before, after):
    return compare(Sample("heldout.jsonl:1", "prompt", reference, before, after)).replies


def test_fields_are_marked_one_by_one():
    before, after = replies('{"a": 1, "b": true}', '{"a": 1, "b": 1, "c": 2}', ' {"b": true, "a": 1} ')
    assert [(mark.name, mark.matches) for mark in before.marks] == [("a", True), ("b", False), ("c", False)]
    assert (before.marks[1].found, before.marks[1].wanted) == ("1", "true")
    assert before.marks[2].wanted == ""
    assert before.verdict == "1 of 3 fields as wanted"
    assert after.matches is True
    assert after.verdict == "every field as wanted"


def test_a_reply_that_is_no_object_is_said_so():
    before, after = replies('{"a": 1}', "Thank you!", "[1]")
    assert (before.matches, before.verdict, before.marks) == (False, "not a JSON object", ())
    assert after.verdict == "not a JSON object"


@pytest.mark.parametrize(("text", "matches"), [("yes", True), (" yes\n", True), ("no", False)])
def test_plain_texts_are_compared_without_their_outer_spaces(text, matches):
    assert replies("yes", text, None)[0].matches is matches


def test_a_reply_that_was_not_generated_is_neither_right_nor_wrong():
    assert replies("yes", None, None)[0].matches is None


def test_long_texts_are_cut_and_counted_but_compared_whole():
    long = "x" * (LONGEST_TEXT + 7)
    reply = replies(long, long[:-1] + "y", long)
    assert reply[0].cut_characters == 7
    assert [one.matches for one in reply] == [False, True]

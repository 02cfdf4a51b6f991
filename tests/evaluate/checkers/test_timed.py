"""Patterns from data are given a time, after which the row counts neither way; the next check is made as ever."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tutelage.evaluate.checkers import timed
from tutelage.evaluate.checks import CHECKS
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.grading import grade
from tutelage.types import Address

SLOW = "(a+)+b"
"""On n letters a it tries about 2^n ways to divide them, and then says no: seconds at 28, and never without end."""
LONG = "a" * 28


def item(check: dict[str, Any], number: int) -> GeneralItem:
    return GeneralItem(Address("general.jsonl", number), "", "?", (CHECKS[check["kind"]].model_validate(check),))


def test_a_pattern_that_takes_too_long_is_ended_and_the_next_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "LIMIT_SECONDS", 0.5)
    assert not timed.fits("regex", SLOW, "aac"), "on a short text it is as quick as any"

    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"took more than 0\.5 s"):
        timed.fits("regex", SLOW, LONG)

    assert time.monotonic() - began < 30, "not the minutes and years that longer texts would take"
    assert timed.fits("regex", "^b$", "a\nb\nc")
    assert not timed.fits("regex", "^b$", "abc")


def test_a_schema_with_such_a_pattern_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jsonschema", reason="the extra json-schema is not installed")
    monkeypatch.setattr(timed, "LIMIT_SECONDS", 0.5)
    schema = {"type": "string", "pattern": SLOW}
    assert timed.fits("json_schema", schema, '"aab"')

    with pytest.raises(TimeoutError):
        timed.fits("json_schema", schema, f'"{LONG}"')


def test_such_a_row_counts_neither_way_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "LIMIT_SECONDS", 0.5)
    items = [item({"kind": "regex", "pattern": pattern}, number) for number, pattern in enumerate(("a", SLOW, "^c"))]

    graded = grade((), items, (), [LONG] * 3)

    assert graded.outcomes["general"] == [True, None, False]
    assert graded.unchecked["general"].replies == 1
    assert "general.jsonl:1 (" in graded.unchecked["general"].rows[0]
    assert "regex (a+)+b took more than 0.5 s" in graded.unchecked["general"].rows[0]

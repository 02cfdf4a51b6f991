"""Strict JSON answers: one object, nothing around it, true is not 1."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluate.grading import FIELD, grade
from tutelage.evaluate.json_task import parse_object
from tutelage.evaluate.suite import Metrics
from tutelage.types import Address, Prompt

PLAIN = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=6)
OBJECTS = st.dictionaries(st.text(max_size=4), PLAIN | st.lists(PLAIN, max_size=2), min_size=1, max_size=4)


def asked(*references: Any) -> list[Prompt]:
    texts = [reference if isinstance(reference, str) else json.dumps(reference) for reference in references]
    ids = np.zeros(1, dtype=np.int32)
    return [Prompt(Address("task.jsonl", number), ids, "", text) for number, text in enumerate(texts, start=1)]


def score_json(prompts: list[Prompt], replies: list[str]) -> Metrics:
    graded = grade(prompts, (), replies, ())
    return Metrics(graded.mean("exact_match"), graded.mean("valid_json"), fields=graded.means(FIELD))


@given(OBJECTS, st.sampled_from(["", " ", "\n"]))
def test_an_object_is_parsed_whole(value: dict[str, Any], space: str) -> None:
    assert parse_object(space + json.dumps(value) + space) == value


@pytest.mark.parametrize(
    "reply",
    [
        "", " ", "null", "3", "[]", '[{"a": 1}]', '"{}"', "{", "{}}", '{"a": 1', '{"a": 1} Done.', 'Sure: {"a": 1}',
        '```json\n{"a": 1}\n```', "{'a': 1}", '{"a": 1,}', '{"a": True}', '{"a": 1}{"a": 1}', '{"a": 1}<|im_end|>',
    ],
)  # fmt: skip
def test_anything_else_is_not_an_object(reply: str) -> None:
    assert parse_object(reply) is None


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_has_not_make_no_object(number: str) -> None:
    assert parse_object(f'{{"a": {number}}}') is None


def test_a_reply_of_brackets_alone_is_no_object() -> None:
    """A model that repeats itself until its limit must not end the evaluation."""
    assert parse_object('{"a": ' + "[" * 3000) is None


def test_shares_are_counted_by_field_and_whole() -> None:
    prompts = asked({"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3}, {"a": 4, "b": "z"})
    replies = ['{"a": 1, "b": "x"}', '{"a": 2, "b": "w"}', "no", '{"b": "z"}']

    scores = score_json(prompts, replies)

    assert scores.valid_json == 0.75
    assert scores.exact_match == 0.25
    assert scores.fields == {"a": pytest.approx(2 / 4), "b": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("reference", "reply", "field_right"),
    [
        ({"a": True}, '{"a": 1}', False),
        ({"a": 1}, '{"a": true}', False),
        ({"a": 0}, '{"a": false}', False),
        ({"a": None}, "{}", False),
        ({"a": 1}, '{"a": "1"}', False),
        ({"a": [True]}, '{"a": [1]}', False),
        ({"a": {"b": True}}, '{"a": {"b": 1}}', False),
        ({"a": 1}, '{"a": 1, "more": 2}', True),
        ({"a": "x"}, '{"a": "x "}', False),
    ],
)
def test_what_differs_is_not_exact(reference: dict[str, Any], reply: str, field_right: bool) -> None:
    scores = score_json(asked(reference), [reply])

    assert scores.valid_json == 1.0
    assert scores.exact_match == 0.0
    assert scores.fields["a"] == float(field_right)


def test_order_and_spacing_do_not_matter() -> None:
    scores = score_json(asked({"a": 1, "b": [True, None]}), ['{ "b":[true,null],\n"a":1 }'])

    assert (scores.valid_json, scores.exact_match) == (1.0, 1.0)


@given(OBJECTS)
def test_the_reference_itself_is_exact(value: dict[str, Any]) -> None:
    scores = score_json(asked(value), [json.dumps(value, ensure_ascii=False)])

    assert scores.exact_match == 1.0
    assert set(scores.fields.values()) == {1.0}


def test_a_reference_that_is_no_object_has_an_address() -> None:
    with pytest.raises(AssertionError, match="not a JSON object"):
        score_json(asked({"a": 1}, "hello"), ["{}", "{}"])

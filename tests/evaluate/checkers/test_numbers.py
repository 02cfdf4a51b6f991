"""The number a reply ends with: how people and models write it, and GSM8K's own answers."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.evaluate.checkers.numbers import final_number, number, without_number
from tutelage.types import Address, Prompt

GSM8K = Path(__file__).resolve().parents[3].parent / "shared/material/data/gsm8k_test.jsonl"


def asked(reference: str) -> Prompt:
    return Prompt(Address("task.jsonl", 1), np.zeros(1, dtype=np.int32), "", reference)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#### 42", 42),
        ("2 and 3 make\n#### 5\nor 6", 5),  # the first number behind the last marker
        ("#### 1\n#### 2", 2),
        ("It is 7. ####", 7),
        ("The answer is $1,234.50.", "1234.5"),
        ("42km", 42),
        ("so 5%", 5),
        ("= -5", -5),
        ("-$5", -5),
        ("$-5", -5),
        ("\N{MINUS SIGN}3", -3),
        ("10-5", 5),
        ("20 - 3", 3),
        ("(4)-2", 2),
        ("- 3 apples", 3),
        ("from 3-4", 4),
        ("3/4 of it", "3/4"),
        ("1 3/4 cups", "7/4"),
        (r"\boxed{\frac{3}{4}}", "3/4"),
        (r"\boxed{1{,}234}", 1234),
        ("on 3/4/2024", 2024),
        ("1/0", None),
        ("12,34", 34),  # no group of three
        ("1,2345", 2345),
        ("x = .5", "1/2"),
        ("1.5.", "3/2"),
        ("1e3", 1000),
        ("2e-2", "1/50"),
        ("H2O", None),
        ("no", None),
        ("", None),
        ("9" * 5000, None),  # Python reads no number of so many digits
        ("1e999999999", None),  # nor could one be held
    ],
)
def test_final_number(text: str, value: int | str | None) -> None:
    assert final_number(text) == (None if value is None else Fraction(value))


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "{:,}", "{}.", "{}.00", "So ${:,}.", "#### {}", "{}%"]))
def test_a_whole_number_is_read_however_it_is_written(value: int, form: str) -> None:
    text = form.format(value).replace("$-", "-$")

    assert final_number(text) == value


@given(st.text(max_size=60))
def test_any_text_has_a_number_or_none(text: str) -> None:
    assert final_number(text) is None or isinstance(final_number(text), Fraction)


def test_the_same_value_is_right_however_it_is_written() -> None:
    assert number(asked("It costs 5 dollars.\n#### 5"), "That makes $5.00.") == 1
    assert number(asked("#### 0.5"), "1/2") == 1
    assert number(asked("#### 5"), "5 or 6") == 0
    assert number(asked("#### 5"), "five") == 0


def test_a_row_without_a_number_has_no_reference() -> None:
    assert without_number(asked("none at all")) == "no number in 'none at all'"
    assert without_number(asked("#### 0")) is None


@pytest.mark.skipif(not GSM8K.is_file(), reason="the collection of published files is not here")
def test_every_answer_of_gsm8k_is_its_own_and_no_others() -> None:
    answers = [json.loads(line)["answer"] for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    finals = [Fraction(answer.rpartition("#### ")[2].replace(",", "")) for answer in answers]
    prompts = [asked(answer) for answer in answers]

    assert len(answers) == 1319
    assert [final_number(answer) for answer in answers] == finals
    assert all(number(prompt, answer) == 1 for prompt, answer in zip(prompts, answers, strict=True))
    others = [(place, (place + 1) % len(answers)) for place in range(len(answers))]
    differing = [(one, other) for one, other in others if finals[one] != finals[other]]
    assert len(differing) > 1300
    assert not any(number(prompts[one], answers[other]) for one, other in differing)
    # A reply in words ends with the same number, but for rows that go on behind it.
    replies = [f"Let me see. So the answer is {answer.rpartition('#### ')[2]}." for answer in answers]
    assert all(number(prompt, reply) == 1 for prompt, reply in zip(prompts, replies, strict=True))

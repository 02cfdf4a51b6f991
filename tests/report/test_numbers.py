from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.report import numbers


def plain(text: str) -> str:
    return text.replace(numbers.GAP, " ").replace(numbers.MINUS, "-")


@pytest.mark.parametrize(
    ("as_text", "value", "expected"),
    [
        (numbers.percent, 0.81, "81.0 %"),
        (numbers.percent, 0, "0.0 %"),
        (numbers.percent, 1.0, "100.0 %"),
        (numbers.percent, -0.00001, "0.0 %"),
        (numbers.percent_change, -0.0251, "-2.5 points"),
        (numbers.percent_change, 0.81, "+81.0 points"),
        (numbers.percent_change, 0.0001, "0.0 points"),
        (numbers.loss, 2.3104, "2.310"),
        (numbers.loss_change, -2.19, "-2.190"),
        (numbers.loss_change, 0.0, "0.000"),
        (numbers.count, 134515008, "134,515,008"),
        (numbers.count, 9388.2, "9,388"),
        (numbers.count, -12, "-12"),
        (numbers.significant, 0.0002, "2e-4"),
        (numbers.significant, 0.00015, "1.5e-4"),
        (numbers.significant, 3.0, "3"),
        (numbers.significant, 0, "0"),
        (numbers.significant, 9999.7, "10,000"),
        (numbers.significant, 12345.6, "12,346"),
        (numbers.significant, 2.5e9, "2.5e9"),
        (numbers.byte_size, 512, "512 B"),
        (numbers.byte_size, 1024, "1.00 KiB"),
        (numbers.byte_size, 2**20 - 1, "1.00 MiB"),
        (numbers.byte_size, 1524713390, "1.42 GiB"),
        (numbers.duration, 8.44, "8.4 s"),
        (numbers.duration, 59.97, "1 min 00 s"),
        (numbers.duration, 204.31, "3 min 24 s"),
        (numbers.duration, 3599.7, "1 h 00 min"),
        (numbers.duration, 7500, "2 h 05 min"),
        (numbers.duration, 86399, "1 d 0 h"),
        (numbers.duration, 3 * 86400 + 4 * 3600, "3 d 4 h"),
        (numbers.duration, -5, "-5.0 s"),
    ],
)
def test_numbers_read_as_people_say_them(as_text, value, expected):
    assert plain(as_text(value)) == expected


@pytest.mark.parametrize(
    "as_text",
    [numbers.percent, numbers.loss, numbers.count, numbers.significant, numbers.byte_size, numbers.duration],
)
def test_what_is_no_finite_number_is_said_in_words(as_text):
    assert as_text(None) == "not recorded"
    assert as_text(math.nan) == "NaN"
    assert as_text(math.inf) == "infinity"
    assert plain(as_text(-math.inf)) == "-infinity"


def test_exact_gives_the_value_back():
    assert numbers.exact(None) == ""
    assert float(numbers.exact(0.1 + 0.2)) == 0.1 + 0.2
    assert numbers.exact(134515008) == "134515008"


@given(st.floats(min_value=0, max_value=1))
def test_percent_is_within_half_of_its_last_digit(share):
    assert abs(float(numbers.percent(share).removesuffix(f"{numbers.GAP}%")) - share * 100) <= 0.05 + 1e-9


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_has_words(value):
    for as_text in (numbers.significant, numbers.byte_size, numbers.duration, numbers.count, numbers.loss):
        assert as_text(value)

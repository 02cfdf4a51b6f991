"""Agreement against a table worked out by hand, a published one, and the definition spelled out."""

from __future__ import annotations

import itertools
import random

import pytest

from tutelage.evaluate.pairwise.agreement import krippendorff_alpha, percent_agreement


def test_alpha_of_a_table_worked_out_by_hand():
    # Two raters, five items: b b, b b, a a, a b, tie a. Ordered pairs: bb 4, aa 2, ab 1, ba 1, (tie, a) 1, (a, tie) 1.
    # n_b = 5, n_a = 4, n_tie = 1, n = 10; disagreeing 4; expected 5*5 + 4*6 + 1*9 = 58; alpha = 1 - 9 * 4 / 58.
    units = ["bb", "bb", "aa", "ab", "ta"]
    assert krippendorff_alpha(units) == pytest.approx(1 - 36 / 58)
    assert percent_agreement(units) == pytest.approx(3 / 5)


def test_alpha_of_three_raters_worked_out_by_hand():
    # Items: bbb (weight 1/2: bb 3), bba (bb 1, ba 1, ab 1), ab (ab 1, ba 1), and one with a single value.
    # n_b = 3 + 2 + 1 = 6, n_a = 1 + 1 = 2, n = 8; disagreeing 4; expected 6*2 + 2*6 = 24; alpha = 1 - 7 * 4 / 24.
    units = ["bbb", "bba", "ab", "a"]
    assert krippendorff_alpha(units) == pytest.approx(1 - 28 / 24)
    # Ordered pairs: 6 of 6, 2 of 6, 0 of 2.
    assert percent_agreement(units) == pytest.approx(8 / 14)


def test_alpha_of_the_published_table():
    """Krippendorff 2011: four observers, twelve units, five values, missing data; alpha nominal and ordinal."""
    coders = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
    units = [[value for value in column if value != "."] for column in zip(*coders, strict=True)]
    assert round(krippendorff_alpha(units), 3) == 0.743
    assert round(krippendorff_alpha(units, level="ordinal"), 3) == 0.815


def test_alpha_equals_the_package_krippendorff():
    """krippendorff 0.9.0, alpha(reliability_data, level_of_measurement="nominal"), of these rows of raters."""
    raters = ["abtab.a", "abaabta", ".btbbta"]
    units = [[value for value in column if value != "."] for column in zip(*raters, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.6896551724137931, abs=1e-12)


def test_alpha_is_one_minus_observed_over_expected_disagreement():
    generator = random.Random(7)
    for _ in range(50):
        units = [[generator.choice("abt") for _ in range(generator.randint(0, 4))] for _ in range(12)]
        usable = [unit for unit in units if len(unit) > 1]
        values = [value for unit in usable for value in unit]
        observed = sum(
            sum(one != two for one, two in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in usable
        ) / len(values)
        pairs = list(itertools.permutations(values, 2))
        expected = sum(one != two for one, two in pairs) / len(pairs)
        assert krippendorff_alpha(units) == pytest.approx(1 - observed / expected)


@pytest.mark.parametrize("units", [[], ["a", "b"], ["aa", "aa"]])
def test_alpha_is_not_defined_where_there_is_nothing_to_disagree_about(units: list[str]):
    assert krippendorff_alpha(units) is None


def test_agreement_of_none_is_none():
    assert percent_agreement(["a", ""]) is None
    assert percent_agreement(["aa"]) == 1.0

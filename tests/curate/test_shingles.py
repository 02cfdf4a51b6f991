from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.curate.planted import sets_of_words, shingles
from tutelage.curate.near_pairs import RowSets
from tutelage.curate.shingles import repeated_shingles, side_counts, without
from tutelage.curate.word_hashes import Ragged, hashed_words, ragged_run_hashes

THE, FOX_JUMPS = 3331141520948189790, 9583640354909003912
WORDS = st.lists(st.sampled_from("abc"), max_size=12)
ROWS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8)


@given(rows=ROWS)
@settings(deadline=None)
def test_sets_are_as_the_definition_says(rows: list[tuple[list[str], list[str]]]) -> None:
    prompts, replies = [list(side) for side in zip(*rows, strict=True)]
    sets = RowSets([sets_of_words(prompts, replies)])
    for first in range(len(rows)):
        assert sets.counts[first].tolist() == [len(shingles(prompts[first])), len(shingles(replies[first]))]
        for second in range(len(rows)):
            shared = [len(shingles(side[first]) & shingles(side[second])) for side in (prompts, replies)]
            total = [len(shingles(side[first]) | shingles(side[second])) for side in (prompts, replies)]
            whole = sum(shared) / sum(total) if sum(total) else 1.0
            side = min(a / b if b else 1.0 for a, b in zip(shared, total, strict=True))
            assert sets.similarity(first, second) == (whole, side)


def test_the_same_words_in_prompt_and_reply_are_not_the_same_shingle() -> None:
    words = [f"w{number}" for number in range(9)]
    sets = RowSets([sets_of_words([words, []], [[], words])])
    assert sets.similarity(0, 1) == (0.0, 0.0)


def test_a_text_of_four_words_is_no_part_of_a_longer_one() -> None:
    sets = RowSets([sets_of_words([list("abcd"), list("abcde"), list("dcba"), list("abc")], [[]] * 4)])
    assert [sets.similarity(0, other)[0] for other in range(4)] == [1.0, 0.0, 0.0, 0.0]


def test_words_have_the_numbers_they_always_had() -> None:
    """Numbers are kept on disk between runs: they may not hang on the process, the machine or the version."""
    hashed = hashed_words([["the", "quick"], [], ["brown", "fox", "jumps"]])
    assert hashed.offsets.tolist() == [0, 2, 2, 5]
    assert int(hashed.values[0]) == THE
    runs = ragged_run_hashes(hashed, 2)
    assert runs.offsets.tolist() == [0, 1, 1, 3]
    assert int(runs.values[-1]) == FOX_JUMPS


TEMPLATE = [f"t{number}" for number in range(15)]
"""Words that all rows of a source begin with."""


def templated(rows: int) -> Ragged:
    prompts = [[*TEMPLATE, *(f"q{row}x{number}" for number in range(8))] for row in range(rows)]
    return sets_of_words(prompts, [[f"r{row}"] for row in range(rows)])


def test_template_spans_are_taken_out_and_what_is_beside_them_stays() -> None:
    rows = templated(60)
    templates = repeated_shingles([rows], np.zeros(60, dtype=np.int32), share=0.01, rows=50)
    assert len(templates[0]) == len(TEMPLATE) - 4
    reduced = without(rows, np.zeros(len(rows), dtype=np.int32), templates)
    assert side_counts(reduced).tolist() == [[4 + 4, 1]] * 60
    assert RowSets([rows]).similarity(0, 1)[0] > 0.3
    assert RowSets([reduced]).similarity(0, 1)[0] == 0.0


def test_a_span_in_fewer_rows_or_a_smaller_share_is_no_template() -> None:
    sources = np.zeros(60, dtype=np.int32)
    assert repeated_shingles([templated(60)], sources, share=0.01, rows=61) == {}
    assert repeated_shingles([templated(60)], sources, share=1.0, rows=1) == {}
    assert list(repeated_shingles([templated(60)], sources, share=0.99, rows=1)) == [0]


def test_templates_are_of_a_source() -> None:
    rows, sources = templated(90), np.array([0, 1, 1] * 30, dtype=np.int32)
    halves = [Ragged(rows.values[: rows.offsets[40]], rows.offsets[:41]), _from(rows, 40)]
    templates = repeated_shingles(halves, sources, share=0.01, rows=50)
    assert list(templates) == [1]
    assert len(templates[1]) == len(TEMPLATE) - 4
    assert side_counts(without(rows, sources, templates))[:3, 0].tolist() == [len(TEMPLATE) + 4, 8, 8]


def _from(rows: Ragged, start: int) -> Ragged:
    return Ragged(rows.values[rows.offsets[start] :], rows.offsets[start:] - rows.offsets[start])


def test_rows_that_are_the_template_alone_are_compared_whole() -> None:
    prompts = [TEMPLATE] * 50 + [TEMPLATE[:9]] * 2 + [[*TEMPLATE, "x"]]
    rows = sets_of_words(prompts, [["yes"]] * 53)
    templates = repeated_shingles([rows], np.zeros(53, dtype=np.int32), share=0.01, rows=50)
    sets = RowSets([without(rows, np.zeros(len(rows), dtype=np.int32), templates)])
    assert sets.counts.tolist() == [[1, 1]] * 53
    assert sets.similarity(0, 49) == (1.0, 1.0)
    assert sets.similarity(50, 51) == (1.0, 1.0)
    assert sets.similarity(0, 50)[1] == 0.0
    assert sets.similarity(0, 52)[1] == 0.0

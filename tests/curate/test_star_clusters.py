from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.curate.star_clusters import KEPT, star_clusters

PAIRS = st.dictionaries(
    st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda pair: pair[0] < pair[1]), st.floats(0.8, 1.0)
)


def stars_of(pairs: dict[tuple[int, int], float], rows: int = 10):
    return star_clusters(np.array(list(pairs), dtype=np.int64).reshape(-1, 2), np.array(list(pairs.values())), rows)


def test_a_chain_is_not_joined() -> None:
    """0 is like 1, 1 like 2, 2 like 3: 2 is not like 0, so it is kept, and 3 belongs to it."""
    stars = stars_of({(0, 1): 0.9, (1, 2): 0.9, (2, 3): 0.9}, rows=4)
    assert stars.anchors.tolist() == [KEPT, 0, KEPT, 2]


def test_a_row_belongs_to_the_anchor_it_is_most_alike() -> None:
    stars = stars_of({(0, 2): 0.85, (1, 2): 0.95}, rows=3)
    assert stars.anchors.tolist() == [KEPT, KEPT, 1]
    assert stars.similarities.tolist() == [1.0, 1.0, 0.95]
    tied = stars_of({(0, 2): 0.9, (1, 2): 0.9}, rows=3)
    assert tied.anchors.tolist() == [KEPT, KEPT, 0]


def test_sizes_count_the_anchor() -> None:
    stars = stars_of({(0, 1): 0.9, (0, 2): 0.9}, rows=4)
    assert stars.sizes(np.array([True, True, True, True])).tolist() == [3, 0, 0, 1]
    assert stars.sizes(np.array([False, True, True, True])).tolist() == [2, 0, 0, 1]


@given(pairs=PAIRS)
@settings(deadline=None)
def test_each_dropped_row_is_like_its_kept_anchor_and_no_kept_rows_are_alike(pairs) -> None:
    stars = stars_of(pairs)
    kept = {row for row in range(10) if stars.anchors[row] == KEPT}
    for row, anchor in enumerate(stars.anchors.tolist()):
        if anchor != KEPT:
            assert anchor in kept
            assert stars.similarities[row] == pairs[anchor, row]
    assert not any(set(pair) <= kept for pair in pairs)

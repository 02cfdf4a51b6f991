from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from operator import truediv

import numpy as np
import pytest

from tests.curate.planted import planted_rows, sets_of_words, shingles
from tutelage.curate.minhash import BAND_ROWS, BANDS, PERMUTATIONS, candidate_pairs, signatures
from tutelage.curate.near_pairs import Likeness, RowSets, near_pairs
from tutelage.curate.star_clusters import KEPT
from tutelage.curate.word_hashes import Ragged

LIKENESS = Likeness(whole=0.8, side=0.5)


def sets_of(prompts: list[list[str]], replies: list[list[str]], chunk: int = 1000) -> RowSets:
    return RowSets(
        [
            sets_of_words(prompts[start : start + chunk], replies[start : start + chunk])
            for start in range(0, len(prompts), chunk)
        ]
    )


def brute_force(prompts: list[list[str]], replies: list[list[str]]) -> dict[tuple[int, int], float]:
    """Every pair of rows at or above the threshold, by the definition."""
    sides = [[shingles(words) for words in texts] for texts in (prompts, replies)]
    similar = {}
    for first, second in combinations(range(len(prompts)), 2):
        if sides[1][first] & sides[1][second]:
            shared, total = (
                [len(combine(side[first], side[second])) for side in sides] for combine in (set.__and__, set.__or__)
            )
            whole = sum(shared) / sum(total)
            if whole >= LIKENESS.whole and min(map(truediv, shared, total)) >= LIKENESS.side:
                similar[first, second] = whole
    return similar


def test_recall_and_precision_against_brute_force() -> None:
    prompts, replies = planted_rows(seed=5, originals=1000)
    truth = brute_force(prompts, replies)
    assert len(truth) > 700
    sets = sets_of(prompts, replies)
    signed = np.zeros((len(sets), PERMUTATIONS), dtype=np.uint32)
    signatures(sets.chunks, signed, seed=1)
    pairs, complete = candidate_pairs(signed, np.arange(len(sets)), LIKENESS.whole)
    exact = {(first, second): sets.similarity(first, second) for first, second in pairs.tolist()}
    verified = {
        pair: whole for pair, (whole, side) in exact.items() if whole >= LIKENESS.whole and side >= LIKENESS.side
    }
    assert complete
    assert verified.items() <= truth.items()
    assert len(verified) >= 0.99 * len(truth)


def test_every_dropped_row_is_like_its_kept_anchor_and_kept_rows_are_unlike() -> None:
    prompts, replies = planted_rows(seed=6, originals=500)
    truth = brute_force(prompts, replies)
    stars = near_pairs(sets_of(prompts, replies), np.arange(len(prompts)), likeness=LIKENESS, seed=1).stars
    dropped = np.flatnonzero(stars.anchors != KEPT)
    assert len(dropped) > 200
    for row in dropped.tolist():
        anchor = int(stars.anchors[row])
        assert stars.anchors[anchor] == KEPT
        assert anchor < row
        assert stars.similarities[row] == truth[anchor, row]
    kept = set(np.flatnonzero(stars.anchors == KEPT).tolist())
    missed = [pair for pair in truth if kept.issuperset(pair)]
    assert len(missed) <= 0.01 * len(dropped)


def test_rows_that_are_preferred_are_kept() -> None:
    prompts, replies = planted_rows(seed=7, originals=200)
    backwards = np.arange(len(prompts))[::-1].copy()
    stars = near_pairs(sets_of(prompts, replies), backwards, likeness=LIKENESS, seed=1).stars
    dropped = np.flatnonzero(stars.anchors != KEPT)
    assert len(dropped) > 50
    assert (stars.anchors[dropped] > dropped).all()


def test_the_size_of_chunks_changes_nothing() -> None:
    prompts, replies = planted_rows(seed=8, originals=200)
    results = [
        near_pairs(sets_of(prompts, replies, chunk), np.arange(len(prompts)), likeness=LIKENESS, seed=3).stars
        for chunk in (7, 10_000)
    ]
    assert (results[0].anchors == results[1].anchors).all()
    assert (results[0].similarities == results[1].similarities).all()


def test_many_rows_that_agree_on_every_band_are_one_star() -> None:
    words = [f"w{number}" for number in range(40)]
    others = [[f"x{row}y{number}" for number in range(30)] for row in range(50)]
    prompts = [words] * 300 + others
    pairs = near_pairs(sets_of(prompts, [["yes"]] * 350), np.arange(350), likeness=LIKENESS, seed=1)
    assert (pairs.stars.anchors[1:300] == 0).all()
    assert (pairs.stars.anchors[300:] == KEPT).all()
    assert pairs.candidates < 300 * 20


def test_rows_without_words_are_like_no_other() -> None:
    stars = near_pairs(sets_of([[]] * 5, [[]] * 5), np.arange(5), likeness=LIKENESS, seed=1).stars
    assert (stars.anchors == KEPT).all()
    assert len(near_pairs(sets_of([], []), np.arange(0), likeness=LIKENESS, seed=1).stars.anchors) == 0


SIGNED = "17d296f666a19c99ab7840aab843fca9bb93dc51cc226487ab70860c4522c3c0"
SIGN = """
import hashlib
import numpy as np
from tests.curate.planted import planted_rows, sets_of_words
from tutelage.curate.minhash import PERMUTATIONS, signatures
rows = sets_of_words(*planted_rows(seed=9, originals=50))
signed = np.zeros((len(rows), PERMUTATIONS), dtype=np.uint32)
signatures([rows], signed, seed=1)
print(hashlib.sha256(signed.tobytes()).hexdigest())
"""


def test_signatures_are_the_same_in_every_process_and_on_every_machine() -> None:
    """The number is of signatures made once: another version, processor or environment has to make the same."""
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", SIGN], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == SIGNED


@pytest.mark.parametrize(("shared", "share"), [(80, 0.998), (60, 0.615), (40, 0.079)])
def test_pairs_agree_on_a_band_as_often_as_the_formula_says(shared: int, share: float) -> None:
    """Of the pairs of similarity s, 1 - (1 - s^6)^20 do."""
    assert 1 - (1 - (shared / 100) ** BAND_ROWS) ** BANDS == pytest.approx(share, abs=5e-4)
    pairs, total, own = 3000, 100, (100 - shared) // 2
    numbers = np.random.default_rng(1).integers(0, 2**64, (pairs, total), dtype=np.uint64)
    rows = np.stack([numbers[:, : total - own], numbers[:, own:]], axis=1).reshape(2 * pairs, -1)
    offsets = np.arange(2 * pairs + 1, dtype=np.int64) * rows.shape[1]
    signed = np.zeros((2 * pairs, PERMUTATIONS), dtype=np.uint32)
    signatures([Ragged(rows.ravel(), offsets)], signed, seed=1)
    agrees = (signed[::2] == signed[1::2]).reshape(pairs, BANDS, BAND_ROWS)
    assert agrees.mean() == pytest.approx(shared / 100, abs=0.003)
    assert agrees.all(axis=2).any(axis=1).mean() == pytest.approx(share, abs=4 * (share * (1 - share) / pairs) ** 0.5)


def test_a_long_prompt_that_rows_share_makes_no_duplicates_of_different_replies() -> None:
    prompt = [f"w{number}" for number in range(300)]
    replies = [[f"r{row}x{number}" for number in range(12)] for row in range(10)]
    sets = sets_of([prompt] * 10, replies)
    assert sets.similarity(0, 1)[0] > LIKENESS.whole
    stars = near_pairs(sets, np.arange(10), likeness=LIKENESS, seed=1).stars
    assert (stars.anchors == KEPT).all()

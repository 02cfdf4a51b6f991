"""A map of rows: rough topics lie where their mean texts do, and in each its rows; the topics have words for names.

Both are the first two principal components of the vectors that are laid out. Source: Pearson 1901. Two components of
all rows at once, or of the topics set apart (linear discriminants), were looked at on 23,000 public rows: most topics
lie on each other there.

Shape legend: P = rows, D = numbers of a vector, K = topics.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tutelage.curate.clusters import clusters_of
from tutelage.curate.static_vectors import require_static_vectors, static_vectors
from tutelage.curate.text_vectors import Vectors, centered, hashed_vectors
from tutelage.curate.texts import words
from tutelage.errors import DependencyError

CLUSTERS = 10
NAME_WORDS = 3
DIGITS = 3
"""Of a place: fewer than a screen has dots, so that the last bits of a sum on another machine do not show."""
HASHED = "hashed words and pairs of words"
INSIDE = 0.9
"""Share of a topic's rows that lie in the inner part of its circle; the others are drawn towards its edge."""
PUSHES, GAP = 300, 1.06
_SHORTEST_NAME = 3
_LEAST_SHARE, _LEAST_ROWS = 0.05, 2
"""Of a topic's rows that hold a word of its name."""
_LEAST = 1e-9
_BATCH = 1_000


def vectors_name() -> str:
    """What the vectors of a map are made of here."""
    try:
        require_static_vectors("a map", "hashed words")
    except DependencyError:
        return HASHED
    return f"wordllama {importlib.metadata.version('wordllama')}"


def text_vectors(texts: Sequence[str]) -> Vectors:
    """float32 [P, D] of length 1: packaged vectors of words where there are some, else hashed ones."""
    vectors = hashed_vectors
    if vectors_name() != HASHED:
        vectors = static_vectors(require_static_vectors("a map", "hashed words")).of
    parts = [vectors(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)


def places_of(vectors: Vectors, topics: NDArray[np.int32]) -> NDArray[np.float64]:
    """float64 [P, 2], each between -1 and 1: in circles of the topics' sizes, which do not meet.

    Args:
        vectors: of the rows.
        topics: of the rows, from 0; a row of none (-1) lies in a corner.
    """
    places = np.full((len(vectors), 2), -1.0)
    count = int(topics.max(initial=-1)) + 1
    if count == 0:
        return places
    rows = [np.flatnonzero(topics == topic) for topic in range(count)]
    means = np.stack([vectors[of_topic].mean(axis=0, dtype=np.float64) for of_topic in rows])
    radii = np.sqrt(np.array([len(of_topic) for of_topic in rows]) / len(vectors))
    middles = _apart(_components(means), radii)
    for topic, of_topic in enumerate(rows):
        spread = _components(vectors[of_topic].astype(np.float64))
        away = np.hypot(*spread.T)[:, None] / max(float(np.quantile(np.hypot(*spread.T), INSIDE)), _LEAST)
        inside = spread / np.maximum(np.hypot(*spread.T)[:, None], _LEAST) * away / (1 + away**4) ** 0.25
        places[of_topic] = middles[topic] + inside * radii[topic]
    low, high = places[topics >= 0].min(axis=0), places[topics >= 0].max(axis=0)
    scale = np.where(high - low > _LEAST, high - low, 1.0)
    places[topics >= 0] = (places[topics >= 0] - (low + high) / 2) / scale * 2
    return np.asarray(np.round(places, DIGITS) + 0.0)


def _components(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first two principal components, float64 [rows, 2]; zeros where the vectors have fewer."""
    moved = vectors - vectors.mean(axis=0)
    places = np.zeros((len(vectors), 2))
    if len(vectors) < 2:
        return places
    axes = np.linalg.eigh(moved.T @ moved)[1][:, ::-1][:, :2]
    # An axis may point either way: its largest number is made positive, so that the same rows give the same map.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    places[:, : axes.shape[1]] = moved @ axes
    return places


def _apart(middles: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """Middles of circles, moved as little as it takes that no two circles meet."""
    middles = middles / max(float(np.abs(middles).max()), _LEAST)
    for _ in range(PUSHES):
        for first, second in combinations(range(len(radii)), 2):
            way = middles[second] - middles[first]
            distance, wanted = float(np.hypot(*way)), float(radii[first] + radii[second]) * GAP
            if distance < wanted:
                # Two middles at one place part along the first axis.
                step = way / distance if distance > _LEAST else np.array([1.0, 0.0])
                middles[first] -= step * (wanted - distance) / 2
                middles[second] += step * (wanted - distance) / 2
    return middles


def topics_of(texts: Sequence[str], vectors: Vectors, seed: int) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """The topic of each row, int32 [P], the most common first, and the names of topics."""
    clusters = clusters_of(centered(vectors), CLUSTERS, seed)
    present, sizes = np.unique(clusters[clusters >= 0], return_counts=True)
    order = present[np.argsort(-sizes, kind="stable")]
    renamed = np.full(int(clusters.max(initial=-1)) + 2, -1, dtype=np.int32)
    renamed[order] = np.arange(len(order), dtype=np.int32)
    topics = renamed[clusters]
    return topics, _names(texts, topics, len(order))


def _names(texts: Sequence[str], topics: NDArray[np.int32], count: int) -> tuple[str, ...]:
    """Words that a topic's rows hold and others do not: by the log of both shares' ratio times the root of the first.

    The first share alone would name every topic by "the" and "how", the ratio alone by words of single rows.
    """
    of_topic: list[Counter[str]] = [Counter() for _ in range(count)]
    of_all: Counter[str] = Counter()
    for text, topic in zip(texts, topics.tolist(), strict=True):
        if topic >= 0:
            met = {word for word in words(text) if len(word) >= _SHORTEST_NAME and not word.isdecimal()}
            of_topic[topic].update(met)
            of_all.update(met)
    sizes = np.bincount(topics[topics >= 0], minlength=count)
    return tuple(
        _name(counts, of_all - counts, int(size), int(sizes.sum() - size))
        for counts, size in zip(of_topic, sizes, strict=True)
    )


def _name(counts: Counter[str], others: Counter[str], size: int, other_size: int) -> str:
    def weight(word: str) -> tuple[float, str]:
        share, elsewhere = counts[word] / size, (others[word] + 0.5) / (other_size + 1)
        return -math.sqrt(share) * math.log(share / elsewhere), word

    least = min(size, max(_LEAST_ROWS, _LEAST_SHARE * size))
    often = (word for word in counts if counts[word] >= least)
    return ", ".join(sorted(often, key=weight)[:NAME_WORDS]) or "no words"

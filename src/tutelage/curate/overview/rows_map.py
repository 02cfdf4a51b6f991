"""A map of rows: those that share words are near each other, and rough topics have the words that tell them apart.

Places are the first two principal components of the texts' vectors. Source: Pearson 1901.

Shape legend: P = rows, D = numbers of a vector.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Sequence

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
_SHORTEST_NAME = 3
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


def places_of(vectors: Vectors) -> NDArray[np.float64]:
    """float64 [P, 2]: the first two principal components, each between -1 and 1."""
    if len(vectors) == 0:
        return np.zeros((0, 2))
    moved = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(moved.T @ moved)
    chosen = axes[:, ::-1][:, :2]
    # An axis may point either way: its largest number is made positive, so that the same rows give the same map.
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(chosen.shape[1])])
    places = np.zeros((len(vectors), 2))
    places[:, : chosen.shape[1]] = moved @ chosen
    most = np.abs(places).max(axis=0)
    return np.asarray(np.round(places / np.where(most > 0, most, 1), DIGITS) + 0.0)


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
    """Words that are in more of a topic's rows than in others: by the topic's share times its log over that of all."""
    of_topic: list[Counter[str]] = [Counter() for _ in range(count)]
    of_all: Counter[str] = Counter()
    for text, topic in zip(texts, topics.tolist(), strict=True):
        if topic >= 0:
            met = {word for word in words(text) if len(word) >= _SHORTEST_NAME and not word.isdecimal()}
            of_topic[topic].update(met)
            of_all.update(met)
    sizes = np.bincount(topics[topics >= 0], minlength=count)
    total = int(sizes.sum())
    names = []
    for topic, counts in enumerate(of_topic):

        def weight(word: str, counts: Counter[str] = counts, size: int = int(sizes[topic])) -> tuple[float, str]:
            share, everywhere = counts[word] / size, of_all[word] / total
            return -share * float(np.log(share / everywhere)), word

        best = sorted(counts, key=weight)[:NAME_WORDS]
        names.append(", ".join(best) or "no words")
    return tuple(names)

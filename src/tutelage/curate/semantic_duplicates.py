"""Rows that mean nearly the same in other words: one of each cluster goes on. Off unless it is named.

Each row is compared with all rows that are kept so far, block by block, so time grows with the square of the rows that
are kept. Clusters are stars round a kept row, as those of near-duplicates.

Shape legend: N = rows, D = numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_duplicates import SemanticDuplicatesSettings
from tutelage.curate.preference import preferred_rows
from tutelage.curate.star_clusters import KEPT, Stars
from tutelage.curate.static_vectors import Vectors, require_static_vectors, static_vectors
from tutelage.curate.step import NOT_MERGED, Decisions, StepContext, StepDefinition
from tutelage.curate.store import Rows
from tutelage.curate.text_vectors import vector_column, vectors_of
from tutelage.curate.texts import all_text, prompt_text, reply_text
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

NAME, REASON = "semantic_duplicates", "semantic_duplicate"
BLOCK_ROWS = 1024
DIGITS = 4
"""Of a similarity that count: processors add up in different orders."""


@dataclass(frozen=True, slots=True)
class SemanticDuplicates:
    """The step.

    Attributes:
        settings: how alike rows have to be.
        folder: of the packaged vectors.
        facts: what the vectors are.
    """

    settings: SemanticDuplicatesSettings
    folder: Path
    facts: list[str] = field(default_factory=list)
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """The vectors of each row's sides, one behind the other, and the characters of what it says."""
        import pyarrow as pa

        table = static_vectors(self.folder)
        readers = {"prompt": (prompt_text,), "reply": (reply_text,), "both": (prompt_text, reply_text)}
        sides = [table.of([read(conversation) for conversation in conversations]) for read in readers[self.settings.on]]
        vectors = np.concatenate(sides, axis=1)
        characters = [len(all_text(conversation)) for conversation in conversations]
        return pa.record_batch(
            {
                "vector": vector_column(vectors),
                "characters": pa.array(characters, pa.int64()),
            }
        )

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        """Of each cluster the preferred row is kept."""
        vectors = vectors_of(features.column("vector"))
        preferred = preferred_rows(
            self.settings.keep, rows, features.column("characters").to_numpy(), self.name, score=self.settings.score
        )
        stars = semantic_stars(vectors, preferred, self.settings.similarity, 2 if self.settings.on == "both" else 1)
        keep = stars.anchors == KEPT
        evidence = {row: f"similarity {stars.similarities[row]:.{DIGITS}f}" for row in np.flatnonzero(~keep).tolist()}
        merged_into = np.where(keep, NOT_MERGED, stars.anchors)
        return Decisions(keep, dict.fromkeys(evidence, REASON), evidence, merged_into)


def semantic_stars(vectors: Vectors, preferred: NDArray[np.int64], threshold: float, sides: int) -> Stars:
    """Star clusters by cosine similarity: of two rows it is that of the less alike side.

    Args:
        vectors: float32 [N, sides x D], each side of length 1, or 0 for a side without a text, which is like no other.
        preferred: int64 [N], all rows, that which is to be kept first.
        threshold: the least similarity of a duplicate.
        sides: 1 or 2.
    """
    anchors, similarities = np.full(len(vectors), KEPT, dtype=np.int64), np.ones(len(vectors))
    kept = np.zeros(len(vectors), dtype=np.int64)
    total = 0
    for start in range(0, len(preferred), BLOCK_ROWS):
        block = preferred[start : start + BLOCK_ROWS]
        best, nearest = np.zeros(len(block)), np.zeros(len(block), dtype=np.int64)
        for first in range(0, total, BLOCK_ROWS):
            earlier = kept[first : min(total, first + BLOCK_ROWS)]
            alike = _similarities(vectors[block], vectors[earlier], sides)
            columns = alike.argmax(axis=1)
            values = alike[np.arange(len(block)), columns]
            better = values > best
            best[better], nearest[better] = values[better], earlier[columns[better]]
        inside = _similarities(vectors[block], vectors[block], sides)
        for place, row in enumerate(block.tolist()):
            # Rows of the block before this one whose fate is known: only those that are kept may be its anchor.
            earlier_places = np.flatnonzero(anchors[block[:place]] == KEPT)
            if len(earlier_places) and (value := inside[place, earlier_places].max()) > best[place]:
                best[place] = value
                nearest[place] = block[earlier_places[inside[place, earlier_places].argmax()]]
            if best[place] >= threshold:
                anchors[row], similarities[row] = nearest[place], best[place]
            else:
                kept[total] = row
                total += 1
    return Stars(anchors, similarities)


def _similarities(first: Vectors, second: Vectors, sides: int) -> NDArray[np.float64]:
    width = first.shape[1] // sides
    of_sides = [
        first[:, side * width : (side + 1) * width] @ second[:, side * width : (side + 1) * width].T
        for side in range(sides)
    ]
    return np.asarray(np.round(np.minimum.reduce(of_sides).astype(np.float64), DIGITS))


def _build(settings: SemanticDuplicatesSettings, _: StepContext) -> SemanticDuplicates:
    from importlib.metadata import version

    folder = require_static_vectors(f"The step {NAME}", f"leave {NAME} out of curate.steps")
    return SemanticDuplicates(settings, folder, ["wordllama", version("wordllama")])


SEMANTIC_DUPLICATES = StepDefinition(
    NAME, "one row goes on of rows that mean nearly the same in other words", SemanticDuplicatesSettings, _build
)

"""Rows that are nearly the same: one of each cluster goes on.

What repeats over a share of a source (a system prompt, a template, an instruction's first words) is not compared, so
rows that share no more than that are no duplicates. A cluster that takes much of a source nevertheless stops the step.

Shape legend: N = rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_duplicates import NearDuplicatesSettings
from tutelage.curate.near_pairs import Likeness, RowSets, near_pairs
from tutelage.curate.preference import preferred_rows
from tutelage.curate.shingle_chunks import ragged_of, shingle_column, without_templates
from tutelage.curate.shingles import repeated_shingles, shingle_sets
from tutelage.curate.star_clusters import KEPT, Stars
from tutelage.curate.step import NOT_MERGED, Decisions, StepContext, StepDefinition
from tutelage.curate.store import Rows
from tutelage.curate.texts import all_text, prompt_text, reply_text
from tutelage.curate.twins import twin_notes
from tutelage.curate.word_hashes import numbered_words
from tutelage.errors import DataError
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

NAME, REASON = "near_duplicates", "near_duplicate"
_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """The step.

    Attributes:
        settings: what a near-duplicate is.
        seed: of the permutations.
    """

    settings: NearDuplicatesSettings
    seed: int = 0
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """The shingles of each row, and the characters of what it says."""
        import pyarrow as pa

        compares = self.settings.on
        prompts, replies = (
            numbered_words([""] * len(conversations) if compares == other else list(map(text_of, conversations)))
            for text_of, other in ((prompt_text, "reply"), (reply_text, "prompt"))
        )
        sets = shingle_sets(prompts, replies)
        characters = [len(all_text(conversation)) for conversation in conversations]
        return pa.record_batch(
            {
                "shingles": shingle_column(sets),
                "characters": pa.array(characters, pa.int64()),
            }
        )

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        """Of each cluster the preferred row is kept.

        Raises:
            DataError: one cluster takes more of a source than the settings allow.
        """
        chunks = [ragged_of(chunk) for chunk in features.column("shingles").chunks]
        names, sources = rows.sources
        preferred = preferred_rows(
            self.settings.keep, rows, features.column("characters").to_numpy(), self.name, score=self.settings.score
        )
        templates = repeated_shingles(
            chunks, sources, share=self.settings.template_share, rows=self.settings.template_rows
        )
        with tempfile.TemporaryFile() as file:
            sets = RowSets(without_templates(chunks, sources, templates, file) if templates else chunks)
            likeness = Likeness(self.settings.similarity, self.settings.side_similarity)
            stars = near_pairs(sets, preferred, likeness=likeness, seed=self.seed).stars
        for source, name in enumerate(names):
            self._check_sizes(stars, sources == source, name, rows)
        keep = stars.anchors == KEPT
        dropped = np.flatnonzero(~keep).tolist()
        similarities, merged_into = stars.similarities, np.where(keep, NOT_MERGED, stars.anchors)
        return Decisions(
            keep,
            dict.fromkeys(dropped, REASON),
            {row: f"similarity {similarities[row]:.3f}" for row in dropped},
            merged_into,
            notes=twin_notes(rows, merged_into, "are near-duplicates of"),
        )

    def _check_sizes(self, stars: Stars, of_source: NDArray[np.bool_], source: str, rows: Rows) -> None:
        total = int(np.count_nonzero(of_source))
        bound = max(self.settings.cluster_rows, int(self.settings.cluster_share * total))
        sizes = stars.sizes(of_source)
        anchor = int(sizes.argmax())
        if self.settings.cluster_share < 1 and sizes[anchor] > bound:
            shown = " ".join(all_text(rows.conversation(anchor)).split())[:_SHOWN_CHARACTERS]
            raise DataError(
                "One cluster of near-duplicates takes too much of a source: a template that its rows share, or copies",
                where=f"{source}, rows like that of {rows.address(anchor)}",
                found=f"{sizes[anchor]:,} of {total:,} rows, like: {shown}",
                expected=f"at most {bound:,} rows of the source in a cluster",
                fix="see whether those rows differ in what matters: if they do, lower curate.near_duplicates."
                f"template_share or template_rows (to {max(2, int(sizes[anchor]) // 2)}), so that what they share is "
                "not compared; if they are copies, set curate.near_duplicates.cluster_share=1",
            )


def _build(settings: NearDuplicatesSettings, context: StepContext) -> NearDuplicates:
    return NearDuplicates(settings, context.seed)


NEAR_DUPLICATES = StepDefinition(
    NAME, "one row goes on of rows that share most of their runs of five words", NearDuplicatesSettings, _build
)

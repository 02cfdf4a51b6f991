"""The step `split`: whole clusters of rows go into train, validation or test, and the report proves they are apart.

Shape legend: N = rows, R = rows with different prompts, of each the first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_split import SplitSettings
from tutelage.curate.near_pairs import Likeness, RowSets, near_pairs
from tutelage.curate.shingle_chunks import chosen_rows, ragged_of, shingle_column, without_templates
from tutelage.curate.shingles import repeated_shingles, shingle_sets
from tutelage.curate.splitting.across import Across, alike_pairs, similarity_across
from tutelage.curate.splitting.assignment import Assignment, assigned
from tutelage.curate.splitting.together import Together
from tutelage.curate.step import Decisions, StepContext, StepDefinition
from tutelage.curate.store import Rows
from tutelage.curate.texts import all_text, prompt_text, reply_text, words
from tutelage.curate.word_hashes import Ragged, hashed_words
from tutelage.errors import ConfigError
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

NAME: Final = "split"
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class SplitRows:
    """The step.

    Attributes:
        settings: shares, and what holds rows together.
        seed: of the order in which clusters are given away.
    """

    settings: SplitSettings
    seed: int = 0
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """The shingles of each prompt (of a document, of its text), and hashes of the prompt and its first turn.

        The hash of a first turn is 0 where it has too few words to hold rows together.
        """
        import pyarrow as pa

        texts = [compared_words(conversation) for conversation in conversations]
        openings = [first_turn(conversation) for conversation in conversations]
        least = self.settings.first_turn_words
        return pa.record_batch(
            {
                "shingles": shingle_column(shingle_sets(hashed_words(texts), hashed_words([[]] * len(texts)))),
                "prompt": pa.array(map(_prompt_hash, conversations, texts), pa.uint64()),
                "first_turn": pa.array([_hash(text) if len(text) >= least else 0 for text in openings], pa.uint64()),
            }
        )

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        """The split of each row, as its label; no row goes."""
        together, joined = self._joined(features, rows)
        prompts = features.column("prompt").to_numpy()
        chunks = [ragged_of(chunk) for chunk in features.column("shingles").chunks]
        first_of_prompt = np.zeros(len(rows), dtype=np.bool_)
        first_of_prompt[np.unique(prompts, return_index=True)[1]] = True
        with tempfile.TemporaryFile() as file:
            distinct_sets, compared = self._compared(chunks, first_of_prompt, rows, file)
            pairs = near_pairs(
                RowSets(distinct_sets), np.arange(len(compared), dtype=np.int64),
                likeness=Likeness(self.settings.similarity, 0.0), seed=self.seed,
            ).verified  # fmt: skip
            joined["near_prompt"] = together.join_pairs(compared[pairs])
            assignment, across, joins = self._apart(together, distinct_sets, compared, rows)
        joined["near_prompt"] += joins
        own = sum(value is not None for value in rows.label_values(NAME))
        report = self._report(assignment, across, together, joined, rows)
        names = list(self.settings.shares)
        labels = {row: names[split] for row, split in enumerate(assignment.splits.tolist())}
        notes = tuple(self._notes(report, assignment, rows, own))
        return Decisions(np.ones(len(rows), dtype=np.bool_), labels=labels, report=report, notes=notes)

    def _joined(self, features: pa.Table, rows: Rows) -> tuple[Together, dict[str, int]]:
        """Rows held together by what is the same, and how many joins each reason needed."""
        together, everything = Together(len(rows)), np.ones(len(rows), dtype=np.bool_)
        prompts, first_turns = (features.column(name).to_numpy() for name in ("prompt", "first_turn"))
        joined = {
            "same_row": together.join_equals(rows.input_rows, everything),
            "same_prompt": together.join_equals(prompts, everything),
            "first_turn": together.join_equals(first_turns, first_turns != 0),
        }
        if self.settings.field is not None:
            values = rows.label_values(self.settings.field)
            has_value = np.array([value is not None for value in values], dtype=np.bool_)
            if not has_value.any():
                raise ConfigError(
                    "No row has the field that is to hold rows together",
                    where=f"curate.split.field = '{self.settings.field}'",
                    found=f"{len(rows):,} rows without it in their metadata",
                    expected="a field of the rows' metadata, such as id or source",
                    fix="name another field, or take the setting out",
                )
            numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
            codes = np.array([numbers[value] for value in values], dtype=np.int64)
            joined[f"metadata.{self.settings.field}"] = together.join_equals(codes, has_value)
        return together, joined

    def _compared(
        self, chunks: Sequence[Ragged], first_of_prompt: NDArray[np.bool_], rows: Rows, file: Any
    ) -> tuple[list[Ragged], NDArray[np.int64]]:
        """The shingles of different prompts without those of templates, and the rows they are of: int64 [R].

        Each prompt counts once for what a template is: a question with a hundred replies is none.
        """
        starts = np.concatenate([[0], np.cumsum([len(chunk) for chunk in chunks])]).tolist()
        distinct_sets = [
            chosen_rows(chunk, first_of_prompt[start : start + len(chunk)])
            for chunk, start in zip(chunks, starts, strict=False)
        ]
        compared = np.flatnonzero(first_of_prompt)
        sources = rows.sources[1][compared]
        templates = repeated_shingles(
            distinct_sets, sources, share=self.settings.template_share, rows=self.settings.template_rows
        )
        if templates:
            distinct_sets = without_templates(distinct_sets, sources, templates, file)
        return distinct_sets, compared

    def _apart(
        self, together: Together, sets: Sequence[Ragged], compared: NDArray[np.int64], rows: Rows
    ) -> tuple[Assignment, Across, int]:
        """Give clusters away so that no pair across splits is alike, and how many joins it took.

        Where signatures missed a pair, all pairs of all rows are compared and joined, and all is given away anew.
        """
        shares, joins = np.array(list(self.settings.shares.values())), 0
        similarity = self.settings.similarity
        assignment = assigned(together.clusters(), rows.sources[1], shares, self.seed)
        across = similarity_across(sets, compared, assignment.splits[compared], similarity)
        if len(across.alike):
            joins = together.join_pairs(alike_pairs(sets, compared, similarity))
            assignment = assigned(together.clusters(), rows.sources[1], shares, self.seed)
            across = similarity_across(sets, compared, assignment.splits[compared], similarity)
        assert not len(across.alike), "rows that are alike are in one cluster, and clusters are in one split"
        return assignment, across, joins

    def _report(
        self, assignment: Assignment, across: Across, together: Together, joined: dict[str, int], rows: Rows
    ) -> dict[str, Any]:
        names, clusters = list(self.settings.shares), together.clusters()
        source_names, sources = rows.sources
        splits = {}
        for number, (name, share) in enumerate(self.settings.shares.items()):
            inside = assignment.splits == number
            of_source = np.bincount(sources[inside], minlength=len(source_names)).tolist()
            splits[name] = {
                "rows": int(inside.sum()),
                "share_asked": share,
                "share": round(float(inside.mean()), 4) if len(rows) else 0.0,
                "clusters": len(np.unique(clusters[inside])),
                "sources": dict(zip(source_names, of_source, strict=True)),
            }
        sizes = np.unique(clusters, return_counts=True)[1]
        apart = [
            {
                "splits": [names[first], names[second]],
                "similarity": round(similarity, 4),
                "rows": [str(rows.address(left)), str(rows.address(right))],
            }
            for (first, second), (similarity, left, right) in sorted(across.highest.items())
        ]
        return {
            "settings": self.settings.model_dump(),
            "splits": splits,
            "clusters": {"count": len(sizes), "largest": int(sizes.max()) if len(sizes) else 0, "joined_by": joined},
            "across": {"threshold": self.settings.similarity, "pairs_at_or_above": len(across.alike), "highest": apart},
        }

    def _notes(self, report: dict[str, Any], assignment: Assignment, rows: Rows, own: int) -> list[str]:
        names, notes = list(self.settings.shares), []
        counted = ", ".join(f"{name} {facts['rows']:,}" for name, facts in report["splits"].items())
        highest = max((pair["similarity"] for pair in report["across"]["highest"]), default=0.0)
        notes.append(
            f"{NAME}: {counted} rows; the most alike prompts of two files have a similarity of {highest:.2f}, below "
            f"{self.settings.similarity:g}"
        )
        for first, size, split in assignment.too_large[:_SHOWN]:
            notes.append(
                f"{NAME}: {size:,} rows like that of {rows.address(first)} stay together, which is more than "
                f"{names[split]} was to have"
            )
        for name, facts in report["splits"].items():
            if not facts["rows"]:
                notes.append(f"{NAME}: {name} has no row: there are too few rows, or too few that may be apart")
        if own:
            notes.append(
                f"{NAME}: {own:,} rows had a field split of their own in their metadata; it says now where they are"
            )
        return notes


def compared_words(conversation: Conversation) -> list[str]:
    """The words that rows are held together by: of the prompt; of a document, of its text."""
    return words(reply_text(conversation) if conversation.is_text else prompt_text(conversation))


def first_turn(conversation: Conversation) -> list[str]:
    """The words of what the user says first."""
    first = next((message.content for message in conversation.messages if message.role == "user"), None)
    return words(first or "")


def _prompt_hash(conversation: Conversation, text: Sequence[str]) -> int:
    """Of the words; where there are none, of all that the row says."""
    return _hash(text or [all_text(conversation)])


def _hash(text: Sequence[str]) -> int:
    digest = blake2b(" ".join(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _build(settings: SplitSettings, context: StepContext) -> SplitRows:
    return SplitRows(settings, context.seed)


SPLIT = StepDefinition(
    NAME, "divides rows into train, validation and test, near-copies on one side", SplitSettings, _build
)

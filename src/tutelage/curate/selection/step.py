"""The step `select`: which rows go on, when fewer are to than there are.

No method is said to be better than another: what a choice is worth shows only when models are trained on it and
measured, at equal trained tokens, beside `random` and `longest`.

Shape legend: N = rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_select import SelectSettings
from tutelage.curate.clusters import clusters_of
from tutelage.curate.judging import STEP_FAILED
from tutelage.curate.preference import scores_of
from tutelage.curate.selection.allowance import Allowance, quotas_by_source
from tutelage.curate.selection.coverage import CoverageReport, Covered, sampled_runs, topic_count
from tutelage.curate.selection.diversity import facility_location, k_center, nearest_chosen, score_first
from tutelage.curate.selection.targets import Near, Targets, targets_of
from tutelage.curate.source_names import OTHERS, require_sources
from tutelage.curate.static_vectors import require_static_vectors, static_vectors
from tutelage.curate.step import Decisions, Here, StepContext, StepDefinition
from tutelage.curate.store import Rows
from tutelage.curate.text_vectors import Vectors, centered, compared_text, hashed_vectors, vector_column, vectors_of
from tutelage.curate.texts import reply_text
from tutelage.curate.token_counts import token_counts, tokenizer_file
from tutelage.curate.word_hashes import Ragged, offsets_of
from tutelage.errors import ConfigError
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

NAME: Final = "select"
MOST_COMPARED: Final = 4_000_000_000
"""Similarities of two rows, about a minute of two cores, that may be computed for rows that are not chosen."""
_SCORED = ("score", "score_first")


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of all rows: vectors, characters of their replies, and scores, NaN for a row without one.

    `near` is how near they are to targets, where there are such.
    """

    vectors: Vectors
    characters: NDArray[np.int64]
    scores: NDArray[np.float64]
    near: Near | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """The step.

    Attributes:
        settings: how many, and by which rule.
        seed: of what is drawn.
        tokenizer: content of a tokenizer.json, where tokens are counted.
        folder: of the packaged vectors, where they are used.
        facts: what the vectors, the tokenizer and the targets are.
        targets: that rows are to be near to, where the method asks for such.
    """

    settings: SelectSettings
    seed: int = 0
    tokenizer: str | None = None
    folder: Path | None = None
    facts: list[Any] = field(default_factory=list)
    targets: Here[Targets] | None = None
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """The vector of each row, the characters and tokens of its reply, and a sample of its runs of words."""
        import pyarrow as pa

        texts = [compared_text(conversation) for conversation in conversations]
        replies = [reply_text(conversation) for conversation in conversations]
        vectors = hashed_vectors(texts) if self.folder is None else static_vectors(self.folder).of(texts)
        tokens = [len(reply) for reply in replies] if self.tokenizer is None else token_counts(replies, self.tokenizer)
        runs = sampled_runs(texts)
        return pa.record_batch(
            {
                "vector": vector_column(vectors),
                "characters": pa.array([len(reply) for reply in replies], pa.int64()),
                "tokens": pa.array(tokens, pa.int64()),
                "runs": pa.LargeListArray.from_arrays(pa.array(runs.offsets), pa.array(runs.values)),
            }
        )

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        """The chosen rows in the order they came in; where each stood in the choice is in its metadata."""
        vectors, characters = vectors_of(features.column("vector")), features.column("characters").to_numpy()
        near = None if self.targets is None else self.targets.value.near(rows)
        known = _Known(vectors, characters, self._scores(rows), near)
        tokens = features.column("tokens").to_numpy()
        names, codes = rows.sources
        counts_rows = self.settings.keep is not None
        costs = np.ones(len(rows), dtype=np.int64) if counts_rows else np.maximum(tokens, 1)
        budget = self.settings.keep if counts_rows else self.settings.trained_tokens
        assert budget is not None, "the builder has seen to it"
        allowance = Allowance(costs, budget, codes, quotas_by_source(names, self.settings.quotas))
        passed = self._choose(known, allowance)
        following = allowance.times(_following(len(rows), len(allowance.taken)))
        self._choose(known, following)
        chosen = allowance.taken
        covered = Covered.of(clusters_of(known.vectors, topic_count(len(rows)), self.seed), _runs_of(features))
        coverage = CoverageReport.of(covered, chosen, following.taken[len(chosen) :])
        notes = [f"{NAME}: {line}" for line in coverage.lines()]
        if not counts_rows:
            notes.append(f"{NAME}: the rows chosen have {allowance.spent:,} tokens of replies")
        keep = np.zeros(len(rows), dtype=np.bool_)
        keep[chosen] = True
        reasons, evidence = self._said(known, allowance, passed, rows)
        labels = {row: str(rank) for rank, row in enumerate(chosen, start=1)}
        report = {} if near is None or self.targets is None else near.report(chosen, self.targets.value, rows)
        report = {"method": self.settings.method, "rows": len(rows), "coverage": coverage.as_dict(), **report}
        return Decisions(keep, reasons, evidence, labels=labels, report=report, notes=tuple(notes))

    def _choose(self, known: _Known, allowance: Allowance) -> dict[int, tuple[int, float]]:
        """Take rows; those that were passed over for one that is taken, with it and the similarity."""
        match self.settings.method:
            case "random":
                _walk(np.random.default_rng(self.seed).permutation(len(known.characters)), allowance)
            case "longest":
                _walk(np.argsort(-known.characters, kind="stable"), allowance)
            case "score":
                _walk(_by_score(known.scores), allowance)
            case "score_first":
                return score_first(known.vectors, _by_score(known.scores), self.settings.similarity, allowance)
            case "diversity" if self.settings.diversity == "k_center":
                k_center(centered(known.vectors), allowance)
            case "rds":
                assert known.near is not None, "the builder has seen to it"
                known.near.choose(allowance)
            case "diversity":
                facility_location(centered(known.vectors), allowance, self.seed)
        return {}

    def _scores(self, rows: Rows) -> NDArray[np.float64]:
        """float64 [N]: NaN for a row without one; no array is filled where none is asked for."""
        if self.settings.method not in _SCORED:
            return np.zeros(0)
        return scores_of(rows, self.settings.score, f"curate.select.method is '{self.settings.method}'", NAME)

    def _said(
        self,
        known: _Known,
        allowance: Allowance,
        passed: dict[int, tuple[int, float]],
        rows: Rows,
    ) -> tuple[dict[int, str], dict[int, str]]:
        """Reason and evidence of each row that is not chosen."""
        chosen = set(allowance.taken)
        gone = [row for row in range(len(rows)) if row not in chosen]
        characters, scores = known.characters, known.scores
        reasons = dict.fromkeys(gone, "not_selected")
        evidence = dict.fromkeys(gone, "not drawn")
        match self.settings.method:
            case "longest":
                least = int(characters[allowance.taken].min()) if chosen else 0
                evidence = {row: f"{characters[row]:,} characters; chosen: {least:,} and more" for row in gone}
            case "score" | "score_first":
                evidence = {row: f"score {scores[row]:g}" for row in gone}
                without = [row for row in gone if np.isnan(scores[row])]
                reasons |= dict.fromkeys(without, "no_score")
                evidence |= dict.fromkeys(without, f"no number under '{self.settings.score}'")
            case "diversity" if allowance.taken:
                near = nearest_chosen(centered(known.vectors), gone, allowance.taken)
                evidence = {
                    row: f"nearest chosen row {rows.address(anchor)}, similarity {similarity:.3f}"
                    for row, (anchor, similarity) in zip(gone, near, strict=True)
                }
            case "rds" if known.near is not None and self.targets is not None:
                near_rows = known.near
                evidence = {row: near_rows.evidence(row, self.targets.value.rows) for row in gone}
                reasons |= {row: STEP_FAILED if why.failed else "no_vector" for row, why in near_rows.unread.items()}
        for row, (anchor, similarity) in passed.items():
            reasons[row] = "like_a_better_one"
            evidence[row] = f"similarity {similarity:.3f} to {rows.address(anchor)}"
        over = [row for row in allowance.refused if row not in chosen]
        names, codes = rows.sources
        reasons |= dict.fromkeys(over, "over_quota")
        evidence |= {row: f"the quota of {names[codes[row]]} was full" for row in over}
        return reasons, evidence


def _following(rows: int, chosen: int) -> int:
    """How many times as many rows are looked at, to say what those behind the chosen would add.

    Ten times, as of 1,000 rows and 10,000; twice where ten times would be more comparisons than `MOST_COMPARED`.
    """
    return 10 if 10 * rows * chosen <= MOST_COMPARED else 2


def _walk(ranked: NDArray[np.int64], allowance: Allowance) -> None:
    taken = set(allowance.taken)
    for row in ranked.tolist():
        if allowance.is_spent:
            break
        if row not in taken:
            allowance.take(row)


def _by_score(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    order = np.argsort(-scores, kind="stable")  # NaN stands last
    return order[: int((~np.isnan(scores)).sum())]


def _runs_of(features: pa.Table) -> Ragged:
    chunks = features.column("runs").chunks
    lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in chunks]
    values = [chunk.flatten().to_numpy() for chunk in chunks]
    empty = [np.zeros(0, dtype=np.uint64)]
    return Ragged(np.concatenate(values or empty), offsets_of(np.concatenate(lengths or [np.zeros(0, dtype=np.int64)])))


def _build(settings: SelectSettings, context: StepContext) -> Select:
    from tutelage.system.seals import file_sha256

    if (settings.keep is None) == (settings.trained_tokens is None):
        raise ConfigError(
            "The step select has to know how many rows go on",
            where="[curate.select]",
            found="neither keep nor trained_tokens" if settings.keep is None else "both keep and trained_tokens",
            expected="one of the two",
            fix="set curate.select.keep=1000",
        )
    require_sources("curate.select.quotas", settings.quotas, context.sources, but=(OTHERS,))
    tokenizer, facts = None, list[Any]()
    if settings.trained_tokens is not None:
        otherwise = "choose a number of rows: curate.select.keep=1000"
        path = tokenizer_file(NAME, "trained_tokens", settings.tokenizer, otherwise)
        tokenizer, facts = path.read_text(encoding="utf-8"), ["tokenizer", file_sha256(path)]
    folder = None
    if settings.vectors == "wordllama":
        folder = require_static_vectors(f"curate.{NAME}.vectors = 'wordllama'", f"curate.{NAME}.vectors=hashed")
        facts += ["wordllama", version("wordllama")]
    targets = targets_of(settings, context) if settings.method == "rds" else None
    facts += [] if targets is None else targets.facts
    return Select(settings, context.seed, tokenizer, folder, facts, None if targets is None else Here(targets))


SELECT = StepDefinition(NAME, "chooses how many rows go on, and which", SelectSettings, _build)

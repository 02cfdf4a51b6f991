"""The step `mix`: how much of each source the result has, by repeating and leaving out rows; all of it is booked.

Shape legend: N = rows, S = sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_mix import MixSettings
from tutelage.curate.mixing.rates import Asked, Counts, Rates, planned
from tutelage.curate.out_folder import TRAIN
from tutelage.curate.source_names import OTHERS, require_sources
from tutelage.curate.splitting import SPLIT
from tutelage.curate.step import Decisions, StepContext, StepDefinition
from tutelage.curate.store import Rows
from tutelage.curate.texts import reply_text
from tutelage.curate.token_counts import token_counts, tokenizer_file
from tutelage.errors import ConfigError, DataError
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

NAME: Final = "mix"
WITHOUT_FIELD: Final = "(none)"
"""The source of rows that do not have the field by whose values rows are mixed."""
OVER_CAP, NOT_DRAWN = "over_cap", "not_drawn"


@dataclass(frozen=True, slots=True)
class Mix:
    """The step.

    Attributes:
        settings: what the mixture is to be.
        seed: of what is drawn.
        sources: what the user named, in that order.
        of_train: mix the rows to train on alone; those of other splits go on as they are.
        tokenizer: content of a tokenizer.json, where tokens are counted.
        facts: what the tokenizer is.
    """

    settings: MixSettings
    seed: int = 0
    sources: tuple[str, ...] = ()
    of_train: bool = False
    tokenizer: str | None = None
    facts: list[str] = field(default_factory=list)
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """Tokens of the replies of each row; 0 where none are counted."""
        import pyarrow as pa

        counts = [0] * len(conversations)
        if self.tokenizer is not None:
            counts = token_counts([reply_text(conversation) for conversation in conversations], self.tokenizer)
        return pa.record_batch({"tokens": pa.array(counts, pa.int64())})

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        """How often each row goes on, and in which order.

        Raises:
            ConfigError: a setting names a source that no row has.
            DataError: nothing is left of a source that has a weight or is replayed.
        """
        names, codes = self._sources_of(rows)
        tokens = features.column("tokens").to_numpy()
        mixed = self._mixed(rows)
        drawn = [self._drawn(code, np.flatnonzero((codes == code) & mixed)) for code in range(len(names))]
        caps = [self.settings.caps.get(name, self.settings.caps.get(OTHERS)) for name in names]
        pools = [order[:cap] for order, cap in zip(drawn, caps, strict=True)]
        sizes = np.array([len(pool) for pool in pools], dtype=np.int64)
        self._require_rows(names, sizes)
        shares, counts = planned(sizes, self._asked(names, pools, tokens))
        times = np.where(mixed, 0, 1)
        for pool, count in zip(pools, counts.tolist(), strict=True):
            if len(pool):
                times[pool] = count // len(pool)
                times[pool[: count % len(pool)]] += 1
        reasons, evidence = _said(names, drawn, pools, counts, times)
        order = np.repeat(np.arange(len(rows), dtype=np.int64), times)
        if self.settings.shuffle:
            order = np.random.default_rng([self.seed, len(names)]).permutation(order)
        report = self._report(names, drawn, pools, shares, times * mixed, tokens)
        return Decisions(
            times > 0, reasons, evidence, order=order, report=report, notes=tuple(self._notes(report["sources"]))
        )

    def _mixed(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether each row is one of those that are mixed, bool [N]."""
        if not self.of_train:
            return np.ones(len(rows), dtype=np.bool_)
        return np.array([split == TRAIN for split in rows.label_values(SPLIT.name)], dtype=np.bool_)

    def _sources_of(self, rows: Rows) -> tuple[list[str], NDArray[np.int64]]:
        """The sources in the order they were named, or of their names, and which of them each row is of: int64 [N]."""
        if self.settings.field is None:
            met, met_codes = rows.sources
            names = [*dict.fromkeys([*self.sources, *met])]
            place = np.array([names.index(name) for name in met], dtype=np.int64)
            return names, place[met_codes] if len(met) else np.zeros(0, dtype=np.int64)
        values = [WITHOUT_FIELD if value is None else str(value) for value in rows.label_values(self.settings.field)]
        names = sorted(set(values))
        settings = self.settings
        require_sources("curate.mix.weights", settings.weights, names)
        require_sources("curate.mix.caps", settings.caps, names, but=(OTHERS,))
        require_sources("curate.mix.replay", settings.replay, names)
        number = {name: place for place, name in enumerate(names)}
        return names, np.array([number[value] for value in values], dtype=np.int64)

    def _drawn(self, code: int, of_source: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of a source in the order they are drawn: what fewer are, more are too, and others beside."""
        return np.random.default_rng([self.seed, code, 1]).permutation(of_source)

    def _asked(self, names: Sequence[str], pools: Sequence[NDArray[np.int64]], tokens: NDArray[np.int64]) -> Asked:
        settings = self.settings
        means = [float(tokens[pool].mean()) if len(pool) else 0.0 for pool in pools]
        return Asked(
            weights=np.array([settings.weights.get(name, 1.0) for name in names]),
            replay=np.array([settings.replay.get(name, 0.0) for name in names]),
            limit=settings.limit,
            temperature=settings.temperature,
            rows=settings.rows,
            tokens=settings.trained_tokens,
            mean_tokens=np.array(means),
        )

    def _require_rows(self, names: Sequence[str], sizes: Counts) -> None:
        for setting, values in (("weights", self.settings.weights), ("replay", self.settings.replay)):
            for name, value in values.items():
                if not sizes[names.index(name)]:
                    raise DataError(
                        "Nothing is left of a source that the mixture is to have",
                        where=name,
                        found=f"curate.mix.{setting} = {value:g}, and no row that came so far",
                        expected="at least one row",
                        fix="see in ledger.jsonl why its rows went; or take it out of the setting",
                    )
        if self.settings.replay and not sum(
            int(size) for name, size in zip(names, sizes, strict=True) if name not in self.settings.replay
        ):
            raise DataError(
                "Nothing is left beside what is replayed",
                where="curate.mix.replay",
                found=", ".join(self.settings.replay),
                expected="at least one row of another source",
                fix="see in ledger.jsonl why the other rows went",
            )

    def _report(
        self,
        names: Sequence[str],
        drawn: Sequence[NDArray[np.int64]],
        pools: Sequence[NDArray[np.int64]],
        shares: Rates,
        times: Counts,
        tokens: NDArray[np.int64],
    ) -> dict[str, Any]:
        """For each source: rows in, the share asked for, rows out, how many of them are different, and repeats."""
        total, sources = int(times.sum()), {}
        for name, rows, pool, share in zip(names, drawn, pools, shares.tolist(), strict=True):
            out, different = int(times[rows].sum()), int(np.count_nonzero(times[rows]))
            sources[name] = {
                "rows_in": len(rows),
                "over_cap": len(rows) - len(pool),
                "share_asked": round(share, 6),
                "rows_out": out,
                "share": round(out / total, 6) if total else 0.0,
                "different_rows": different,
                "repeats": out - different,
                "epochs": round(out / len(pool), 4) if len(pool) else 0.0,
            }
            if self.tokenizer is not None:
                sources[name]["trained_tokens"] = int((times[rows] * tokens[rows]).sum())
        grouped = "source" if self.settings.field is None else f"metadata.{self.settings.field}"
        report: dict[str, Any] = {"mixed_by": grouped, "rows": total}
        if self.tokenizer is not None:
            report["trained_tokens"] = int((times * tokens).sum())
        return {**report, "sources": sources}

    def _notes(self, sources: dict[str, dict[str, Any]]) -> list[str]:
        notes = []
        for name, facts in sources.items():
            if facts["epochs"] > self.settings.noted_epochs:
                notes.append(
                    f"{NAME}: each row of {name} goes on {facts['epochs']:,.4g} times on average "
                    f"({facts['different_rows']:,} different rows); more than {self.settings.noted_epochs:g} is "
                    "often no better than other data"
                )
            if facts["rows_in"] and not facts["rows_out"]:
                notes.append(
                    f"{NAME}: no row of {name} goes on: its share of {facts['share_asked']:.2g} is less than one"
                )
        if WITHOUT_FIELD in sources and self.settings.field is not None:
            count = sources[WITHOUT_FIELD]["rows_in"]
            notes.append(f"{NAME}: {count:,} rows have no {self.settings.field}; they are the source {WITHOUT_FIELD}")
        return notes


def _said(
    names: Sequence[str],
    drawn: Sequence[NDArray[np.int64]],
    pools: Sequence[NDArray[np.int64]],
    counts: Counts,
    times: Counts,
) -> tuple[dict[int, str], dict[int, str]]:
    """Reason and evidence of each row that does not go on."""
    reasons: dict[int, str] = {}
    evidence: dict[int, str] = {}
    for name, rows, pool, count in zip(names, drawn, pools, counts.tolist(), strict=True):
        over = rows[len(pool) :].tolist()
        reasons |= dict.fromkeys(over, OVER_CAP)
        evidence |= dict.fromkeys(over, f"{len(pool):,} of {len(rows):,} rows of {name} were drawn before it")
        left_out = pool[times[pool] == 0].tolist()
        reasons |= dict.fromkeys(left_out, NOT_DRAWN)
        evidence |= dict.fromkeys(left_out, f"{count:,} of {len(pool):,} rows of {name} go on")
    return reasons, evidence


def _build(settings: MixSettings, context: StepContext) -> Mix:
    from tutelage.system.seals import file_sha256

    if settings.field is None:
        for table in ("weights", "caps", "replay"):
            but = (OTHERS,) if table == "caps" else ()
            require_sources(f"curate.mix.{table}", getattr(settings, table), context.sources, but=but)
        if settings.replay.keys() >= set(context.sources) and context.sources:
            raise ConfigError(
                "All sources are replayed, and nothing is left for them to be replayed beside",
                where="curate.mix.replay",
                found=", ".join(settings.replay),
                expected="at least one source that is not replayed",
                fix="name another source to read, or take one out of curate.mix.replay",
            )
    tokenizer, facts = None, []
    if settings.trained_tokens is not None:
        otherwise = "choose a number of rows: curate.mix.rows=10000"
        path = tokenizer_file(NAME, "trained_tokens", settings.tokenizer, otherwise)
        tokenizer, facts = path.read_text(encoding="utf-8"), [file_sha256(path)]
    before = context.steps[: context.steps.index(NAME)] if NAME in context.steps else ()
    return Mix(settings, context.seed, context.sources, SPLIT.name in before, tokenizer, facts)


MIX = StepDefinition(NAME, "how much of each source goes on: weights, caps, rates, replay", MixSettings, _build)

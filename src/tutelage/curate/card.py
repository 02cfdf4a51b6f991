"""The data card: where the rows came from and under which license, what was done, and how long they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tomli_w
from numpy.typing import NDArray

from tutelage.config.curation import CurateSettings
from tutelage.curate.funnel import Funnel
from tutelage.curate.licenses import is_non_commercial

Sizes = Mapping[str, Mapping[str, NDArray[np.int32]]]


@dataclass(frozen=True, slots=True)
class Card:
    """What a card says.

    Attributes:
        settings: of the curation.
        seed: of its random choices.
        licenses: by source, in the order they were named; None where nothing says one.
        rows_in: rows read, by source.
        sizes: lengths of the rows that are kept, by source and kind.
        funnel: the books.
        sha256: of the files read, by name.
        notes: what the reader said of whole files, and steps of all rows.
    """

    settings: CurateSettings
    seed: int
    licenses: Mapping[str, str | None]
    rows_in: Mapping[str, int]
    sizes: Sizes
    funnel: Funnel
    sha256: Mapping[str, str]
    notes: Sequence[str]


def card_text(card: Card) -> str:
    """The card as Markdown, the same for the same curation."""
    funnel = card.funnel
    totals = ", ".join(f"{funnel.total(what):,} {what}" for what in ("dropped", "merged", "added", "changed"))
    parts = [
        "# Data card",
        f"{funnel.rows_in:,} rows read, {funnel.rows_kept:,} kept; {totals}.",
        "## Sources",
        _sources(card),
        "## Lengths of the rows that are kept",
        _lengths(card.sizes),
        "## What was done",
        _table(
            ("step", "rows in", "rows out", "reasons"),
            [(step.name, f"{step.rows_in:,}", f"{step.rows_out:,}", _reasons(step.as_dict())) for step in funnel.steps],
        ),
        "## Settings",
        f"```toml\nseed = {card.seed}\n\n{_settings(card.settings)}```",
        "## Files read",
        _table(("file", "SHA-256"), [(name, f"`{digest}`") for name, digest in sorted(card.sha256.items())]),
    ]
    if card.notes:
        parts += ["## Notes", "\n".join(f"- {_cell(note)}" for note in card.notes)]
    return "\n\n".join(parts) + "\n"


def _sources(card: Card) -> str:
    """Non-commercial ones first, then those that nobody stated a license of."""

    def rank(source: str) -> int:
        name = card.licenses[source]
        return 0 if is_non_commercial(name) else 1 if name is None else 2

    rows = []
    for source in sorted(card.licenses, key=rank):
        name = card.licenses[source]
        remark = "not stated" if name is None else f"{name}, **non-commercial**" if is_non_commercial(name) else name
        kept = len(next(iter(card.sizes.get(source, {}).values()), ()))
        rows.append((source, remark, f"{card.rows_in.get(source, 0):,}", f"{kept:,}"))
    return _table(("source", "license", "rows read", "rows kept"), rows)


def _lengths(sizes: Sizes) -> str:
    rows = []
    everything: dict[str, list[NDArray[np.int32]]] = {}
    for source in sorted(sizes):
        for kind, lengths in sizes[source].items():
            everything.setdefault(kind, []).append(lengths)
            rows.append((source, kind, *_figures(lengths)))
    rows = [("all", kind, *_figures(np.concatenate(lengths))) for kind, lengths in everything.items()] + rows
    return _table(("source", "of", "total", "mean", "median", "95 %", "longest"), rows)


def _figures(lengths: NDArray[np.int32]) -> tuple[str, ...]:
    if not len(lengths):
        return ("0",) * 5
    middle, high = np.percentile(lengths, (50, 95))
    return (
        f"{int(lengths.sum(dtype=np.int64)):,}",
        f"{lengths.mean(dtype=np.float64):,.1f}",
        f"{middle:,.0f}",
        f"{high:,.0f}",
        f"{int(lengths.max()):,}",
    )


def _reasons(step: Mapping[str, object]) -> str:
    texts = []
    for what in ("dropped", "merged", "changed", "added"):
        reasons = step.get(what)
        if isinstance(reasons, dict):
            texts += [f"{what} {rows:,} {reason}" for reason, rows in reasons.items()]
    return "; ".join(texts)


def _settings(settings: CurateSettings) -> str:
    """Those of the steps that were taken, as a recipe's table."""
    values = settings.model_dump(exclude_none=True)
    taken = {name: value for name, value in values.items() if not isinstance(value, dict) or name in settings.steps}
    return tomli_w.dumps({"curate": taken})


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())

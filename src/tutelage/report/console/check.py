"""What `tutelage check` found, on a terminal screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tutelage.curate import Similarity
from tutelage.ledger import Ledger
from tutelage.report.console.findings import brief_findings
from tutelage.report.console.terminal import printable
from tutelage.report.numbers import count, percent
from tutelage.types import Finding


@dataclass(slots=True)
class Tally:
    """Counts over proven examples, gathered one at a time.

    Attributes:
        examples: sequences.
        tokens: all tokens.
        trained: tokens with a weight.
        turns: trained turns.
        stops: trained stop tokens; equal to `turns` when every reply is learned to its end.
        lengths: tokens of each sequence.
        split_rows: rows that needed more than one sequence.
        split_tokens: what their further sequences cost, in tokens.
    """

    examples: int = 0
    tokens: int = 0
    trained: int = 0
    turns: int = 0
    stops: int = 0
    lengths: list[int] | None = None
    split_rows: int = 0
    split_tokens: int = 0

    def add(self, *, tokens: int, trained: int, turns: int, stops: int) -> None:
        """Count one example."""
        self.examples += 1
        self.tokens += tokens
        self.trained += trained
        self.turns += turns
        self.stops += stops
        self.lengths = self.lengths or []
        self.lengths.append(tokens)

    def add_split(self, lengths: Sequence[int]) -> None:
        """Count a row that needed several sequences; all but the longest are what the template's rewriting costs."""
        self.split_rows += 1
        self.split_tokens += sum(lengths) - max(lengths)

    def quantile(self, share: float) -> int:
        """The length that `share` of the sequences do not exceed; 0 when there are none."""
        if not self.lengths:
            return 0
        return sorted(self.lengths)[min(len(self.lengths) - 1, int(share * len(self.lengths)))]

    def as_dict(self) -> dict[str, int]:
        """The same as plain values."""
        return {
            "examples": self.examples,
            "tokens": self.tokens,
            "trained_tokens": self.trained,
            "trained_turns": self.turns,
            "trained_stops": self.stops,
            "longest": self.quantile(1.0),
            "median_length": self.quantile(0.5),
            "split_rows": self.split_rows,
            "split_tokens": self.split_tokens,
        }


@dataclass(frozen=True, slots=True)
class SplitPair:
    """Two splits and the most alike prompts between them."""

    left: str
    right: str
    likeness: Similarity


def check_screen(
    ledger: Ledger, tally: Tally, pairs: Sequence[SplitPair], findings: Sequence[Finding] = ()
) -> RenderableType:
    """Warnings about template and tokenizer, books, drops with samples, tokens, and how alike the splits are."""
    balance = f"{count(ledger.rows_in)} rows in = {count(ledger.rows_kept)} kept + {count(ledger.rows_dropped)} dropped"
    serious = any(finding.severity != "info" for finding in findings)
    parts: list[RenderableType] = [brief_findings(findings)] if serious else []
    parts.append(Text(balance, style="bold"))
    if ledger.dropped or ledger.changed:
        parts.append(_reasons(ledger))
    parts += [Text(f"note: {note}", style="yellow") for note in ledger.notes]
    if tally.examples:
        parts.append(_tokens(tally))
    for pair in pairs:
        like = pair.likeness
        parts.append(
            Text(
                f"most alike prompts of {pair.left} and {pair.right}: similarity {like.similarity:.2f} "
                f"({like.first} ~ {like.second}); near-duplicates: {like.near_duplicates}",
                style="red" if like.near_duplicates else "",
            )
        )
    return Group(*parts)


def _reasons(ledger: Ledger) -> Table:
    table = Table(show_lines=False)
    table.add_column("what", style="bold")
    table.add_column("rows", justify="right")
    table.add_column("for example")
    for reason, number in ledger.dropped.most_common():
        sample = ledger.drop_samples[reason][0]
        table.add_row(f"dropped: {reason}", count(number), Text(printable(f"{sample.address}: {sample.detail}")))
    for reason, number in ledger.changed.most_common():
        change = ledger.change_samples[reason][0]
        table.add_row(f"changed: {reason}", count(number), Text(printable(f"{change.address}: {change.detail}")))
    return table


def _tokens(tally: Tally) -> Table:
    grid = Table.grid(padding=(0, 2))
    rows = {
        "examples": count(tally.examples),
        "tokens": f"{count(tally.tokens)}, {count(tally.trained)} trained ({percent(tally.trained / tally.tokens)})",
        "lengths": f"median {tally.quantile(0.5)}, 95 % up to {tally.quantile(0.95)}, longest {tally.quantile(1.0)}",
        "stop tokens": f"{count(tally.stops)} trained, for {count(tally.turns)} trained turns",
    }
    if tally.split_rows:
        rows["split rows"] = (
            f"{count(tally.split_rows)}, at {count(tally.split_tokens)} tokens more "
            f"({percent(tally.split_tokens / tally.tokens)} of all): the template rewrites history"
        )
    for name, value in rows.items():
        grid.add_row(Text(name, style="bold"), Text(value))
    return grid

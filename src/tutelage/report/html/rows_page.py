"""All rows of a data set on one offline page: what is trained in each, which were dropped, and why.

The page holds every sequence as indices into one table of tokens, the frequent ones first, so that most take a byte;
its script unpacks a row when it is looked at.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import ConfigError, SaveError, cause_of, shell_word
from tutelage.ledger import Ledger
from tutelage.render import Renderer
from tutelage.render.token_roles import ROLES, TokenRoles, token_roles
from tutelage.render.token_text import TokenTexts, visible
from tutelage.report import numbers as figures
from tutelage.report.console.check import Tally
from tutelage.report.console.row import raw_lines
from tutelage.report.html.offline import own_parts, require_free_or_own, script_json, template, write_in_one_move
from tutelage.report.html.page import Fact
from tutelage.report.role_shares import RoleShares
from tutelage.types import Address, Change, Conversation, Drop, Example

RAW_CHARACTERS = 600
"""Of a dropped row's line: enough to know it by, and 10,000 dropped rows stay under 6 MB."""

Packed = list[object]
"""What the page's script reads as one row or sequence; `rows_data.js` says which place holds what."""


@dataclass(frozen=True, slots=True)
class PageSequence:
    """One sequence as the page needs it. `tokens` are indices into the table of tokens, int32 [S]."""

    example: Example
    tokens: NDArray[np.int32]
    roles: TokenRoles


@dataclass(frozen=True, slots=True)
class SeenRow:
    """A row that was kept, with its sequences, or the drop that ended it; and how it was changed on the way."""

    address: Address
    sequences: tuple[PageSequence, ...] = ()
    drop: Drop | None = None
    changes: tuple[Change, ...] = ()


@dataclass(slots=True)
class PageRows:
    """Gathers rows as they pass, for one page.

    Attributes:
        renderer: the tokenizer and template they are rendered with.
        shares: tokens by role.
        tally: counts over all sequences.
    """

    renderer: Renderer
    shares: RoleShares = field(default_factory=RoleShares)
    tally: Tally = field(default_factory=Tally)
    _texts: TokenTexts = field(init=False)
    _rows: list[SeenRow] = field(default_factory=list)
    _changes: dict[Address, list[Change]] = field(default_factory=dict)
    _table: dict[tuple[int, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._texts = TokenTexts(self.renderer.tokenizer)

    def keep(self, conversation: Conversation, examples: Sequence[Example]) -> None:
        """Take a proven row."""
        sequences = []
        for example in examples:
            ids = example.ids.tolist()
            pairs = zip(ids, self._texts.of(ids), strict=True)
            table = self._table
            tokens = np.fromiter((table.setdefault(pair, len(table)) for pair in pairs), dtype=np.int32, count=len(ids))
            roles = token_roles(conversation, example, self.renderer)
            self.shares.add(roles)
            stops = sum(turn.ends_with_stop for turn in example.turns)
            self.tally.add(tokens=len(ids), trained=example.trained_tokens, turns=len(example.turns), stops=stops)
            sequences.append(PageSequence(example, tokens, roles))
        changes = tuple(self._changes.pop(conversation.address, ()))
        self._rows.append(SeenRow(conversation.address, tuple(sequences), changes=changes))

    def hear(self, entry: Drop | Change) -> None:
        """Take what the ledger says of a row."""
        if isinstance(entry, Change):
            self._changes.setdefault(entry.address, []).append(entry)
        else:
            changes = tuple(self._changes.pop(entry.address, ()))
            self._rows.append(SeenRow(entry.address, drop=entry, changes=changes))

    def in_order(self) -> list[SeenRow]:
        """The rows in the order of their files, which are in the order in which they were met."""
        files = {name: index for index, name in enumerate(dict.fromkeys(row.address.file for row in self._rows))}
        return sorted(self._rows, key=lambda row: (files[row.address.file], row.address.number))

    @property
    def table(self) -> list[tuple[int, str]]:
        """Id and text of each token that was met, in the order of `PageSequence.tokens`."""
        return list(self._table)


def write_rows(target: Path, page_rows: PageRows, ledger: Ledger, *, title: str, origin: Sequence[Fact]) -> int:
    """Write the page.

    Args:
        target: the file.
        page_rows: the rows.
        ledger: its books; `in = kept + dropped` stands at the top.
        title: what the page calls the data.
        origin: model, template and the like.

    Returns:
        The size of the page in bytes.

    Raises:
        ConfigError: something that is no page of ours has come to stand there.
        SaveError: it could not be written; an older page is untouched.
    """
    require_page_target(target)
    try:
        return write_in_one_move(render_rows(page_rows, ledger, title=title, origin=origin), target)
    except OSError as error:
        raise SaveError(
            "The page could not be written",
            where=str(target),
            found=cause_of(error),
            expected="a file in a folder that can be written to",
            fix="give a file in a folder with room, where you may write: --html FILE",
        ) from error


def require_page_target(target: Path) -> None:
    """Check, before any work is done, that a page can stand at `target`.

    Raises:
        ConfigError: it is a folder or holds what is no page of ours, or its folder is not there.
        SaveError: it cannot be looked at.
    """
    try:
        _require_page_target(target)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise SaveError(
            "No page can be written there",
            where=str(target),
            found=cause_of(error),
            expected="a file name such as rows.html",
            fix="give another file: --html FILE",
        ) from error


def _require_page_target(target: Path) -> None:
    if target.is_dir():
        raise ConfigError(
            "The page needs a file, and this is a folder",
            where=str(target),
            expected="a file name such as rows.html",
            fix=f"--html {shell_word(str(target / 'rows.html'))}",
        )
    if not target.parent.is_dir():
        raise ConfigError(
            "The folder for the page is not there",
            where=str(target.parent),
            expected="a folder that exists",
            fix="make the folder, or give another file: --html FILE",
        )
    require_free_or_own(target, fix="give another file, such as --html rows.html")


def render_rows(page_rows: PageRows, ledger: Ledger, *, title: str, origin: Sequence[Fact]) -> str:
    """The page as text; the same rows give the same text."""
    tally = page_rows.tally
    facts = [
        Fact("Sequences", figures.count(tally.examples), figures.exact(tally.examples)),
        Fact("Tokens", figures.count(tally.tokens), figures.exact(tally.tokens)),
        Fact("Trained tokens", _trained(tally), figures.exact(tally.trained)),
        Fact("Length", f"median {figures.count(tally.quantile(0.5))}, longest {figures.count(tally.quantile(1.0))}"),
        Fact("Trained stop tokens", f"{figures.count(tally.stops)}, for {figures.count(tally.turns)} turns"),
    ]
    return template("rows_page.html").render(
        title=title,
        ledger=ledger,
        facts=facts,
        origin=origin,
        shares=page_rows.shares,
        figures=figures,
        data=script_json(_data(page_rows)),
        **own_parts(style=("page.css", "rows_page.css"), script=("rows_data.js", "rows_page.js")),
    )


def _trained(tally: Tally) -> str:
    share = f" ({figures.percent(tally.trained / tally.tokens)})" if tally.tokens else ""
    return figures.count(tally.trained) + share


def _data(page_rows: PageRows) -> dict[str, object]:
    rows = page_rows.in_order()
    files = list(dict.fromkeys(row.address.file for row in rows))
    entries = [entry for row in rows for entry in (*row.changes, *([row.drop] if row.drop else ()))]
    reasons = list(dict.fromkeys(entry.reason for entry in entries))
    table = page_rows.table
    counts = np.zeros(len(table), dtype=np.int64)
    for row in rows:
        for sequence in row.sequences:
            counts += np.bincount(sequence.tokens, minlength=len(table))
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(table), dtype=np.int64)
    rank[order] = np.arange(len(table))
    tokens = [table[index] for index in order.tolist()]
    marked = {index: mark for index, (_, text) in enumerate(tokens) if (mark := visible(text)) != text}
    raw = raw_lines((row.address for row in rows if row.drop), characters=RAW_CHARACTERS)
    return {
        "files": files,
        "reasons": reasons,
        "roles": ROLES,
        "ids": [token for token, _ in tokens],
        "texts": [text for _, text in tokens],
        "marked": marked,
        "rows": [_row(row, files, reasons, rank, raw) for row in rows],
    }


def _row(
    row: SeenRow, files: list[str], reasons: list[str], rank: NDArray[np.int64], raw: dict[Address, str]
) -> Packed:
    label = str(row.address).removeprefix(row.address.file)
    changes: Packed = [[reasons.index(change.reason), change.detail] for change in row.changes]
    head: Packed = [files.index(row.address.file), label, changes]
    if row.drop:
        return [*head, reasons.index(row.drop.reason), row.drop.detail, raw.get(row.address, "")]
    return [*head, [_sequence(sequence, rank) for sequence in row.sequences]]


def _sequence(sequence: PageSequence, rank: NDArray[np.int64]) -> Packed:
    example = sequence.example
    turns = [
        number
        for turn in example.turns
        for number in (turn.message, turn.prompt_end, turn.reply_end, int(turn.ends_with_stop))
    ]
    return [
        base64.b64encode(packed(rank[sequence.tokens])).decode("ascii"),
        len(example.ids),
        example.trained_tokens,
        turns,
        _runs(example.weights.tolist()),
        _runs(sequence.roles.codes.tolist()),
        int(sequence.roles.traced),
    ]


def _runs(values: Sequence[float]) -> list[float]:
    """Equal neighbours as value and count, one after the other; whole numbers without a point."""
    run_lengths: list[float] = []
    for value, group in groupby(values):
        run_lengths += [int(value) if value == int(value) else value, sum(1 for _ in group)]
    return run_lengths


def packed(numbers: NDArray[np.int64]) -> bytes:
    """Numbers from 0 to 268,435,455 as 1 to 4 bytes: seven bits a byte, the lowest first, bit 8 on all but the last.

    Source: the variable-length integers of the LEB128 encoding (DWARF 5, section 7.6).
    """
    places = numbers[:, None] >> np.array([0, 7, 14, 21])
    used = places > 0
    used[:, 0] = True
    continues = np.concatenate([used[:, 1:], np.zeros((len(numbers), 1), dtype=bool)], axis=1)
    content: bytes = ((places & 127) | (continues << 7)).astype(np.uint8)[used].tobytes()
    return content

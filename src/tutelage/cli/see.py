"""`see`: rows in the terminal, one row at every door, JSON for programs, a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from tutelage import formats
from tutelage.cli.data_options import (
    DEFAULT_MODEL,
    AsJson,
    Columns,
    Formats,
    MaxTokens,
    Model,
    Settings,
    Shape,
    Sources,
    Strict,
    Template,
    TokenizerFolder,
    TreePaths,
    data_settings,
    render_settings,
    renderer_from_options,
)
from tutelage.config import DataSettings
from tutelage.config.sections import LARGEST_COUNT
from tutelage.errors import ConfigError
from tutelage.ledger import Ledger
from tutelage.pack import proven_rows
from tutelage.pack.length import TooLong
from tutelage.render import Renderer
from tutelage.render.token_roles import token_roles
from tutelage.render.token_text import Markers, TokenTexts, colored, has_color, markers_for, visible
from tutelage.report import numbers
from tutelage.report.console.check import Tally
from tutelage.report.console.row import all_doors, headline, legend, raw_lines, role_line
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.report.html.page import Fact
from tutelage.report.html.rows_page import PageRows, require_page_target, write_rows
from tutelage.report.role_shares import RoleShares
from tutelage.types import Address, Change, Conversation, Drop, Example

SHOWN_ROWS = 5
PAGE_ROWS = 10_000
"""Rows of a page unless told otherwise: such a page opens at once, one of a million rows would not."""

TITLE_SOURCES = 3


def see(
    sources: Sources,
    *,
    model: Model = DEFAULT_MODEL,
    tokenizer: TokenizerFolder = None,
    template: Template = None,
    changed: Settings = None,
    shape: Shape = "auto",
    columns: Columns = None,
    tree_paths: TreePaths = "kept",
    row: Annotated[int | None, typer.Option("--row", help="Show the Nth row (from 1) at every door.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            max=LARGEST_COUNT,
            help="How many rows: 5; with --json all, with --html up to 10,000.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All rows.")] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show where tokens end, and their ids.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write one offline page with all rows, for a browser.")
    ] = None,
    max_seq_length: MaxTokens = 8192,
    strict: Strict = False,
    as_json: AsJson = False,
    _formats: Formats = False,
) -> None:
    """Show rows as the model will be trained on them: trained tokens in colour, context dim, stop tokens marked.

    Where there is no colour, as in a pipe, trained tokens stand between signs. FORCE_COLOR=1 keeps the colours, as in
    `FORCE_COLOR=1 tutelage see FILE --all | less -R`; NO_COLOR=1 takes them away.

    Try: tutelage see datasets/support/train.jsonl --row 3
    """
    _refuse_pairs({"--json": as_json, "--html": html is not None, "--row": row is not None, "--tokens": tokens})
    default_rows = None if as_json else PAGE_ROWS if html else SHOWN_ROWS
    max_rows = None if everything or row is not None else limit or default_rows
    data = data_settings(sources, shape=shape, columns=columns, tree_paths=tree_paths, max_rows=max_rows)
    renderer = renderer_from_options(model, tokenizer, render_settings(template, changed))
    out = Terminal()
    ledger = Ledger(strict=strict)
    if as_json:
        print_rows(data, renderer, ledger, max_seq_length=max_seq_length, number=row)
    elif html is not None:
        write_page(out, data, renderer, ledger, target=html, model=tokenizer or model, max_seq_length=max_seq_length)
    elif row is not None:
        show_row(out, data, renderer, ledger, number=row, max_seq_length=max_seq_length, with_ids=tokens)
    else:
        show_rows(out, data, renderer, ledger, max_seq_length=max_seq_length, with_ids=tokens)


def _refuse_pairs(options: dict[str, bool]) -> None:
    """Refuse options of which each asks for another form of the same."""
    for option, conflicting in (
        ("--json", "--html"),
        ("--row", "--html"),
        ("--tokens", "--html"),
        ("--tokens", "--json"),
    ):
        if options[option] and options[conflicting]:
            raise ConfigError(
                f"{option} and {conflicting} do not go together", expected="one of the two", fix=f"leave out {option}"
            )


def proven(
    data: DataSettings,
    renderer: Renderer,
    ledger: Ledger,
    *,
    max_seq_length: int,
    too_long: TooLong = "drop",
    number: int | None = None,
) -> Iterator[tuple[Conversation, tuple[Example, ...]]]:
    """Rows that can be trained, with their sequences, through all doors up to the length policy.

    Args:
        data: the sources and how to read them.
        renderer: what proves them.
        ledger: accounts for all of them.
        max_seq_length: the longest sequence.
        too_long: what becomes of rows with a longer one.
        number: only the row of this ordinal; the others are read and not proven.
    """

    def read(reader_ledger: Ledger) -> Iterable[Conversation]:
        rows = formats.read(
            data.train,
            ledger=reader_ledger,
            shape=data.format,
            columns=data.columns,
            max_rows=data.max_rows,
            tree_paths=data.tree_paths,
        )
        return rows if number is None else (row for row in rows if _ordinal(row.address) == number)

    return proven_rows(read, renderer, ledger, max_seq_length=max_seq_length, too_long=too_long, workers=data.workers)


def show_rows(
    out: Terminal, data: DataSettings, renderer: Renderer, ledger: Ledger, *, max_seq_length: int, with_ids: bool
) -> None:
    """Rows one after the other, then the row ledger and whose words the tokens were."""
    markers, id_markers = _markers(out, with_ids=with_ids)
    ledger.listener = lambda entry: _say(out, entry)
    shares, tally, texts_of = RoleShares(), Tally(), TokenTexts(renderer.tokenizer)
    for conversation, sequences in proven(data, renderer, ledger, max_seq_length=max_seq_length):
        for example in sequences:
            if not tally.examples:
                _print(out, legend(markers))
            roles = token_roles(conversation, example, renderer)
            shares.add(roles)
            tally.add(tokens=len(example.ids), trained=example.trained_tokens, turns=len(example.turns), stops=0)
            _print(out, Text())
            _print(out, headline(example))
            _print(out, role_line(RoleShares.of([roles])))
            texts = texts_of.of(example.ids.tolist())
            _print(out, colored(example, renderer.tokenizer, texts=texts, markers=markers, id_markers=id_markers))
    _print(out, Text())
    for note in ledger.notes:
        _print(out, Text(f"note: {note}", style="yellow"))
    _print(out, Text(f"{ledger.rows_in} rows read, {ledger.rows_kept} proven, {ledger.rows_dropped} dropped"))
    if tally.tokens:
        share = numbers.percent(tally.trained / tally.tokens)
        _print(out, Text(f"{numbers.count(tally.tokens)} tokens, {numbers.count(tally.trained)} trained ({share})"))
        _print(out, role_line(shares))
    if data.max_rows is not None and ledger.rows_in == data.max_rows:
        _print(out, Text("There may be more rows: --all, --limit N, --row N, or --html FILE for a page.", style="dim"))


def show_row(
    out: Terminal,
    data: DataSettings,
    renderer: Renderer,
    ledger: Ledger,
    *,
    number: int,
    max_seq_length: int,
    with_ids: bool,
) -> None:
    """One row at every door, or why it was dropped.

    Raises:
        ConfigError: there is no such row.
    """
    addresses = []
    markers, id_markers = _markers(out, with_ids=with_ids)

    def on_entry(entry: Drop | Change) -> None:
        if _ordinal(entry.address) == number:
            addresses.append(entry.address)
            _say(out, entry)
            if isinstance(entry, Drop):
                for line in raw_lines([entry.address]).values():
                    _print(out, Text(visible(line)))

    ledger.listener = on_entry
    for conversation, sequences in proven(data, renderer, ledger, max_seq_length=max_seq_length, number=number):
        addresses.append(conversation.address)
        out.print(
            all_doors(
                conversation, sequences, renderer, row_tokens=max_seq_length, markers=markers, id_markers=id_markers
            )
        )
    if not addresses:
        raise ConfigError(
            f"There is no row {number}",
            where=", ".join(data.train),
            found=f"{ledger.rows_in} rows",
            expected="a line or row counted from 1",
            fix="give another --row",
        )


def print_rows(
    data: DataSettings, renderer: Renderer, ledger: Ledger, *, max_seq_length: int, number: int | None
) -> None:
    """One line for each sequence and each dropped row, then the summary; the form is described in docs/render.md."""

    def on_entry(entry: Drop | Change) -> None:
        if isinstance(entry, Drop) and number in (None, _ordinal(entry.address)):
            print_json({"address": str(entry.address), "dropped": entry.reason, "detail": entry.detail})

    ledger.listener = on_entry
    for _, sequences in proven(data, renderer, ledger, max_seq_length=max_seq_length, number=number):
        for example in sequences:
            turns = [
                {"message": turn.message, "prompt_end": turn.prompt_end, "reply_end": turn.reply_end}
                for turn in example.turns
            ]
            print_json(
                {
                    "address": str(example.address),
                    "example": example.part,
                    "ids": example.ids.tolist(),
                    "weights": example.weights.tolist(),
                    "turns": turns,
                }
            )
    if number is None:
        ledger.check()
    print_json({"summary": ledger.as_dict()})


def write_page(
    out: Terminal,
    data: DataSettings,
    renderer: Renderer,
    ledger: Ledger,
    *,
    target: Path,
    model: str,
    max_seq_length: int,
) -> None:
    """All rows on one page, which names `model`, and a line that says where it is.

    Raises:
        ConfigError: no page can stand at `target`.
        SaveError: the page could not be written.
    """
    require_page_target(target)
    page_rows = PageRows(renderer)
    ledger.listener = page_rows.hear
    with Terminal(stderr=True).status("reading and proving rows"):
        for conversation, sequences in proven(data, renderer, ledger, max_seq_length=max_seq_length):
            page_rows.keep(conversation, sequences)
        ledger.check()
        origin = (
            Fact("Tokenizer of", model),
            Fact("Chat template", f"{renderer.template.name}, SHA-256 {renderer.template.sha256()[:12]}…"),
        )
        size = write_rows(target, page_rows, ledger, title=_title(data.train), origin=origin)
    _print(
        out,
        Text(
            f"{target}: {numbers.count(ledger.rows_in)} rows ({numbers.count(ledger.rows_kept)} kept, "
            f"{numbers.count(ledger.rows_dropped)} dropped), {numbers.byte_size(size)}; open it in a browser"
        ),
    )
    if data.max_rows is not None and ledger.rows_in == data.max_rows:
        _print(out, Text(f"There may be more rows than these {numbers.count(data.max_rows)}: --limit N, or --all."))


def _markers(out: Terminal, *, with_ids: bool) -> tuple[Markers | None, Markers | None]:
    """Markers for trained tokens, where there are no colors, and for ids, on request."""
    markers = markers_for(out)
    return None if has_color(out) else markers, markers if with_ids else None


def _title(sources: Sequence[str]) -> str:
    """The sources by name, as far as a heading can hold them."""
    names = ", ".join(sources[:TITLE_SOURCES])
    return names if len(sources) <= TITLE_SOURCES else f"{names} and {len(sources) - TITLE_SOURCES} more"


def _ordinal(address: Address) -> int:
    """Rows counted from 1 as people do; items of a JSON list have addresses from 0 as programs do."""
    return address.number + 1 if address.unit == "item" else address.number


def _print(out: Terminal, text: Text) -> None:
    """Print as it is: the terminal or the pager folds long lines, and nothing is lost at a fold."""
    out.print(text, soft_wrap=True)


def _say(out: Terminal, entry: Drop | Change) -> None:
    word, style = ("dropped", "red") if isinstance(entry, Drop) else ("changed", "yellow")
    _print(out, Text(visible(f"{entry.address}: {word}: {entry.reason}: {entry.detail}", line_ends=False), style=style))

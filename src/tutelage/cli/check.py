"""`check`: what becomes of every row, without training and without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tutelage import config, curate
from tutelage.builders.base_model import start_folder, with_adapters_own
from tutelage.builders.checkpoint_report import findings_of
from tutelage.builders.renderer import renderer_for
from tutelage.builders.row_limit import held_to_positions
from tutelage.cli.check_model import check_checkpoint, findings_as_json
from tutelage.cli.data_options import (
    DEFAULT_MODEL,
    AsJson,
    Columns,
    MaxTokens,
    Settings,
    Shape,
    Strict,
    Template,
    TokenizerFolder,
    TreePaths,
    data_settings,
    log_to_stderr,
    render_settings,
    renderer_from_options,
)
from tutelage.cli.see import proven
from tutelage.config import DataSettings, RenderSettings
from tutelage.ledger import Ledger
from tutelage.pack.length import TooLong
from tutelage.render import Renderer
from tutelage.render.loss_mask import trained_stops
from tutelage.report.console.check import SplitPair, Tally, check_screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.types import Conversation, Example

ProvenRow = tuple[Conversation, tuple[Example, ...]]

COMPARED_ROWS = 20_000
"""Rows of a split that are compared with the others. Our choice: more would be held in memory for one number."""


def check(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Data as for `see`, or one recipe (.toml): all its files, with its settings; or nothing."),
    ] = None,
    *,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help=f"As for `see`; {DEFAULT_MODEL}, when there is data.")
    ] = None,
    tokenizer: TokenizerFolder = None,
    template: Template = None,
    changed: Settings = None,
    shape: Shape = "auto",
    columns: Columns = None,
    tree_paths: TreePaths = "kept",
    max_seq_length: MaxTokens = 8192,
    strict: Strict = False,
    measure_loss: Annotated[
        bool, typer.Option("--measure-loss", help="Without data: also load the model and measure it (needs torch).")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prove all rows and account for each: kept, changed or dropped, why, and where; and how alike the splits are.

    Ends with status 1 when not a single row can be trained; with --strict, when any row cannot.

    With --model and no data: what the model's template, tokenizer and embedding do to training. Ends with status 1
    when one of the findings is an error.
    """
    if not sources:
        if model is None:
            raise typer.BadParameter("give data to prove, or --model to look at a model alone")
        check_checkpoint(
            model,
            render_settings(template, changed),
            tokenizer=tokenizer,
            measure_loss=measure_loss,
            as_json=as_json,
            log=log_to_stderr,
        )
        return
    if sources[0].endswith(".toml"):
        inputs = _asked_by_recipe(sources[0], sources[1:])
    else:
        render = render_settings(template, changed)
        renderer = renderer_from_options(model or DEFAULT_MODEL, tokenizer, render)
        data = data_settings(sources, shape=shape, columns=columns, tree_paths=tree_paths)
        splits = {source: [source] for source in sources} if len(sources) > 1 else {"data": sources}
        inputs = _Asked(renderer, render, data, splits, max_seq_length)
    _check_rows(inputs, Ledger(strict=strict), as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What `check` is to prove: the files of each split, how to read them, and what proves them."""

    renderer: Renderer
    render: RenderSettings
    data: DataSettings
    splits: Mapping[str, list[str]]
    max_seq_length: int
    too_long: TooLong = "drop"


def _asked_by_recipe(recipe: str, overrides: list[str]) -> _Asked:
    settings = with_adapters_own(config.load(recipe, overrides))
    data = settings.data
    splits = {"train": data.train, "replay": data.replayed, "validation": data.validation}
    splits |= {"task": settings.evaluate.task}
    folder = start_folder(settings.model, weights=False, log=log_to_stderr)
    pack = held_to_positions(settings, folder, log=log_to_stderr)[0].pack
    renderer = renderer_for(folder, settings.render)
    return _Asked(renderer, settings.render, settings.data, splits, pack.max_seq_length, pack.too_long)


def _check_rows(inputs: _Asked, ledger: Ledger, *, as_json: bool) -> None:
    findings = findings_of(inputs.renderer, inputs.render)
    tally, conversations = Tally(), {}
    splits = {name: files for name, files in inputs.splits.items() if files}
    for name, files in splits.items():
        split = inputs.data.model_copy(update={"train": files})
        compared_rows = COMPARED_ROWS if len(splits) > 1 else 0
        # A task row is asked whole or not at all (`builders.dataset`).
        too_long: TooLong = "drop" if name == "task" else inputs.too_long
        rows = proven(split, inputs.renderer, ledger, max_seq_length=inputs.max_seq_length, too_long=too_long)
        title = f"proving {', '.join(files)}"
        conversations[name] = _tally(_counted(rows, title), inputs.renderer, tally, compared_rows=compared_rows)
        if compared_rows and len(conversations[name]) == compared_rows:
            ledger.note(f"{name}: how alike the splits are was measured on its first {compared_rows:,} rows")
    ledger.check()
    pairs = [
        SplitPair(first, second, similarity)
        for first, second in combinations(conversations, 2)
        if (similarity := curate.most_similar(conversations[first], conversations[second])) is not None
    ]
    if as_json:
        similarities = {f"{pair.left} ~ {pair.right}": round(pair.likeness.similarity, 4) for pair in pairs}
        reported_findings = findings_as_json([finding for finding in findings if finding.severity != "info"])
        print_json(
            {
                "ledger": ledger.as_dict(),
                "tokens": tally.as_dict(),
                "most_alike": similarities,
                "findings": reported_findings,
            }
        )
    else:
        Terminal().show(check_screen(ledger, tally, pairs, findings))
    if tally.examples == 0:
        raise typer.Exit(1)


def _tally(rows: Iterable[ProvenRow], renderer: Renderer, tally: Tally, *, compared_rows: int) -> list[Conversation]:
    """Count all rows; return the first `compared_rows` of those kept: a data set need not fit in memory."""
    conversations: list[Conversation] = []
    for conversation, sequences in rows:
        if len(conversations) < compared_rows:
            conversations.append(conversation)
        for sequence in sequences:
            stops = trained_stops((sequence,), renderer.tokenizer.stop_ids)
            tally.add(tokens=len(sequence.ids), trained=sequence.trained_tokens, turns=len(sequence.turns), stops=stops)
        if len(sequences) > 1 and not conversation.is_text:
            tally.add_split([len(sequence.ids) for sequence in sequences])
    return conversations


def _counted(rows: Iterable[ProvenRow], title: str) -> Iterator[ProvenRow]:
    """The rows, counted on a terminal's stderr as they pass; how many there will be is not known before."""
    console = Terminal(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(rows, description=title, total=None)

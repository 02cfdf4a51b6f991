"""`see` and `check`: what becomes of data, without training and without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tutelage import config, curate, formats
from tutelage.builders.base_model import start_folder, with_adapters_own
from tutelage.builders.renderer import renderer_for
from tutelage.builders.row_limit import held_to_positions
from tutelage.cli.check_model import check_checkpoint, findings_as_json, findings_of
from tutelage.cli.see import (
    PAGE_ROWS,
    SHOWN_ROWS,
    print_rows,
    proven,
    show_row,
    show_rows,
    write_page,
)
from tutelage.config import DataSettings, RenderSettings
from tutelage.config.sections import LARGEST_COUNT
from tutelage.errors import ConfigError, shell_word
from tutelage.ledger import Ledger
from tutelage.model.locate import model_folder
from tutelage.pack.length import TooLong
from tutelage.render import Renderer
from tutelage.render.example_checks import trained_stops
from tutelage.report.console.check import SplitPair, Tally, check_screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.types import Conversation, Example

ProvenRow = tuple[Conversation, tuple[Example, ...]]
DEFAULT_MODEL = "smollm2-135m"
COMPARED_ROWS = 20_000
"""Rows of a split that are compared with the others. Our choice: more would be held in memory for one number."""

Sources = Annotated[
    list[str],
    typer.Argument(help="Files, folders, globs, or a Hugging Face data set id (owner/name or owner/name:split)."),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", help="Whose tokenizer and template: short name, folder, GGUF file or Hub id."),
]
TokenizerFolder = Annotated[
    str | None, typer.Option("--tokenizer", help="Folder with tokenizer.json, or such a file, not the model's.")
]
Template = Annotated[
    str | None,
    typer.Option("--template", help="A Jinja file or a format such as chatml, not the model's own."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting of rendering: --set render.empty_reasoning=close (train --explain render)."),
]
Shape = Annotated[str, typer.Option("--format", help=f"Shape of the rows: auto, {', '.join(formats.SHAPES)}.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--columns", help="Map columns: prompt=question,response=answer (prompt, response, system, ...)."),
]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=2, max=LARGEST_COUNT, help="Longer rows are dropped, and counted.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop with an error at the first row that would be dropped.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def see(
    sources: Sources,
    *,
    model: Model = DEFAULT_MODEL,
    tokenizer: TokenizerFolder = None,
    template: Template = None,
    changed: Settings = None,
    shape: Shape = "auto",
    columns: Columns = None,
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
    max_tokens: MaxTokens = 8192,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Show rows as the model will be trained on them: trained tokens in colour, context dim, stop tokens marked.

    Where there is no colour, as in a pipe, trained tokens stand between signs. FORCE_COLOR=1 keeps the colours, as in
    `FORCE_COLOR=1 tutelage see FILE --all | less -R`; NO_COLOR=1 takes them away.

    Try: tutelage see datasets/support/train.jsonl --row 3
    """
    _refuse_pairs({"--json": as_json, "--html": html is not None, "--row": row is not None, "--tokens": tokens})
    usual = None if as_json else PAGE_ROWS if html else SHOWN_ROWS
    max_rows = None if everything or row is not None else limit or usual
    data = _data_settings(sources, shape=shape, columns=columns, max_rows=max_rows)
    renderer = _renderer(model, tokenizer, _render_settings(template, changed))
    out = Terminal()
    ledger = Ledger(strict=strict)
    if as_json:
        print_rows(data, renderer, ledger, max_tokens=max_tokens, number=row)
    elif html is not None:
        write_page(out, data, renderer, ledger, target=html, model=tokenizer or model, max_tokens=max_tokens)
    elif row is not None:
        show_row(out, data, renderer, ledger, number=row, max_tokens=max_tokens, with_ids=tokens)
    else:
        show_rows(out, data, renderer, ledger, max_tokens=max_tokens, with_ids=tokens)


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
    max_tokens: MaxTokens = 8192,
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
            _render_settings(template, changed),
            tokenizer=tokenizer,
            measure_loss=measure_loss,
            as_json=as_json,
            log=_to_stderr,
        )
        return
    if sources[0].endswith(".toml"):
        asked = _asked_by_recipe(sources[0], sources[1:])
    else:
        render = _render_settings(template, changed)
        renderer = _renderer(model or DEFAULT_MODEL, tokenizer, render)
        data = _data_settings(sources, shape=shape, columns=columns)
        splits = {source: [source] for source in sources} if len(sources) > 1 else {"data": sources}
        asked = _Asked(renderer, render, data, splits, max_tokens)
    _check_rows(asked, Ledger(strict=strict), as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What `check` is to prove: the files of each split, how to read them, and what proves them."""

    renderer: Renderer
    render: RenderSettings
    data: DataSettings
    splits: Mapping[str, list[str]]
    max_tokens: int
    too_long: TooLong = "drop"


def _asked_by_recipe(recipe: str, overrides: list[str]) -> _Asked:
    settings = with_adapters_own(config.load(recipe, overrides))
    splits = {"train": settings.data.train, "validation": settings.data.validation, "task": settings.evaluate.task}
    folder = start_folder(settings.model, weights=False, log=_to_stderr)
    pack = held_to_positions(settings, folder, log=_to_stderr)[0].pack
    renderer = renderer_for(folder, settings.render)
    return _Asked(renderer, settings.render, settings.data, splits, pack.max_tokens, pack.too_long)


def _check_rows(asked: _Asked, ledger: Ledger, *, as_json: bool) -> None:
    findings = findings_of(asked.renderer, asked.render)
    tally, kept = Tally(), {}
    splits = {name: files for name, files in asked.splits.items() if files}
    for name, files in splits.items():
        split = asked.data.model_copy(update={"train": files})
        compared = COMPARED_ROWS if len(splits) > 1 else 0
        # A task row is asked whole or not at all (`train.prepare`).
        too_long: TooLong = "drop" if name == "task" else asked.too_long
        rows = proven(split, asked.renderer, ledger, max_tokens=asked.max_tokens, too_long=too_long)
        title = f"proving {', '.join(files)}"
        kept[name] = _tally(_counted(rows, title), asked.renderer, tally, compared=compared)
        if compared and len(kept[name]) == compared:
            ledger.note(f"{name}: how alike the splits are was measured on its first {compared:,} rows")
    ledger.check()
    pairs = [
        SplitPair(left, right, likeness)
        for left, right in combinations(kept, 2)
        if (likeness := curate.most_similar(kept[left], kept[right])) is not None
    ]
    if as_json:
        alike = {f"{pair.left} ~ {pair.right}": round(pair.likeness.similarity, 4) for pair in pairs}
        serious = findings_as_json([finding for finding in findings if finding.severity != "info"])
        print_json({"ledger": ledger.as_dict(), "tokens": tally.as_dict(), "most_alike": alike, "findings": serious})
    else:
        Terminal().show(check_screen(ledger, tally, pairs, findings))
    if tally.examples == 0:
        raise typer.Exit(1)


def _tally(rows: Iterable[ProvenRow], renderer: Renderer, tally: Tally, *, compared: int) -> list[Conversation]:
    """Count all rows; give back the first `compared` of those kept, and no more: a data set need not fit in memory."""
    kept: list[Conversation] = []
    for conversation, sequences in rows:
        if len(kept) < compared:
            kept.append(conversation)
        for sequence in sequences:
            stops = trained_stops((sequence,), renderer.tokenizer.stop_ids)
            tally.add(tokens=len(sequence.ids), trained=sequence.trained_tokens, turns=len(sequence.turns), stops=stops)
        if len(sequences) > 1 and not conversation.is_text:
            tally.add_split([len(sequence.ids) for sequence in sequences])
    return kept


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


def _renderer(model: str, tokenizer: str | None, settings: RenderSettings) -> Renderer:
    if tokenizer is not None and Path(tokenizer).is_file():  # a tokenizer.json by itself, whatever its name
        return renderer_for(Path(tokenizer), settings)
    return renderer_for(model_folder(tokenizer or model, weights=False, log=_to_stderr), settings)


def _data_settings(
    sources: list[str], *, shape: str, columns: list[str] | None, max_rows: int | None = None
) -> DataSettings:
    """The section `data` as the command line gives it."""
    if not all(source.strip() for source in sources):
        raise ConfigError(
            "The name of a data file is empty",
            where="the command line",
            found=" ".join(shell_word(source) for source in sources),
            expected="files, folders, globs, or a hub data set",
            fix="give it a name, or leave it out; a shell variable may be empty",
        )
    given: dict[str, Any] = {"train": sources, "shape": _shape(shape), "columns": _columns(columns)}
    if max_rows is not None:
        given["max_rows"] = max_rows
    return config.from_mapping({"model": {"name": DEFAULT_MODEL}, "data": given}, where="the command line").data


def _render_settings(template: str | None, changed: list[str] | None) -> RenderSettings:
    for one in changed or []:
        if not one.startswith("render."):
            raise ConfigError(
                "Only settings of rendering can be set here",
                found=one,
                expected="render.FIELD=VALUE",
                fix="tutelage train --explain render lists them",
            )
    given = {"render": {} if template is None else {"template": template}}
    needed = {"model": {"name": DEFAULT_MODEL}, "data": {"train": ["-"]}}
    return config.from_mapping(needed | given, changed or [], where="--set").render


def _refuse_pairs(given: dict[str, bool]) -> None:
    """Refuse options of which each asks for another form of the same."""
    for one, other in (("--json", "--html"), ("--row", "--html"), ("--tokens", "--html"), ("--tokens", "--json")):
        if given[one] and given[other]:
            raise ConfigError(
                f"{one} and {other} do not go together", expected="one of the two", fix=f"leave out {one}"
            )


def _shape(name: str) -> Any:
    if name not in ("auto", *formats.SHAPES):
        raise ConfigError(
            f"There is no format '{name}'",
            found=name,
            expected=", ".join(("auto", *formats.SHAPES)),
            fix="--format auto",
        )
    return name


def _columns(pairs: list[str] | None) -> dict[str, str]:
    mapped = {}
    for pair in (one for given in pairs or [] for one in given.split(",")):
        key, equals, column = pair.partition("=")
        if not equals or not key or not column:
            raise ConfigError(
                "A column map cannot be read",
                found=pair,
                expected="name=column",
                fix="--columns prompt=question,response=answer",
            )
        mapped[key.strip()] = column.strip()
    return mapped


def _to_stderr(text: str) -> None:
    Terminal(stderr=True).write_line(text)

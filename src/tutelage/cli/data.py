"""`see` and `check`: what becomes of data, without training and without torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from tutelage import config, curate, formats
from tutelage.config import DataSettings, RenderSettings
from tutelage.errors import ConfigError
from tutelage.ledger import Ledger
from tutelage.model.source import model_folder
from tutelage.pack import within_limit
from tutelage.render import Renderer, examples
from tutelage.render.gates import trained_stops
from tutelage.render.show import coloured
from tutelage.report.check_screen import SplitPair, Tally, check_screen
from tutelage.report.doors import all_doors, headline, legend
from tutelage.train.renderer import renderer_for
from tutelage.types import Address, Change, Conversation, Drop, Example

DEFAULT_MODEL = "smollm2-135m"
SHOWN_ROWS = 5

Sources = Annotated[
    list[str],
    typer.Argument(help="Files, folders, globs, or a Hugging Face data set id (owner/name or owner/name:split)."),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", help="Whose tokenizer and template: short name, folder, GGUF file or Hub id."),
]
TokenizerFolder = Annotated[
    str | None, typer.Option("--tokenizer", help="Folder with tokenizer.json, in place of the model's.")
]
Template = Annotated[
    str | None, typer.Option("--template", help="A Jinja chat template file, in place of the model's own.")
]
Shape = Annotated[str, typer.Option("--format", help=f"Shape of the rows: auto, {', '.join(formats.SHAPES)}.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--columns", help="Map columns: prompt=question,response=answer (prompt, response, system, ...)."),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", help="Longer rows are dropped, and counted.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop with an error at the first row that would be dropped.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def see(
    sources: Sources,
    *,
    model: Model = DEFAULT_MODEL,
    tokenizer: TokenizerFolder = None,
    template: Template = None,
    shape: Shape = "auto",
    columns: Columns = None,
    row: Annotated[int | None, typer.Option("--row", help="Show the Nth row (from 1) at every door.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="How many rows to show; 5, or with --json all.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show all rows.")] = False,
    max_tokens: MaxTokens = 8192,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Show rows as the model will be trained on them: trained tokens in colour, context dim, stop tokens marked.

    Try: tutelage see datasets/support/train.jsonl --row 3
    """
    renderer = _renderer(model, tokenizer, template)
    out = Console(highlight=False)
    ledger = Ledger(strict=strict)
    data = DataSettings(
        train=sources,
        shape=_shape(shape),
        columns=_columns(columns),
        max_rows=None if everything or row is not None else limit or (None if as_json else SHOWN_ROWS),
    )
    if as_json:
        _see_as_json(data, renderer, ledger, max_tokens=max_tokens, number=row)
    elif row is not None:
        _see_row(out, data, renderer, ledger, number=row, max_tokens=max_tokens)
    else:
        _see_rows(out, data, renderer, ledger, max_tokens=max_tokens)


def check(
    sources: Annotated[
        list[str],
        typer.Argument(help="Data as for `see`, or one recipe (.toml): then all its files, with its settings."),
    ],
    *,
    model: Model = DEFAULT_MODEL,
    tokenizer: TokenizerFolder = None,
    template: Template = None,
    shape: Shape = "auto",
    columns: Columns = None,
    max_tokens: MaxTokens = 8192,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Prove all rows and account for each: kept, changed or dropped, why, and where; and how alike the splits are.

    Ends with status 1 when not a single row can be trained; with --strict, when any row cannot.
    """
    ledger = Ledger(strict=strict)
    if sources[0].endswith(".toml"):
        settings = config.load(sources[0], sources[1:])
        splits = {
            "train": settings.data.train,
            "validation": settings.data.validation,
            "task": settings.evaluate.task,
        }
        renderer = renderer_for(model_folder(settings.model.name, weights=False, say=_to_stderr), settings.render)
        data, max_tokens = settings.data, settings.pack.max_tokens
    else:
        renderer = _renderer(model, tokenizer, template)
        data = DataSettings(train=sources, shape=_shape(shape), columns=_columns(columns))
        splits = {source: [source] for source in sources} if len(sources) > 1 else {"data": sources}
    tally, kept = Tally(), {}
    for name, files in splits.items():
        if files:
            split = data.model_copy(update={"train": files})
            kept[name] = _tally(split, renderer, ledger, tally, max_tokens=max_tokens)
    ledger.check()
    pairs = [
        SplitPair(left, right, likeness)
        for left, right in combinations(kept, 2)
        if (likeness := curate.most_alike(kept[left], kept[right])) is not None
    ]
    if as_json:
        alike = {f"{one.left} ~ {one.right}": round(one.likeness.similarity, 4) for one in pairs}
        _line({"ledger": ledger.as_dict(), "tokens": tally.as_dict(), "most_alike": alike})
    else:
        Console(highlight=False).print(check_screen(ledger, tally, pairs))
    if tally.examples == 0:
        raise typer.Exit(1)


def _see_rows(out: Console, data: DataSettings, renderer: Renderer, ledger: Ledger, *, max_tokens: int) -> None:
    ledger.listener = lambda entry: _say(out, entry)
    out.print(legend())
    for _, proven in _proven(data, renderer, ledger, max_tokens=max_tokens):
        for example in proven:
            out.print(headline(example))
            out.print(coloured(example, renderer.tokenizer))
    for note in ledger.notes:
        out.print(Text(f"note: {note}", style="yellow"))
    out.print(Text(f"{ledger.rows_in} rows read, {ledger.rows_kept} proven, {ledger.rows_dropped} dropped"))


def _see_row(
    out: Console, data: DataSettings, renderer: Renderer, ledger: Ledger, *, number: int, max_tokens: int
) -> None:
    found = []

    def heard(entry: Drop | Change) -> None:
        if _ordinal(entry.address) == number:
            found.append(entry.address)
            _say(out, entry)

    ledger.listener = heard
    for conversation, proven in _proven(data, renderer, ledger, max_tokens=max_tokens, number=number):
        found.append(conversation.address)
        out.print(all_doors(conversation, proven, renderer, row_tokens=max_tokens))
    if not found:
        raise ConfigError(
            f"There is no row {number}",
            where=", ".join(data.train),
            found=f"{ledger.rows_in} rows",
            expected="a line or row counted from 1",
            fix="give another --row",
        )


def _see_as_json(
    data: DataSettings, renderer: Renderer, ledger: Ledger, *, max_tokens: int, number: int | None
) -> None:
    def heard(entry: Drop | Change) -> None:
        if isinstance(entry, Drop) and number in (None, _ordinal(entry.address)):
            _line({"address": str(entry.address), "dropped": entry.reason, "detail": entry.detail})

    ledger.listener = heard
    for _, proven in _proven(data, renderer, ledger, max_tokens=max_tokens, number=number):
        for example in proven:
            turns = [
                {"message": turn.message, "prompt_end": turn.prompt_end, "reply_end": turn.reply_end}
                for turn in example.turns
            ]
            _line(
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
    _line({"summary": ledger.as_dict()})


def _proven(
    data: DataSettings, renderer: Renderer, ledger: Ledger, *, max_tokens: int, number: int | None = None
) -> Iterator[tuple[Conversation, tuple[Example, ...]]]:
    rows = formats.read(data.train, ledger=ledger, shape=data.shape, columns=data.columns, max_rows=data.max_rows)
    if number is not None:
        rows = (one for one in rows if _ordinal(one.address) == number)
    return within_limit(examples(rows, renderer, ledger), max_tokens=max_tokens, ledger=ledger)


def _ordinal(address: Address) -> int:
    """Rows counted from 1 as people do; items of a JSON list have addresses from 0 as programs do."""
    return address.number + 1 if address.unit == "item" else address.number


def _tally(
    data: DataSettings, renderer: Renderer, ledger: Ledger, tally: Tally, *, max_tokens: int
) -> list[Conversation]:
    kept = []
    for conversation, proven in _proven(data, renderer, ledger, max_tokens=max_tokens):
        kept.append(conversation)
        for one in proven:
            stops = trained_stops((one,), renderer.tokenizer.stop_ids)
            tally.add(tokens=len(one.ids), trained=one.trained_tokens, turns=len(one.turns), stops=stops)
    return kept


def _renderer(model: str, tokenizer: str | None, template: str | None) -> Renderer:
    folder = model_folder(tokenizer or model, weights=False, say=_to_stderr)
    return renderer_for(folder, RenderSettings(template=template))


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


def _say(out: Console, entry: Drop | Change) -> None:
    word, style = ("dropped", "red") if isinstance(entry, Drop) else ("changed", "yellow")
    out.print(Text(f"{entry.address}: {word}: {entry.reason}: {entry.detail}", style=style))


def _to_stderr(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False)


def _line(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")

"""`curate`: from many rows to those that teach, with books of what went and why."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from tutelage import config
from tutelage.builders.curation import request_of, steps_of
from tutelage.cli.data_options import AsJson, Columns, Shape, columns_from, shape_from
from tutelage.cli.train_options import Size, with_size
from tutelage.config.sections import LARGEST_COUNT
from tutelage.curate.judge_estimate import JudgeEstimate
from tutelage.curate.out_folder import CARD, DROPPED, PAGE, WORK
from tutelage.curate.packages import INSTALL
from tutelage.curate.pipeline import curate as curated
from tutelage.curate.pipeline import sample
from tutelage.curate.request import Curated, CurationRequest, EngineName, FileFormat
from tutelage.curate.restore import restore
from tutelage.curate.selection import SELECT
from tutelage.curate.steps import BY_NAME, STEPS
from tutelage.errors import ConfigError, command
from tutelage.report.console.curation import StageBars, judge_lines, step_lines
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.report.html.chart_library import library_version
from tutelage.report.html.curation_page import CurationPage
from tutelage.report.html.offline import require_free_or_own
from tutelage.report.numbers import duration

Sources = Annotated[
    list[str] | None,
    typer.Argument(help="Files, folders, globs, or a Hugging Face data set id; left out, data.train of --config."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the data, the ledger and the card.")]
Config = Annotated[
    str | None, typer.Option("--config", "-c", help=r"A TOML file with \[curate], such as a recipe for training.")
]
Changed = Annotated[
    list[str] | None, typer.Option("--set", help="A setting: --set curate.near_duplicates.similarity=0.9")
]
Steps = Annotated[str | None, typer.Option("--steps", help="These steps alone, in this order: normalize,quality.")]
ListSteps = Annotated[bool, typer.Option("--list-steps", help="List all steps, which are on, and stop.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Take 1,000 rows through the steps that look at one row alone; say what a judge costs; write nothing.",
    ),
]
Restore = Annotated[
    str | None,
    typer.Option("--restore", help="Put the dropped rows of this reason or address back: --restore REASON -o OUT."),
]
Keep = Annotated[
    int | None,
    typer.Option("--keep", min=1, max=LARGEST_COUNT, help="Choose so many rows, by curate.select.method (random)."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, max=1024, help="Processes; left out, one a core, up to 4.")
]
EngineOption = Annotated[str, typer.Option("--engine", help="Who does the work: local, or ray, on a cluster.")]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", help="HOST:PORT of a Ray cluster; left out, RAY_ADDRESS, else this machine alone."),
]
To = Annotated[str, typer.Option("--to", help="How the rows are written: jsonl or parquet.")]
Tokenizer = Annotated[
    Path | None, typer.Option("--tokenizer", help="A tokenizer.json, to count tokens for the card, too.")
]
MaxRows = Annotated[
    int | None, typer.Option("--limit", "-n", min=1, max=LARGEST_COUNT, help="Read at most this many rows.")
]
Clean = Annotated[
    bool, typer.Option("--clean", help=f"Delete OUT/{WORK} at the end: the next run begins from nothing.")
]
NoPage = Annotated[bool, typer.Option("--no-page", help=f"Leave out OUT/{PAGE}, the page to look at in a browser.")]


def curate(
    sources: Sources = None,
    *,
    out: Out = None,
    recipe: Config = None,
    changed: Changed = None,
    size: Size = None,
    steps: Steps = None,
    keep: Keep = None,
    list_steps: ListSteps = False,
    dry_run: DryRun = False,
    restored: Restore = None,
    workers: Workers = None,
    engine: EngineOption = "local",
    ray_address: RayAddress = None,
    shape: Shape = "auto",
    columns: Columns = None,
    to: To = "jsonl",
    tokenizer: Tokenizer = None,
    max_rows: MaxRows = None,
    clean: Clean = False,
    no_page: NoPage = False,
    as_json: AsJson = False,
) -> None:
    """Mend and choose rows: every dropped row is listed with its reason and evidence, and can be restored.

    A run that was stopped goes on where it was, when the same command is given again.

    Try: tutelage curate datasets/support/train.jsonl -o curated
    """
    terminal = Terminal()
    if restored is not None:
        _restore(terminal, required_out(out, "--restore"), restored)
        return
    overrides = [*with_size(changed, size), *([] if steps is None else [f"curate.steps={_step_list(steps)}"])]
    if list_steps:
        _list_steps(terminal, config.load_curation(recipe, overrides, sources=sources or ["-"]))
        return
    settings = config.load_curation(recipe, overrides, sources=sources or [])
    if keep is not None:
        overrides += [f"curate.select.keep={keep}", f"curate.steps={_with_select(steps_of(settings))}"]
        settings = config.load_curation(recipe, overrides, sources=sources or [])
    request = request_of(settings, Path() if dry_run and out is None else required_out(out, "curate"))
    if columns:
        request = replace(request, columns=columns_from(columns))
    if shape != "auto":
        request = replace(request, shape=shape_from(shape))
    request = replace(
        request, workers=workers or request.workers, max_rows=max_rows or request.max_rows,
        file_format=_file_format(to), tokenizer=_tokenizer_file(tokenizer),
        engine=_engine_name(engine, ray_address), ray_address=ray_address,
    )  # fmt: skip
    errors = Terminal(stderr=True)
    if dry_run:
        _dry_run(request, terminal, errors, as_json=as_json)
        return
    _curate(request, terminal, errors, page=None if no_page else CurationPage(), clean=clean, as_json=as_json)


def _dry_run(request: CurationRequest, terminal: Terminal, errors: Terminal, *, as_json: bool) -> None:
    _report(terminal, sampled := sample(request), as_json=as_json)
    errors.write_line("A sample; nothing was written.")
    for name in sampled.left_out:
        if name not in sampled.estimates:
            errors.write_line(f"not taken, as it must see all rows: {name} ({BY_NAME[name].sentence})")


def _curate(
    request: CurationRequest,
    terminal: Terminal,
    errors: Terminal,
    *,
    page: CurationPage | None,
    clean: bool,
    as_json: bool,
) -> None:
    if page is not None:
        require_free_or_own(request.out / PAGE, fix="move it away, or leave our page out: --no-page")
    with StageBars(Screen(errors)) as bars:
        result = curated(request, log=errors.write_line, progress=bars.show, page=page)
    if clean:
        shutil.rmtree(request.out / WORK, ignore_errors=True)
    _report(terminal, result, as_json=as_json)
    _say_what_is_left(errors, result)
    if not as_json:
        if page is not None:
            _say_page(terminal, request.out / PAGE, result)
        files = ", ".join(map(str, result.files.values()))
        terminal.write_line(f"{files}; what was done: {request.out / CARD}; what went: {request.out / DROPPED}")


def _restore(terminal: Terminal, out: Path, wanted: str) -> None:
    had_page = (out / PAGE).exists()
    count = restore(out, wanted)
    gone = f"; {PAGE} showed what was before, and is gone" if had_page else ""
    terminal.write_line(f"{count} rows are back in {out}{gone}")


def _say_page(terminal: Terminal, page: Path, result: Curated) -> None:
    if not page.exists():
        terminal.write_line(f"No {page.name}: rows were restored, and it would show what was before.")
        return
    seconds = result.seconds.get(PAGE)
    took = "" if seconds is None else f" (drawn in {duration(seconds)})"
    terminal.write_line(f"{page}: steps, rows and findings, to look at in a browser{took}")
    if library_version() is None:
        terminal.write_line(f"It has no map and no charts without the package bokeh: {INSTALL}, then the same command.")


def _say_what_is_left(errors: Terminal, result: Curated) -> None:
    for line in result.incomplete:
        errors.write_line(line)
    if result.incomplete:
        errors.write_line(f"What was answered is kept; to go on: {command(*sys.argv[1:])}")


def _list_steps(terminal: Terminal, settings: config.Settings) -> None:
    on = steps_of(settings)
    for line in step_lines((step.name, step.sentence, step.name in on) for step in STEPS):
        terminal.write_line(line)


def required_out(out: Path | None, what: str, example: str = "curate DATA -o curated") -> Path:
    """The folder of the output, without which nothing is written."""
    if out is None:
        raise ConfigError(
            "No folder was named for the output", where=what, expected="-o OUT", fix=f"tutelage {example}",
        )  # fmt: skip
    return out


def _step_list(text: str) -> str:
    return "[" + ", ".join(f'"{name.strip()}"' for name in text.split(",") if name.strip()) + "]"


def _with_select(steps: list[str]) -> str:
    """The list of steps, with the one that chooses; it comes before those that mix or split what is chosen."""
    order = [step.name for step in STEPS]
    later = order[order.index(SELECT.name) + 1 :]
    place = next((index for index, name in enumerate(steps) if name in later), len(steps))
    return json.dumps(steps if SELECT.name in steps else [*steps[:place], SELECT.name, *steps[place:]])


def _file_format(name: str) -> FileFormat:
    if name not in ("jsonl", "parquet"):
        raise ConfigError(f"Rows cannot be written as '{name}'", expected="jsonl or parquet", fix="--to jsonl")
    return cast("FileFormat", name)


def _engine_name(name: str, ray_address: str | None) -> EngineName:
    if name not in ("local", "ray"):
        raise ConfigError(f"There is no engine '{name}'", where="--engine", expected="local or ray", fix="--engine ray")
    if ray_address is not None and name != "ray":
        raise ConfigError(
            "A Ray cluster is named, and the engine is not Ray", where="--ray-address", found=ray_address,
            expected="--engine ray", fix="add --engine ray, or leave --ray-address out",
        )  # fmt: skip
    return cast("EngineName", name)


def _tokenizer_file(path: Path | None) -> Path | None:
    if path is None:
        return None
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            "There is no such tokenizer", where=str(path), expected="a tokenizer.json, or a folder with one",
            fix="name the folder of a model",
        )  # fmt: skip
    return file


def _report(terminal: Terminal, result: Curated, *, as_json: bool) -> None:
    if as_json:
        content: dict[str, Any] = {**result.funnel.as_dict(), "notes": list(result.notes)}
        if result.left_out:
            content["left_out"] = list(result.left_out)
        if result.estimates:
            content["estimates"] = {name: estimate.as_dict() for name, estimate in result.estimates.items()}
        print_json(content)
        return
    for note in result.notes:
        terminal.write_line(f"note: {note}")
    for line in result.funnel.lines():
        terminal.write_line(line)
    terminal.write_line(f"{result.funnel.rows_in:,} rows read, {result.funnel.rows_kept:,} kept")
    for estimate in result.estimates.values():
        for line in judge_lines(estimate) if isinstance(estimate, JudgeEstimate) else ():
            terminal.write_line(line)

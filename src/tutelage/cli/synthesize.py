"""`synthesize`: rows that are made, of labelled tables (`tasks`) or by a model (`generate_rows`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tomli_w
import typer

from tutelage.cli.curate import Changed, MaxRows, NoPage, Workers, required_out
from tutelage.cli.data_options import AsJson
from tutelage.cli.generate_rows import add_generators
from tutelage.cli.tasks_recipe import asked_tasks
from tutelage.cli.train_options import Size, with_size
from tutelage.config.settings import Settings
from tutelage.curate.out_folder import CARD, EVALUATION, HELD_OUT, MANIFEST, PAGE
from tutelage.errors import SourceNotFoundError, command
from tutelage.report.console.curation import StageBars
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.report.html.curation_page import CurationPage
from tutelage.synthesize.tasks import Made, Task, present_tasks, read_tasks, samples, synthesize_tasks

synthesize = typer.Typer(
    help="Make rows: labelled tables become instructions (tasks), or a model writes them.",
    no_args_is_help=True,
    add_completion=False,
)

Tasks = Annotated[list[str], typer.Argument(help="A recipe; or task files (TOML), or folders with such.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the rows, the books and the card.")]
Config = Annotated[
    str | None, typer.Option("--config", "-c", help="A TOML file with a table synthesize.tasks, such as a recipe.")
]
DataFolder = Annotated[
    str | None, typer.Option("--data-folder", help="Where the tables are; left out, beside the task files.")
]
HoldOut = Annotated[
    list[str] | None,
    typer.Option("--hold-out", help="A cluster that is not trained on: its rows become evaluation items."),
]
Tokenizer = Annotated[
    str | None, typer.Option("--tokenizer", help="A tokenizer.json: rows that are too long by it are dropped.")
]
SkipMissing = Annotated[bool, typer.Option("--skip-missing", help="Leave out tasks whose tables are not there.")]
ListTasks = Annotated[bool, typer.Option("--list", help="List the tasks by cluster, and stop.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show three instructions of each task; write nothing.")]


@synthesize.callback()
def _ways() -> None:
    """Make rows: labelled tables become instructions (tasks), or a model writes them."""


@synthesize.command("tasks")
def tasks_command(
    sources: Tasks,
    *,
    out: Out = None,
    recipe: Config = None,
    changed: Changed = None,
    size: Size = None,
    data_folder: DataFolder = None,
    hold_out: HoldOut = None,
    tokenizer: Tokenizer = None,
    skip_missing: SkipMissing = False,
    list_tasks: ListTasks = False,
    dry_run: DryRun = False,
    workers: Workers = None,
    max_rows: MaxRows = None,
    no_page: NoPage = False,
    as_json: AsJson = False,
) -> None:
    """Make instructions of labelled tables (FLAN): templates in plain words, few-shot prompts, reasoning, options.

    A task is one file: which table, which columns, about ten ways to ask. Each row draws one of them and a form by
    what it holds, so the same command gives the same bytes. At most 30,000 rows of a task, and rates that stop to grow
    at 3,000, unless curate.mix says otherwise. --limit is of each table.

    With a recipe, its tasks are taken, its folder for the rows and its model's tokenizer, and `tutelage train RECIPE`
    goes on from there.

    Try: tutelage synthesize tasks recipes/flan.toml --data-folder . --skip-missing --dry-run
    """
    terminal, errors = Terminal(), Terminal(stderr=True)
    named = {"data_folder": data_folder, "hold_out": hold_out, "tokenizer": tokenizer}
    # As TOML, so that a name that looks like a number stays a text.
    options = [f"synthesize.tasks.{tomli_w.dumps({name: value}).strip()}" for name, value in named.items() if value]
    asked = asked_tasks(sources, recipe, [*with_size(changed, size), *options], log=errors.write_line)
    settings, tasks = asked.settings, read_tasks(asked.tasks)
    folder = settings.synthesize.tasks.data_folder
    present, missing = present_tasks(tasks, folder)
    if list_tasks:
        _list(terminal, tasks, missing)
        return
    if skip_missing:
        tasks = _present(present, missing, errors)
    if dry_run:
        _show(terminal, settings, tasks)
        errors.write_line("Samples; nothing was written.")
        return
    folder_out = required_out(out or asked.folder, "synthesize tasks", "synthesize tasks TASKS -o flan")
    with StageBars(Screen(errors)) as bars:
        made = synthesize_tasks(
            settings, tasks, folder_out, max_rows=max_rows, workers=workers, log=errors.write_line, progress=bars.show,
            page=None if no_page else CurationPage(),
        )  # fmt: skip
    _report(terminal, made, folder_out, as_json=as_json)
    if asked.recipe is not None and not as_json:
        terminal.write_line(f"next: {command('train', asked.recipe, *([] if size is None else ['--size', size]))}")


def _present(present: list[Task], missing: list[Task], errors: Terminal) -> list[Task]:
    if not present:
        raise SourceNotFoundError(
            "No table of any task is there", found=", ".join(task.file.table for task in missing),
            expected="at least one", fix="name their folder with --data-folder",
        )  # fmt: skip
    for task in missing:
        errors.write_line(f"note: {task.name} is left out: its table {task.file.table} is not there")
    return present


def _list(terminal: Terminal, tasks: list[Task], missing: list[Task]) -> None:
    for cluster in sorted({task.file.cluster for task in tasks}):
        terminal.write_line(cluster)
        for task in (task for task in tasks if task.file.cluster == cluster):
            turned = len(task.templates) - len(task.straight)
            facts = [
                f"{len(task.templates)} templates, {turned} turned around",
                task.file.license or "no license",
            ]
            facts += ["evaluation only"] if task.file.evaluation_only else []
            facts += ["its table is not there"] if task in missing else []
            terminal.write_line(f"  {task.name:<28} {'; '.join(facts)}")


def _show(terminal: Terminal, settings: Settings, tasks: list[Task]) -> None:
    for task, conversations in samples(settings, tasks):
        for conversation in conversations:
            facts = conversation.metadata
            terminal.write_line(
                f"== {task.name} ({task.file.cluster}), {conversation.address}, template {facts['template']}, "
                f"{facts['form']}"
            )
            for message in conversation.messages:
                terminal.write_line(f"[{message.role}]")
                terminal.write_line(message.content or "")
            terminal.write_line("")


def _report(terminal: Terminal, made: Made, out: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({**made.curated.funnel.as_dict(), **made.manifest, "notes": list(made.curated.notes)})
        return
    for note in made.curated.notes:
        terminal.write_line(f"note: {note}")
    for name, facts in made.manifest["trained"].items():
        forms = ", ".join(f"{count:,} {form}" for form, count in facts["forms"].items())
        terminal.write_line(f"{name:<28} {facts['rows_out']:>7,} rows: {forms}")
    for line in made.curated.funnel.lines():
        terminal.write_line(line)
    for one in made.held_out:
        terminal.write_line(
            f"held out: {one.task.name}, {len(one.conversations):,} of {one.rows:,} rows, judged by {one.kind}"
        )
    files = ", ".join(map(str, made.curated.files.values()))
    terminal.write_line(f"{files}; what was done: {out / CARD}; of which tasks: {out / MANIFEST}")
    if (out / PAGE).exists():
        terminal.write_line(f"{out / PAGE}: steps, rows and findings, to look at in a browser")
    if made.held_out:
        terminal.write_line(f"evaluation items: {out / EVALUATION}; the same rows as conversations: {out / HELD_OUT}")


add_generators(synthesize)

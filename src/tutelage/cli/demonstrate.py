"""`demonstrate`: people write the replies that a model is to learn, on a page of this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from markupsafe import Markup

from tutelage.annotate.asked import AskedPrompts, asked_prompts
from tutelage.annotate.consistency import consistency_of, notes_on
from tutelage.annotate.drafting import Drafting
from tutelage.annotate.events import FILE_NAME, EventLog
from tutelage.annotate.exports import FOLDER, Form, write_export
from tutelage.annotate.guidelines import read_guidelines
from tutelage.annotate.out_folder import ADDRESS, make_out_folder
from tutelage.annotate.pages import WritingPages
from tutelage.annotate.rows import ROWS, write_rows
from tutelage.annotate.workspace import Workspace
from tutelage.cli.data_options import AsJson, Columns, Shape, columns_from, shape_from
from tutelage.cli.endpoint_options import key_option, url_option
from tutelage.cli.generate_rows import local_generator
from tutelage.errors import ConfigError, command
from tutelage.formats.names import nearest
from tutelage.ledger import Ledger
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.runs.lock import locked
from tutelage.synthesize.endpoint import EndpointGenerator
from tutelage.system.chat_client import Budget
from tutelage.system.chat_endpoint import Endpoint, SettingNames, endpoint_url, key_from_environment
from tutelage.system.page_server import serve_pages

DRAFT = "With --draft"
NAMES = SettingNames(model="--draft", answer_tokens="the limit of a draft")
ASK_SECONDS, RETRIES = 120.0, 2
OPEN_IT = "Open this address in browsers on this machine (Ctrl-C ends; nothing is lost):\n{url}"

Prompts = Annotated[
    list[str], typer.Argument(help="Files, folders or a data set with prompts; replies may be there or not.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for all that is written; train takes it.")]
Guidelines = Annotated[
    Path | None, typer.Option("--guidelines", metavar="FILE", help="Markdown or text that stands beside each prompt.")
]
Overlap = Annotated[int, typer.Option("--overlap", min=1, help="So many people write about one prompt.")]
OverlapShare = Annotated[
    float, typer.Option("--overlap-share", min=0.0, max=1.0, help="Of the prompts, the share that --overlap holds for.")
]
Port = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Of the page; default: the last one's.")]
Draft = Annotated[
    str | None,
    typer.Option("--draft", metavar="MODEL", help="Drafts a reply where a person asks for one; with --endpoint there."),
]
Url = Annotated[str | None, url_option(DRAFT)]
KeyEnv = Annotated[str | None, key_option(DRAFT)]
Export = Annotated[
    list[str] | None,
    typer.Option("--export", metavar="FORM", help=f"Also write OUT/{FOLDER}/FORM: {', '.join(get_args(Form))}."),
]
NoPage = Annotated[bool, typer.Option("--no-page", help="Serve nothing: write the rows anew, and show progress.")]
MaxRows = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Read so many rows of prompts.")]


def demonstrate(
    prompts: Prompts,
    *,
    out: Out = None,
    guidelines: Guidelines = None,
    overlap: Overlap = 1,
    overlap_share: OverlapShare = 1.0,
    port: Port = None,
    no_page: NoPage = False,
    export: Export = None,
    draft: Draft = None,
    endpoint: Url = None,
    key_env: KeyEnv = None,
    limit: MaxRows = None,
    shape: Shape = "auto",
    columns: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Have people write and revise the replies to prompts, on a page of this machine.

    Each gives a name; two get the same prompt only with --overlap. What is typed is kept as it is typed, and
    what is submitted is a row in OUT. The same command goes on.

    Try: tutelage demonstrate prompts.jsonl -o demonstrations --guidelines rules.md
    Then: tutelage train RECIPE 'data.train=["demonstrations"]'
    """
    if out is None:
        raise ConfigError("The demonstrations need a place", found="no -o", expected="a folder", fix="add -o FOLDER")
    forms = [_form(name) for name in export or ()]
    beside = Markup() if guidelines is None else read_guidelines(guidelines)
    errors = Terminal(stderr=True)
    drafting = _drafting(draft, endpoint, key_env, errors)
    ledger = Ledger()
    asked = asked_prompts(
        prompts, ledger=ledger, shape=shape_from(shape), columns=columns_from(columns), max_rows=limit
    )
    _tell_prompts(asked, ledger, errors)
    make_out_folder(out, (FILE_NAME,))
    with locked(out, log=errors.write_line):
        log = EventLog.open(out)
        workspace = Workspace(asked.prompts, log, overlap, overlap_share)
        _tell_damage(workspace, errors)
        if not no_page:
            pages = WritingPages(workspace, out, beside, drafting)
            serve_pages(
                pages,
                pages.finished,
                port=port,
                announce=lambda url: errors.write_line(OPEN_IT.format(url=url)),
                remembered=out / ADDRESS,
            )
        rows = write_rows(out, workspace)
        for form in forms:
            path, exported = write_export(out, workspace, form)
            left_out = ", ".join(f"{count} left out: {why}" for why, count in exported.left_out.items())
            errors.write_line(f"{path}: {exported.rows} rows{'; ' if left_out else ''}{left_out}")
    _show(workspace, rows, out, as_json=as_json)


def _drafting(model: str | None, url: str | None, key_env: str | None, errors: Terminal) -> Drafting | None:
    """The model that drafts; None where none is named.

    Raises:
        ConfigError: an endpoint without a model.
        TutelageError: the model is not there, or cannot be used.
    """
    if model is None:
        if url is not None:
            raise ConfigError("--endpoint needs a model there", found="no --draft", fix="add --draft NAME")
        return None
    if url is None:
        return Drafting(local_generator(model))
    key = key_from_environment(key_env, NAMES)
    endpoint = Endpoint(endpoint_url(url, NAMES), model.strip(), key, ASK_SECONDS, names=NAMES)
    return Drafting(EndpointGenerator(endpoint, Budget(names=NAMES), 1, RETRIES, log=errors.write_line))


def _form(name: str) -> Form:
    """A form of an export.

    Raises:
        ConfigError: there is none of this name.
    """
    for form in get_args(Form):
        if name == form:
            return cast(Form, form)
    raise ConfigError(
        f"There is no form '{name}' to export",
        where="--export",
        found=name + nearest(name, get_args(Form)),
        expected=", ".join(get_args(Form)),
        fix="name one of them",
    )


def _tell_prompts(asked: AskedPrompts, ledger: Ledger, errors: Terminal) -> None:
    for note in ledger.notes:
        errors.write_line(f"note: {note}")
    for reason, count in ledger.as_dict()["dropped"].items():
        errors.write_line(f"note: {count:,} rows are left out: {reason}")
    if asked.repeated:
        errors.write_line(f"note: {asked.repeated:,} rows have the prompt of another row, which is asked once")


def _tell_damage(workspace: Workspace, errors: Terminal) -> None:
    if workspace.log.damaged:
        lines = ", ".join(map(str, workspace.log.damaged[:5]))
        errors.write_line(
            f"note: {len(workspace.log.damaged)} lines of {workspace.log.path} cannot be read ({lines}); "
            "a process that was killed may leave one half line"
        )
    if workspace.lost:
        errors.write_line(f"note: {workspace.lost} events stand on such a line, and are passed over")


def _show(workspace: Workspace, rows: int, out: Path, *, as_json: bool) -> None:
    people = {
        name: {what: workspace.count(name, what) for what in ("submit", "skip", "flag")}
        | {"median_seconds": workspace.median_seconds(name)}
        for name in workspace.people
    }
    if as_json:
        agreement = asdict(consistency_of(workspace))
        print_json({"rows": rows, "left": workspace.left(), "people": people, "agreement": agreement})
        return
    terminal = Terminal()
    for name, counts in people.items():
        terminal.write_line(f"{name}: {counts['submit']} written, {counts['skip']} skipped, {counts['flag']} flagged")
    terminal.write_line(f"{rows} demonstrations, {workspace.left()} to write: {out / ROWS}")
    for note in notes_on(consistency_of(workspace)):
        terminal.write_line(note)
    if rows:
        terminal.write_line(f'To train on them: {command("train", "RECIPE", f"""data.train=["{out}"]""")}')

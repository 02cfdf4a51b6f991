"""`compare`: which of two replies to one prompt is better, said by who does not know whose they are."""

from __future__ import annotations

import getpass
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer
from rich.text import Text

from tutelage.cli.keys import reading_keys
from tutelage.cli.run_options import AsJson
from tutelage.errors import ConfigError, DataError, cause_of
from tutelage.evaluate.pairwise.pairs import Pairing, Replies, pair_replies, told
from tutelage.evaluate.pairwise.rating import Rating
from tutelage.evaluate.pairwise.reply_files import read_reply_file
from tutelage.evaluate.pairwise.results import result_of
from tutelage.evaluate.pairwise.summary import notes, table, title
from tutelage.evaluate.pairwise.terminal import rate_in_terminal
from tutelage.evaluate.pairwise.verdicts import VerdictFile
from tutelage.report.console.measures import Drawn
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.runs import folder as run_files

FOLDER = "comparisons"
By: TypeAlias = Literal["terminal", "browser", "judge", "results"]
Only: TypeAlias = Literal["all", "task", "general"]
LONGEST_NAME = 60

A = Annotated[str, typer.Argument(help="A run, or a file of JSON lines with a prompt and a reply each.")]
B = Annotated[str | None, typer.Argument(help="Another; left out, A is a run, and its model from before is A.")]
Base = Annotated[bool, typer.Option("--base", help="Of the run A take the model that it started from.")]
Way = Annotated[
    By | None,
    typer.Option("--by", help="Who says what is better; default: you in this terminal, or without one the results."),
]
Rater = Annotated[str | None, typer.Option("--rater", metavar="NAME", help="Whose verdicts these are. (default: you)")]
Folder = Annotated[
    Path | None, typer.Option("--folder", help=f"Where verdicts are kept. (default: {FOLDER}/NAME_OF_A-NAME_OF_B)")
]
Questions = Annotated[Only, typer.Option("--only", help="Of runs: replies to the task, or to the general set.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="So many pairs, drawn from all.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the order of pairs and of the sides.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many pairs, requests and tokens; ask nothing.")]


def compare(
    a: A,
    b: B = None,
    *,
    base: Base = False,
    by: Way = None,
    rater: Rater = None,
    folder: Folder = None,
    only: Questions = "all",
    limit: Limit = None,
    seed: Seed = 0,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compare replies in pairs, blind: how often does B win, and can so many pairs show it?

    RUN alone compares its model before training with that after it. Verdicts are kept line by line; the same command
    goes on where it was left, and adds other raters.

    Try: tutelage compare runs/quickstart --only general
    """
    pairing = _pairing(a, b, base=base, only=only, seed=seed, limit=limit)
    target = folder or Path(FOLDER) / _folder_name(a, b)
    errors = Terminal(stderr=True)
    for side, alone in (("A", pairing.alone_a), ("B", pairing.alone_b)):
        if alone:
            errors.write_line(f"note: without a partner, of {side}: {told(alone)}")
    verdicts = VerdictFile.open(target)
    if verdicts.damaged:
        errors.write_line(
            f"note: {verdicts.path} has lines that cannot be read: {told([str(n) for n in verdicts.damaged])}"
        )
    is_interactive = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    way: By = by or ("terminal" if is_interactive else "results")
    if dry_run:
        _dry_run(pairing, as_json=as_json)
        return
    if way == "terminal":
        session = Rating(pairing.pairs, verdicts, _rater_name(rater), seed)
        with reading_keys() as read_key:
            rate_in_terminal(session, Terminal(stderr=as_json), read_key)
    _show(pairing, verdicts, as_json=as_json)


def _show(pairing: Pairing, verdicts: VerdictFile, *, as_json: bool) -> None:
    result = result_of(pairing, verdicts)
    if as_json:
        print_json(asdict(result))
        return
    out = Terminal()
    if not result.raters:
        out.write_line(f"{len(pairing.pairs)} pairs, and no verdict yet in {verdicts.path.parent}")
        return
    out.print(Drawn(table(result), title=title(result)))
    for note in notes(result):
        out.print(Text(note, style="dim"))
    out.write_line(f"Verdicts: {verdicts.path}")


def _dry_run(pairing: Pairing, *, as_json: bool) -> None:
    identical = sum(pair.is_identical for pair in pairing.pairs)
    if as_json:
        print_json({"pairs": len(pairing.pairs), "identical": identical})
        return
    Terminal().print(Text(f"{len(pairing.pairs)} pairs, {identical} of them with one reply twice"))


def _pairing(a: str, b: str | None, *, base: bool, only: Only, seed: int, limit: int | None) -> Pairing:
    """Read both.

    Raises:
        ConfigError: a file where a run is needed.
        TutelageError: of the kind that fits; see `read_reply_file`, `run_replies` and `pair_replies`.
    """
    if (b is None or base) and not _is_run(a):
        raise ConfigError(
            "--base is for runs" if base else "One file of replies has nothing to be compared with",
            where=a,
            found="no run",
            expected="a run, whose model is compared with what it was before; or two files",
            fix="give two: tutelage compare A B",
        )
    first = _replies(a, name=_name(a, b), only=only, before=base or b is None)
    second = _replies(a, name=_name(a, b), only=only) if b is None else _replies(b, name=_name(b, a), only=only)
    if first.name == second.name:
        second = replace(second, name=f"{second.name} (second)")
    pairing = pair_replies(first, second, seed=seed)
    return pairing if limit is None else replace(pairing, pairs=pairing.pairs[:limit])


def _replies(source: str, *, name: str, only: Only, before: bool = False) -> Replies:
    if not _is_run(source):
        return read_reply_file(Path(source), name=name)
    from tutelage.builders.run_replies import run_replies

    when: Literal["before", "after"] = "before" if before else "after"
    return run_replies(run_files.existing_run_folder(source), when, questions=only, name=f"{name} {when}")


def _is_run(source: str) -> bool:
    try:
        return Path(source).is_dir()
    except (OSError, ValueError) as error:
        raise DataError(
            "This cannot be looked at", where=source, found=cause_of(error), fix="check the name"
        ) from error


def _name(source: str, beside: str | None) -> str:
    """The last part of the path, or all of it where the other has the same."""
    path = Path(source)
    short = path.resolve().name if path.is_dir() else path.stem
    is_same = beside is not None and Path(beside).stem == path.stem
    return source if is_same else short


def _folder_name(a: str, b: str | None) -> str:
    names = "-".join(_name(source, None) for source in (a, b) if source is not None)
    return re.sub(r"[^\w.-]+", "_", names)[:LONGEST_NAME]


def _rater_name(rater: str | None) -> str:
    """The name given, else that of the user.

    Raises:
        ConfigError: it is empty, or the user has none.
    """
    try:
        name = getpass.getuser() if rater is None else rater.strip()
    except (KeyError, OSError):  # of a user id without an entry; KeyError until Python 3.12
        name = ""
    if not name:
        raise ConfigError("The rater needs a name", expected="a name", fix="--rater NAME")
    return name

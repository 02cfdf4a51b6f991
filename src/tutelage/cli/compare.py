"""`compare`: which of two replies to one prompt is better, said by who does not know whose they are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer
from rich.text import Text

from tutelage.cli.compare_checkpoints import compare_checkpoints
from tutelage.cli.endpoint_options import key_option, url_option
from tutelage.cli.raters import By, Raters, judge_endpoint
from tutelage.cli.run_options import AsJson
from tutelage.config.sections import LARGEST_COUNT
from tutelage.errors import ConfigError, DataError, cause_of
from tutelage.evaluate.pairwise.judge import cost_of, judge_tasks
from tutelage.evaluate.pairwise.page import comparison_page
from tutelage.evaluate.pairwise.pairs import Pairing, Replies, pair_replies, told
from tutelage.evaluate.pairwise.reply_files import read_reply_file
from tutelage.evaluate.pairwise.results import result_of
from tutelage.evaluate.pairwise.summary import notes, table, title
from tutelage.evaluate.pairwise.verdicts import VerdictFile
from tutelage.report.console.measures import Drawn
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.report.html.comparison_page import write_comparison
from tutelage.report.html.rows_page import require_page_target
from tutelage.runs import folder as run_files
from tutelage.system.chat_client import Budget
from tutelage.system.chat_endpoint import Endpoint

FOLDER = "comparisons"
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
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="So many pairs, drawn from all; of checkpoints 50.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the order of pairs and of the sides.")]
JUDGE = "With --by judge"
Url = Annotated[str | None, url_option(JUDGE)]
JudgeModel = Annotated[
    str | None, typer.Option("--model", metavar="NAME", rich_help_panel=JUDGE, help="The judge's name there.")
]
KeyEnv = Annotated[str | None, key_option(JUDGE)]
MaxRequests = Annotated[
    int | None,
    typer.Option("--max-requests", min=1, rich_help_panel=JUDGE, help="Send no more, repeated ones included."),
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, rich_help_panel=JUDGE, help="Spend no more, prompts and answers together."),
]
AnswerTokens = Annotated[
    int,
    typer.Option(
        "--answer-tokens", min=1, max=LARGEST_COUNT, rich_help_panel=JUDGE, help="Longest answer, reasoning included."
    ),
]
Parallel = Annotated[int, typer.Option("--parallel", min=1, max=64, rich_help_panel=JUDGE, help="Requests at once.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.1, max=3600.0, rich_help_panel=JUDGE, help="Seconds that one request may take."),
]
Retries = Annotated[
    int,
    typer.Option(
        "--retries", min=0, max=20, rich_help_panel=JUDGE, help="How often one that came to nothing is repeated."
    ),
]
Port = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="With --by browser: of the page; 0 takes a free one.")
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the results and the pairs as one offline page.")
]
OfCheckpoints = Annotated[
    bool, typer.Option("--checkpoints", help="Compare the checkpoints of RUN on its held-out rows.")
]
Choose = Annotated[
    bool, typer.Option("--choose", help="With --checkpoints: RUN ends with the one that is shown to be preferred.")
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option("--max-new-tokens", min=1, max=100_000, help="With --checkpoints: longest reply. (default: of RUN)"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many pairs, requests and tokens; ask nothing.")]


def compare(
    a: A, b: B = None, *, base: Base = False, by: Way = None, rater: Rater = None, folder: Folder = None,
    only: Questions = "all", limit: Limit = None, seed: Seed = 0, port: Port = 0, html: Html = None,
    dry_run: DryRun = False, as_json: AsJson = False, checkpoints: OfCheckpoints = False, choose: Choose = False,
    max_new_tokens: MaxNewTokens = None, endpoint: Url = None, model: JudgeModel = None, key_env: KeyEnv = None,
    max_requests: MaxRequests = None, max_tokens: MaxTokens = None, answer_tokens: AnswerTokens = 512,
    parallel: Parallel = 4, timeout: Timeout = 60.0, retries: Retries = 4,
) -> None:  # fmt: skip
    """Compare replies in pairs, blind: how often does B win, and can so many pairs show it?

    RUN alone compares its model before training with that after it; RUN --checkpoints compares its checkpoints.
    You rate, in this terminal or --by browser; --by judge asks a model.
    The same command goes on where it was left, and adds other raters.

    Try: tutelage compare runs/quickstart --only general
    Or: tutelage compare old.jsonl new.jsonl --by browser --rater anna
    Or: tutelage compare runs/lima --checkpoints --choose --by judge --endpoint URL --model NAME
    """
    judge = None
    if by == "judge":
        judge = judge_endpoint(endpoint, model, key_env, timeout, answer_tokens)
    else:  # of checkpoints, the name of a judge alone says whose word decides
        named = {"--endpoint": endpoint is not None, "--model": model is not None and not checkpoints}
        _refuse(named, "is for a judge", fix="add --by judge, or leave {} out")
    if html is not None:
        require_page_target(html)
    raters = Raters(by, rater, seed, port, judge, Budget(max_requests, max_tokens), retries, parallel, as_json)
    if checkpoints:
        _refuse({"B": b is not None, "--only": only != "all", "--html": html is not None}, "is not for checkpoints")
        asked = (folder or Path(FOLDER) / f"{_folder_name(a, None)}-checkpoints", limit, max_new_tokens)
        compare_checkpoints(a, raters, *asked, base=base, choose=choose, dry_run=dry_run, decides=model)
        return
    _refuse({"--choose": choose, "--max-new-tokens": max_new_tokens is not None}, "goes with --checkpoints")
    errors = Terminal(stderr=True)
    pairing = _pairing(a, b, base=base, only=only, seed=seed, limit=limit)
    verdicts = _verdicts(pairing, folder or Path(FOLDER) / _folder_name(a, b), errors)
    if dry_run:
        _dry_run(pairing, verdicts, judge, as_json=as_json)
        return
    raters.ask(pairing, verdicts, errors)
    _show(pairing, verdicts, html, as_json=as_json)


def _refuse(given: Mapping[str, bool], why: str, *, fix: str = "leave {} out; see tutelage compare --help") -> None:
    """Refuse the first of the options that was given though it has nothing to say.

    Raises:
        ConfigError: one was.
    """
    for option, is_given in given.items():
        if is_given:
            raise ConfigError(f"{option} {why}", found=option, fix=fix.format(option))


def _verdicts(pairing: Pairing, folder: Path, errors: Terminal) -> VerdictFile:
    """The verdicts so far; what is wrong with them, or has no partner, is told."""
    for side, alone in (("A", pairing.alone_a), ("B", pairing.alone_b)):
        if alone:
            errors.write_line(f"note: without a partner, of {side}: {told(alone)}")
    verdicts = VerdictFile.open(folder)
    if verdicts.damaged:
        lines = told([str(number) for number in verdicts.damaged])
        errors.write_line(f"note: {verdicts.path} has lines that cannot be read: {lines}")
    return verdicts


def _show(pairing: Pairing, verdicts: VerdictFile, html: Path | None, *, as_json: bool) -> None:
    result = result_of(pairing, verdicts)
    if html is not None:
        write_comparison(html, comparison_page(pairing, verdicts, result))
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
    if html is not None:
        out.write_line(f"Page: {html}")


def _dry_run(pairing: Pairing, verdicts: VerdictFile, judge: Endpoint | None, *, as_json: bool) -> None:
    plan = {"pairs": len(pairing.pairs), "identical": sum(pair.is_identical for pair in pairing.pairs)}
    lines = [f"{plan['pairs']} pairs, {plan['identical']} of them with one reply twice"]
    if judge is not None:
        tasks = judge_tasks(pairing.pairs, judge.model)
        cost = cost_of(tasks, verdicts, answer_tokens=judge.answer_tokens)
        plan |= asdict(cost)
        lines.append(
            f"{cost.requests} requests to {judge.model} ({cost.known} verdicts are known): "
            f"at most {cost.most_tokens:,} tokens, if none is repeated; the prompts are about {cost.likely_tokens:,}"
        )
    if as_json:
        print_json(plan)
        return
    for line in lines:
        Terminal().write_line(line)


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
    is_same = beside not in (None, source) and Path(str(beside)).stem == path.stem
    return source if is_same else short


def _folder_name(a: str, b: str | None) -> str:
    names = "-".join(_name(source, None) for source in (a, b) if source is not None)
    return re.sub(r"[^\w.-]+", "_", names)[:LONGEST_NAME]

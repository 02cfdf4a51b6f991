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

from tutelage.cli.endpoint_options import key_option, url_option
from tutelage.cli.keys import reading_keys
from tutelage.cli.run_options import AsJson
from tutelage.config.sections import LARGEST_COUNT
from tutelage.errors import ConfigError, DataError, cause_of
from tutelage.evaluate.pairwise.browser import rate_in_browser
from tutelage.evaluate.pairwise.judge import cost_of, judge_pairs, judge_tasks
from tutelage.evaluate.pairwise.page import comparison_page
from tutelage.evaluate.pairwise.pairs import Pairing, Replies, pair_replies, told
from tutelage.evaluate.pairwise.rating import Rating
from tutelage.evaluate.pairwise.reply_files import read_reply_file
from tutelage.evaluate.pairwise.results import result_of
from tutelage.evaluate.pairwise.summary import notes, table, title
from tutelage.evaluate.pairwise.terminal import rate_in_terminal
from tutelage.evaluate.pairwise.verdicts import VerdictFile
from tutelage.report.console.measures import Drawn
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.report.html.comparison_page import write_comparison
from tutelage.report.html.rows_page import require_page_target
from tutelage.runs import folder as run_files
from tutelage.system.chat_client import Budget, Client
from tutelage.system.chat_endpoint import Endpoint, endpoint_url, key_from_environment, shows_key

FOLDER = "comparisons"
ADDRESS = "Open this address in a browser on this machine (Ctrl-C ends; nothing is lost):\n{url}"
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
    port: Port = 0,
    html: Html = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    endpoint: Url = None,
    model: JudgeModel = None,
    key_env: KeyEnv = None,
    max_requests: MaxRequests = None,
    max_tokens: MaxTokens = None,
    answer_tokens: AnswerTokens = 512,
    parallel: Parallel = 4,
    timeout: Timeout = 60.0,
    retries: Retries = 4,
) -> None:
    """Compare replies in pairs, blind: how often does B win, and can so many pairs show it?

    RUN alone compares its model before training with that after it.
    You rate, in this terminal or --by browser; --by judge asks a model.
    The same command goes on where it was left, and adds other raters.

    Try: tutelage compare runs/quickstart --only general
    Or: tutelage compare old.jsonl new.jsonl --by browser --rater anna
    """
    judge = None
    if by == "judge":
        judge = _judge_endpoint(endpoint, model, key_env, timeout, answer_tokens)
    elif given := [name for name, value in (("--endpoint", endpoint), ("--model", model)) if value is not None]:
        raise ConfigError(f"{given[0]} is for a judge", found=given[0], fix=f"add --by judge, or leave {given[0]} out")
    if html is not None:
        require_page_target(html)
    errors = Terminal(stderr=True)
    pairing = _pairing(a, b, base=base, only=only, seed=seed, limit=limit)
    verdicts = _verdicts(pairing, folder or Path(FOLDER) / _folder_name(a, b), errors)
    if dry_run:
        _dry_run(pairing, verdicts, judge, as_json=as_json)
        return
    if judge is not None:
        client = Client(judge, Budget(max_requests, max_tokens), retries, log=errors.write_line)
        ask_judge(pairing, verdicts, client, parallel, Screen(errors))
    elif by == "browser":
        rating = Rating(pairing.pairs, verdicts, rater_name(rater), seed)
        rate_in_browser(rating, port=port, announce=lambda url: errors.write_line(ADDRESS.format(url=url)))
    elif by == "terminal" or (by is None and sys.stdin.isatty() and sys.stdout.isatty() and not as_json):
        rating = Rating(pairing.pairs, verdicts, rater_name(rater), seed)
        with reading_keys() as read_key:
            rate_in_terminal(rating, Terminal(stderr=as_json), read_key)
    _show(pairing, verdicts, html, as_json=as_json)


def _judge_endpoint(
    url: str | None, model: str | None, key_env: str | None, timeout: float, answer_tokens: int
) -> Endpoint:
    """Where the judge answers.

    Raises:
        ConfigError: its URL or name is missing, or it or its key cannot be used.
    """
    if url is None or model is None or not model.strip():
        raise ConfigError(
            "A judge needs an endpoint and the name of a model there",
            found="no --endpoint" if url is None else "no --model",
            expected="any server that speaks the OpenAI API, here or elsewhere",
            fix="--by judge --endpoint http://127.0.0.1:8000/v1 --model NAME",
        )
    return Endpoint(endpoint_url(url), model.strip(), key_from_environment(key_env), timeout, answer_tokens)


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


def ask_judge(pairing: Pairing, verdicts: VerdictFile, client: Client, parallel: int, screen: Screen) -> None:
    """Have a judge say what is better, in both orders of each pair, and tell what came of it.

    Raises:
        EndpointError: the judge does not answer.
        SaveError: a verdict could not be saved.
        KeyboardInterrupt: Ctrl-C; what had been answered by then is saved.
    """
    if shows_key(client.endpoint):
        screen.log("note: the key travels unencrypted, as the endpoint is http and on another machine")
    orders = sum(2 for pair in pairing.pairs if not pair.is_identical)
    try:
        with screen.counting(f"Asking {client.endpoint.model} in both orders", orders) as done:
            report = judge_pairs(pairing.pairs, verdicts, client, parallel=parallel, done=done)
    except KeyboardInterrupt:
        screen.log(f"What was answered is kept in {verdicts.path}; the same command goes on.")
        raise
    spent = f"{client.budget.requests} requests, {client.budget.tokens:,} tokens"
    screen.log(f"{report.given} verdicts given now, {report.known} known before; {spent}")
    for reason, times in report.without.most_common():
        screen.log(f"no verdict, {times} times: {reason}")
    if report.ended is not None:
        screen.log(f"Not all was asked, as {report.ended}; the same command goes on.")


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


def rater_name(rater: str | None) -> str:
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

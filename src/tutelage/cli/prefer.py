"""`prefer`: two sampled replies of one model, and which of them is better; rows for DPO."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from tutelage.annotate.asked import AskedPrompt, asked_prompts
from tutelage.annotate.out_folder import make_out_folder
from tutelage.annotate.preference import (
    REPLIES,
    Preferences,
    Sampled,
    preferences_of,
    sample_pairs,
    write_preferences,
)
from tutelage.cli.data_options import AsJson, Columns, Shape, columns_from, shape_from
from tutelage.cli.endpoint_options import key_option, url_option
from tutelage.cli.generate_rows import local_generator
from tutelage.cli.keys import reading_keys
from tutelage.cli.raters import ask_judge, rater_name
from tutelage.errors import ConfigError, TutelageError, command
from tutelage.evaluate.pairwise.browser import rate_in_browser
from tutelage.evaluate.pairwise.rating import Rating
from tutelage.evaluate.pairwise.terminal import rate_in_terminal
from tutelage.evaluate.pairwise.verdicts import FILE_NAME, VerdictFile
from tutelage.ledger import Ledger
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.runs.lock import locked
from tutelage.synthesize.endpoint import EndpointGenerator
from tutelage.synthesize.generator import Generator, Sampling
from tutelage.synthesize.reply_book import ReplyBook
from tutelage.system.chat_client import Budget, Client
from tutelage.system.chat_endpoint import Endpoint, SettingNames, endpoint_url, key_from_environment, shows_key

OPEN_IT = "Open this address in a browser on this machine (Ctrl-C ends; nothing is lost):\n{url}"
By: TypeAlias = Literal["terminal", "browser", "judge", "results"]
AT_ENDPOINT, JUDGE = "With --endpoint: where MODEL is", "With --by judge"
NAMES = SettingNames(answer_tokens="--max-new-tokens")
JUDGE_NAMES = SettingNames(url="--judge-endpoint", model="--judge", key="--judge-key-env")
JUDGE_TOKENS, ASK_SECONDS, RETRIES = 512, 120.0, 4

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model of this machine, or with --endpoint its name there.")
]
Prompts = Annotated[list[str], typer.Argument(help="Files, folders or a data set with prompts.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the replies, the verdicts and the rows.")]
Way = Annotated[
    By | None,
    typer.Option("--by", help="Who says what is better; default: you in this terminal, or without one the results."),
]
Rater = Annotated[str | None, typer.Option("--rater", metavar="NAME", help="Whose verdicts these are. (default: you)")]
Limit = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Read so many rows of prompts.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.01, max=10.0, help="Of sampling.")]
TopP = Annotated[float, typer.Option("--top-p", min=0.01, max=1.0, help="Of sampling.")]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, max=100_000, help="A reply that is cut here is not taken.")
]
Draws = Annotated[int, typer.Option("--draws", min=2, max=64, help="Samples of a prompt until two of them differ.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of what is sampled, of the order and of the sides.")]
Template = Annotated[str | None, typer.Option("--template", help="Chat template of a local model; default: its own.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="With --by browser; 0 takes a free one.")]
Url = Annotated[str | None, url_option(AT_ENDPOINT)]
KeyEnv = Annotated[str | None, key_option(AT_ENDPOINT)]
JudgeUrl = Annotated[
    str | None,
    typer.Option(
        "--judge-endpoint", metavar="URL", rich_help_panel=JUDGE, help="Base URL of any OpenAI-compatible server."
    ),
]
JudgeName = Annotated[
    str | None, typer.Option("--judge", metavar="NAME", rich_help_panel=JUDGE, help="The judge's name there.")
]
JudgeKeyEnv = Annotated[
    str | None,
    typer.Option(
        "--judge-key-env", metavar="VARIABLE", rich_help_panel=JUDGE, help="Environment variable with its key."
    ),
]
MaxRequests = Annotated[
    int | None, typer.Option("--max-requests", min=1, help="Send no more this time, to either endpoint.")
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Spend no more this time, at either endpoint.")
]
Parallel = Annotated[int, typer.Option("--parallel", min=1, max=64, help="Requests at once, to an endpoint.")]


def prefer(
    model: ModelName, prompts: Prompts, *, out: Out = None, by: Way = None, rater: Rater = None, limit: Limit = None,
    temperature: Temperature = 1.0, top_p: TopP = 1.0, max_new_tokens: MaxNewTokens = 256, draws: Draws = 8,
    seed: Seed = 0, template: Template = None, port: Port = 0, shape: Shape = "auto", columns: Columns = None,
    as_json: AsJson = False, endpoint: Url = None, key_env: KeyEnv = None, judge_endpoint: JudgeUrl = None,
    judge: JudgeName = None, judge_key_env: JudgeKeyEnv = None, max_requests: MaxRequests = None,
    max_tokens: MaxTokens = None, parallel: Parallel = 4,
) -> None:  # fmt: skip
    """Sample two replies of MODEL to each prompt, and say which is better: rows for DPO.

    You choose, blind, in this terminal or --by browser; --by judge asks a model. The same command goes on
    where it was left, samples nothing twice, and adds other raters.

    Try: tutelage prefer smollm2-135m prompts.jsonl -o preferences -n 20
    """
    if out is None:
        raise ConfigError("The preferences need a place", found="no -o", expected="a folder", fix="add -o FOLDER")
    chooser = by or ("terminal" if sys.stdin.isatty() and sys.stdout.isatty() and not as_json else "results")
    name = rater_name(rater) if chooser in ("terminal", "browser") else ""
    budget, errors = Budget(max_requests, max_tokens), Terminal(stderr=True)
    client = _judge(chooser, judge_endpoint, judge, judge_key_env, budget, errors.write_line)
    ledger = Ledger()
    asked = asked_prompts(
        prompts, ledger=ledger, shape=shape_from(shape), columns=columns_from(columns), max_rows=limit
    )
    for note in ledger.notes:
        errors.write_line(f"note: {note}")
    make_out_folder(out, (REPLIES, FILE_NAME))
    with locked(out, log=errors.write_line):
        generator = (
            local_generator(model, template, seed)
            if endpoint is None
            else _remote(model, endpoint, key_env, budget, parallel, errors.write_line)
        )
        sampling = Sampling(temperature, top_p, 0.0, max_new_tokens)
        sampled = _sampled(asked.prompts, generator, sampling, out, errors, draws=draws, seed=seed)
        verdicts = VerdictFile.open(out)
        if sampled.pairing is not None:
            if client is not None:
                ask_judge(sampled.pairing, verdicts, client, parallel, Screen(errors))
            elif name:
                _ask(Rating(sampled.pairing.pairs, verdicts, name, seed), chooser, port, errors, as_json=as_json)
        preferences = preferences_of(sampled.pairing, verdicts)
        path = write_preferences(out, preferences)
    _show(sampled, preferences, path, as_json=as_json)


def _judge(
    chooser: By, url: str | None, name: str | None, key_env: str | None, budget: Budget, log: Callable[[str], None]
) -> Client | None:
    """Who judges; None where people do.

    Raises:
        ConfigError: a judge that cannot be asked, or one beside people.
    """
    if chooser != "judge":
        if given := [option for option, value in (("--judge-endpoint", url), ("--judge", name)) if value]:
            raise ConfigError(
                f"{given[0]} is for a judge", found=given[0], fix=f"add --by judge, or leave {given[0]} out"
            )
        return None
    if url is None or name is None or not name.strip():
        raise ConfigError(
            "A judge needs an endpoint and the name of a model there",
            found="no --judge-endpoint" if url is None else "no --judge",
            expected="any server that speaks the OpenAI API, here or elsewhere",
            fix="--by judge --judge-endpoint http://127.0.0.1:8000/v1 --judge NAME",
        )
    key = key_from_environment(key_env, JUDGE_NAMES)
    judge = Endpoint(endpoint_url(url, JUDGE_NAMES), name.strip(), key, ASK_SECONDS, JUDGE_TOKENS, names=JUDGE_NAMES)
    return Client(judge, budget, RETRIES, log=log)


def _remote(
    model: str, url: str, key_env: str | None, budget: Budget, parallel: int, log: Callable[[str], None]
) -> EndpointGenerator:
    endpoint = Endpoint(
        endpoint_url(url, NAMES), model.strip(), key_from_environment(key_env, NAMES), ASK_SECONDS, names=NAMES
    )
    if shows_key(endpoint):
        log("note: the key goes to another machine without encryption; https would hide it")
    return EndpointGenerator(endpoint, budget, parallel, RETRIES, log=log)


def _sampled(
    prompts: Sequence[AskedPrompt], generator: Generator, sampling: Sampling, out: Path, errors: Terminal, *,
    draws: int, seed: int,
) -> Sampled:  # fmt: skip
    # Weights of the same name may have changed: the replies of others are not taken for theirs.
    weights = getattr(generator, "sha256", lambda: "")()
    book = ReplyBook(out / REPLIES, generator)
    try:
        with Screen(errors).counting("Prompts with two replies", len(prompts)) as done:
            sampled = sample_pairs(
                prompts, book, sampling, identity=f"{weights[:16]}/{seed}", draws=draws, seed=seed, done=done
            )
    except (TutelageError, KeyboardInterrupt):
        errors.write_line(f"What was sampled is in {out / REPLIES}; to go on: {command(*sys.argv[1:])}")
        raise
    pairs = 0 if sampled.pairing is None else len(sampled.pairing.pairs)
    errors.write_line(f"{pairs} pairs; {book.asked} replies sampled now, {book.requests - book.asked} there before")
    for reason, count in sampled.unusable.most_common():
        errors.write_line(f"not taken, {count} times: {reason}")
    if sampled.without:
        errors.write_line(f"{sampled.without} prompts got no two replies that differ in {draws} draws (--draws)")
    if sampled.cannot_be_asked:
        errors.write_line(f"{sampled.cannot_be_asked} prompts with tools are left out")
    if sampled.ended is not None:
        errors.write_line(f"Not all was sampled, as {sampled.ended}; the same command goes on.")
    return sampled


def _ask(rating: Rating, chooser: By, port: int, errors: Terminal, *, as_json: bool) -> None:
    if chooser == "browser":
        rate_in_browser(rating, port=port, announce=lambda url: errors.write_line(OPEN_IT.format(url=url)))
        return
    with reading_keys() as read_key:
        rate_in_terminal(rating, Terminal(stderr=as_json), read_key)


def _show(sampled: Sampled, preferences: Preferences, path: Path, *, as_json: bool) -> None:
    counts = {
        "rows": len(preferences.rows),
        "ties": preferences.ties,
        "split": preferences.split,
        "without_verdict": preferences.unjudged,
        "without_pair": sampled.without + sampled.cannot_be_asked,
        "not_taken": dict(sampled.unusable),
    }
    if as_json:
        print_json(counts)
        return
    out = Terminal()
    out.write_line(f"{counts['rows']} rows for DPO: {path}")
    out.write_line(
        f"no row of {preferences.ties} ties, {preferences.split} pairs that raters were split on, and "
        f"{preferences.unjudged} without a verdict"
    )

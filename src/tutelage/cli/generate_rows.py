"""`synthesize self-instruct`, `alpaca` and `magpie`: rows that a model writes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli.data_options import AsJson
from tutelage.cli.endpoint_options import key_option, url_option
from tutelage.errors import ConfigError, DependencyError, TutelageError, command
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.report.html.synthesis_page import render_synthesis
from tutelage.synthesize import alpaca, magpie, self_instruct
from tutelage.synthesize.alpaca import Alpaca
from tutelage.synthesize.endpoint import EndpointGenerator
from tutelage.synthesize.generator import Generator, Request
from tutelage.synthesize.magpie import Magpie
from tutelage.synthesize.output import PAGE, REPLIES, REPORT, ROWS, Output
from tutelage.synthesize.recipes import rules_sha256
from tutelage.synthesize.reply_book import ReplyBook
from tutelage.synthesize.seeds import read_seeds
from tutelage.synthesize.self_instruct import SelfInstruct
from tutelage.synthesize.synthesis import Made, Method, synthesize_rows
from tutelage.system.chat_client import Budget, Prices
from tutelage.system.chat_endpoint import Endpoint, SettingNames, endpoint_url, key_from_environment, shows_key
from tutelage.system.seals import file_sha256

if TYPE_CHECKING:
    from tutelage.builders.local_generator import LocalGenerator

LARGEST_ROWS = 10_000_000
NAMES = SettingNames(most_cost="--max-cost", answer_tokens="the limit of its request")
AT_ENDPOINT = "With --endpoint"

Seeds = Annotated[
    Path,
    typer.Option("--seeds", metavar="FILE", help="Tasks that people wrote, as JSON lines: what the model is shown."),
]
ModelName = Annotated[
    str,
    typer.Option(
        "--model", metavar="NAME", help="A model, adapter or run of this machine, or with --endpoint its name there."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the rows, the replies and the report.")]
Rows = Annotated[int, typer.Option("--rows", min=1, max=LARGEST_ROWS, help="Stop once there are so many.")]
DrawSeed = Annotated[
    int, typer.Option("--seed", min=0, help="Of which examples are shown, and of a local model's draws.")
]
Changed = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE",
        help="Of a local model: model.precision=fp32, model.threads=2, evaluate.batch_prompts=8 and the like.",
    ),
]  # fmt: skip
Template = Annotated[str | None, typer.Option("--template", help="Chat template of a local model; default: its own.")]
Url = Annotated[str | None, url_option(AT_ENDPOINT)]
KeyEnv = Annotated[str | None, key_option(AT_ENDPOINT)]
MaxRequests = Annotated[
    int | None, typer.Option("--max-requests", min=1, rich_help_panel=AT_ENDPOINT, help="Send no more this time.")
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, rich_help_panel=AT_ENDPOINT, help="Spend no more this time, prompts included."),
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", min=0.0, rich_help_panel=AT_ENDPOINT, help="Spend no more this time, by --prices."),
]
PricesOption = Annotated[
    str | None,
    typer.Option(
        "--prices", metavar="PROMPT,ANSWER", rich_help_panel=AT_ENDPOINT,
        help="What a million tokens of prompts, and of answers, cost: 0.15,0.60.",
    ),
]  # fmt: skip
Parallel = Annotated[
    int, typer.Option("--parallel", min=1, max=64, rich_help_panel=AT_ENDPOINT, help="Requests at once.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, max=3600.0, rich_help_panel=AT_ENDPOINT, help="Seconds for one request.")
]
Retries = Annotated[
    int,
    typer.Option("--retries", min=0, max=20, rich_help_panel=AT_ENDPOINT, help="How often a failed one is repeated."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the first prompt; ask nothing, write nothing.")]


def add_generators(group: typer.Typer) -> None:
    """Add the three commands to the group `synthesize`."""
    group.command("self-instruct")(self_instruct_command)
    group.command("alpaca")(alpaca_command)
    group.command("magpie")(magpie_command)


def self_instruct_command(
    seeds: Seeds, model: ModelName, *, out: Out = None, rows: Rows = 1000, seed: DrawSeed = 0,
    template: Template = None, changed: Changed = None, endpoint: Url = None, key_env: KeyEnv = None,
    max_requests: MaxRequests = None, max_tokens: MaxTokens = None, max_cost: MaxCost = None,
    prices: PricesOption = None, parallel: Parallel = 4,
    timeout: Timeout = 120.0, retries: Retries = 4, dry_run: DryRun = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Make rows as Self-Instruct does: instructions, then whether each is a classification, then its instances.

    Shown are six seeds and two instructions it made before. The same command goes on where it was ended.

    Try: tutelage synthesize self-instruct --seeds seeds.jsonl --model smollm2-135m --dry-run
    """
    tasks = read_seeds(seeds)
    first = self_instruct.request(tasks, [], seed, 0)
    if dry_run:
        _show(first)
        return
    generator = _generator(
        model, endpoint, key_env, _budget(max_requests, max_tokens, max_cost, prices), template=template,
        changed=changed or [], seed=seed, asking=(parallel, timeout, retries),
    )  # fmt: skip
    _make(
        _asked(self_instruct.NAME, generator, seed, seeds, changed), generator, out, rows,
        lambda book, output: SelfInstruct(tasks, book, output, seed=seed), as_json=as_json,
    )  # fmt: skip


def alpaca_command(
    seeds: Seeds, model: ModelName, *, out: Out = None, rows: Rows = 1000, seed: DrawSeed = 0,
    template: Template = None, changed: Changed = None, endpoint: Url = None, key_env: KeyEnv = None,
    max_requests: MaxRequests = None, max_tokens: MaxTokens = None, max_cost: MaxCost = None,
    prices: PricesOption = None, parallel: Parallel = 4,
    timeout: Timeout = 120.0, retries: Retries = 4, dry_run: DryRun = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Make rows as Alpaca does: twenty whole tasks in one reply, three seeds shown.

    The same command goes on where it was ended.

    Try: tutelage synthesize alpaca --seeds seeds.jsonl --model smollm2-135m --dry-run
    """
    tasks = read_seeds(seeds)
    if dry_run:
        _show(alpaca.request(tasks, seed, 0))
        return
    generator = _generator(
        model, endpoint, key_env, _budget(max_requests, max_tokens, max_cost, prices), template=template,
        changed=changed or [], seed=seed, asking=(parallel, timeout, retries),
    )  # fmt: skip
    _make(
        _asked(alpaca.NAME, generator, seed, seeds, changed), generator, out, rows,
        lambda book, output: Alpaca(tasks, book, output, seed=seed), as_json=as_json,
    )  # fmt: skip


def magpie_command(
    model: ModelName, *, out: Out = None, rows: Rows = 1000, seed: DrawSeed = 0, template: Template = None,
    changed: Changed = None, dry_run: DryRun = False, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Make rows as Magpie does: the model writes the user's turn itself, then the reply. Without seeds.

    Only with a model of this machine: an endpoint for chats cannot be asked to go on in the user's turn.

    Try: tutelage synthesize magpie --model smollm2-135m --rows 8 -o magpie
    """
    generator = local_generator(model, template, seed, changed or [])
    if dry_run:
        terminal = Terminal()
        terminal.write_line("The model goes on from:")
        terminal.write_line(generator.bare_prefix_text)
        return
    _make(
        _asked(magpie.NAME, generator, seed, None, changed), generator, out, rows,
        lambda book, output: Magpie(book, output, seed=seed), as_json=as_json,
    )  # fmt: skip


def _generator(
    model: str, url: str | None, key_env: str | None, budget: Budget, *, template: str | None, changed: list[str],
    seed: int, asking: tuple[int, float, int],
) -> EndpointGenerator | LocalGenerator:  # fmt: skip
    if url is None:
        return local_generator(model, template, seed, changed)
    if changed:
        raise ConfigError(
            "An endpoint decides itself how its model is computed", where="--set", found=", ".join(changed),
            expected="no --set beside --endpoint", fix="leave it out",
        )  # fmt: skip
    parallel, timeout, retries = asking
    key = key_from_environment(key_env, NAMES)
    endpoint = Endpoint(endpoint_url(url, NAMES), model.strip(), key, timeout, names=NAMES)
    errors = Terminal(stderr=True)
    if shows_key(endpoint):
        errors.write_line("note: the key goes to another machine without encryption; https would hide it")
    return EndpointGenerator(endpoint, budget, parallel, retries, log=errors.write_line)


def local_generator(
    model: str, template: str | None = None, seed: int = 0, changed: Sequence[str] = ()
) -> LocalGenerator:
    """A model of this machine as a generator.

    Raises:
        DependencyError: the extra train is not there.
        TutelageError: the model is not there, or cannot be used.
    """
    try:
        from tutelage.builders.local_generator import LocalGenerator
    except ImportError as error:
        raise DependencyError(
            "A local model needs the extra train", found=str(error), fix="pip install 'tutelage[train]', or --endpoint"
        ) from error
    return LocalGenerator.open(model, template=template, seed=seed, overrides=changed)


def _budget(max_requests: int | None, max_tokens: int | None, max_cost: float | None, prices: str | None) -> Budget:
    """What may be spent.

    Raises:
        ConfigError: the prices are no two numbers, or there is a limit of cost without them.
    """
    known = Prices()
    if prices is not None:
        try:
            prompt, answer = (float(part) for part in prices.split(","))
        except ValueError:
            prompt = answer = -1.0
        if not (0 <= prompt < float("inf") and 0 <= answer < float("inf")):
            raise ConfigError(
                "These are no prices", where="--prices", found=prices, expected="two numbers from 0",
                fix="what a million tokens cost, of prompts and of answers: --prices 0.15,0.60",
            )  # fmt: skip
        known = Prices(prompt, answer)
    elif max_cost is not None:
        raise ConfigError(
            "A limit of cost needs prices", where="--max-cost", found="no --prices",
            fix="what a million tokens cost, of prompts and of answers: --prices 0.15,0.60",
        )  # fmt: skip
    return Budget(max_requests, max_tokens, max_cost, known, NAMES)


def _asked(
    method: str, generator: EndpointGenerator | LocalGenerator, seed: int, seeds: Path | None, changed: list[str] | None
) -> dict[str, Any]:
    """All that decides what is made."""
    asked: dict[str, Any] = {"method": method, "model": generator.name, "seed": seed, "rules": rules_sha256()}
    if seeds is not None:
        asked["seeds"] = file_sha256(seeds)
    if not isinstance(generator, EndpointGenerator):
        asked["weights"] = generator.sha256()
        asked |= {"settings": sorted(changed)} if changed else {}
    return asked


def _make(
    asked: Mapping[str, Any], generator: Generator, out: Path | None, rows: int,
    method: Callable[[ReplyBook, Output], Method], *, as_json: bool,
) -> None:  # fmt: skip
    if out is None:
        raise ConfigError("The rows need a place", found="no -o", expected="a folder", fix="add -o FOLDER")
    terminal, errors = Terminal(), Terminal(stderr=True)
    output = Output(out, asked)
    book = ReplyBook(out / REPLIES, generator)
    if book.known:
        errors.write_line(f"{len(book.known):,} replies are there already; they are not asked for again")
    try:
        with Screen(errors).counting("Rows", rows) as done:
            made = synthesize_rows(method(book, output), book, output, rows=rows, done=done, page=render_synthesis)
    except (TutelageError, KeyboardInterrupt):
        errors.write_line(f"{output.rows:,} rows are in {out / ROWS}; to go on: {command(*sys.argv[1:])}")
        raise
    if as_json:
        print_json({**made.report, "ended": made.ended})
        return
    _tell(terminal, made, out)


def _tell(terminal: Terminal, made: Made, out: Path) -> None:
    report, ledger = made.report, made.report["ledger"]
    terminal.write_line(f"{report['rows']:,} rows of {ledger['rows_in']:,} that the model wrote: {out / ROWS}")
    for reason, count in ledger["dropped"].items():
        terminal.write_line(f"  {reason:<26} {count:>8,}")
    per_thousand = report["rows_per_1000_tokens"]
    yielded = "" if per_thousand is None else f", {per_thousand:g} rows for 1,000 tokens"
    terminal.write_line(f"{report['requests']:,} requests, {report['tokens']:,} tokens{yielded}")
    words = ", ".join(f"{word} {count}" for word, count in report["opening_words"].items())
    terminal.write_line(f"first words ({report['distinct_opening_words']} different): {words}")
    terminal.write_line(f"report: {out / REPORT}; to look at in a browser: {out / PAGE}")
    if made.ended is not None:
        terminal.write_line(f"Ended early: {made.ended}. To go on: {command(*sys.argv[1:])}")


def _show(request: Request) -> None:
    terminal = Terminal()
    for message in request.messages:
        terminal.write_line(f"[{message['role']}]")
        terminal.write_line(message["content"])
    sampling = request.sampling
    terminal.write_line(
        f"\ntemperature {sampling.temperature:g}, top-p {sampling.top_p:g}, presence penalty "
        f"{sampling.presence_penalty:g}, at most {sampling.max_tokens:,} tokens"
    )

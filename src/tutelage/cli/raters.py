"""Who says which of two replies is better: a person in the terminal or on a page, or a judge."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tutelage.cli.keys import reading_keys
from tutelage.errors import ConfigError
from tutelage.evaluate.pairwise.browser import rate_in_browser
from tutelage.evaluate.pairwise.judge import judge_pairs
from tutelage.evaluate.pairwise.pairs import Pairing
from tutelage.evaluate.pairwise.rating import Rating
from tutelage.evaluate.pairwise.terminal import rate_in_terminal
from tutelage.evaluate.pairwise.verdicts import VerdictFile
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal
from tutelage.system.chat_client import Budget, Client
from tutelage.system.chat_endpoint import Endpoint, endpoint_url, key_from_environment, shows_key

ADDRESS = "Open this address in a browser on this machine (Ctrl-C ends; nothing is lost):\n{url}"
By: TypeAlias = Literal["terminal", "browser", "judge", "results"]


@dataclass(frozen=True, slots=True)
class Raters:
    """Who is asked, and how; `judge` is None where people are, or nobody is."""

    by: By | None
    rater: str | None
    seed: int
    port: int
    judge: Endpoint | None
    budget: Budget
    retries: int
    parallel: int
    as_json: bool

    def ask(self, pairing: Pairing, verdicts: VerdictFile, errors: Terminal) -> None:
        """Ask about the pairs; each verdict is kept as it is given.

        Raises:
            TutelageError: the judge does not answer, or a verdict could not be saved.
            KeyboardInterrupt: Ctrl-C; what was said by then is kept.
        """
        if self.judge is not None:
            client = Client(self.judge, self.budget, self.retries, log=errors.write_line)
            ask_judge(pairing, verdicts, client, self.parallel, Screen(errors))
        elif self.by == "browser":
            rating = Rating(pairing.pairs, verdicts, rater_name(self.rater), self.seed)
            rate_in_browser(rating, port=self.port, announce=lambda url: errors.write_line(ADDRESS.format(url=url)))
        elif self.by == "terminal" or (
            self.by is None and sys.stdin.isatty() and sys.stdout.isatty() and not self.as_json
        ):
            rating = Rating(pairing.pairs, verdicts, rater_name(self.rater), self.seed)
            with reading_keys() as read_key:
                rate_in_terminal(rating, Terminal(stderr=self.as_json), read_key)


def judge_endpoint(
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

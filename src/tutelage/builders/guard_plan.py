"""What `train --guard` will do, before anything is loaded: the split of the general set, and the candidates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.builders.dataset import general_files
from tutelage.builders.guard_candidates import Candidate, LeftOut, by_price, candidates_of, priced
from tutelage.config import Settings
from tutelage.errors import ConfigError, DataError
from tutelage.evaluate.choice_items import read_choices
from tutelage.evaluate.general import GeneralItem, read_general
from tutelage.evaluate.halves import Halves, halves_of, what_it_shows
from tutelage.evaluate.packaged_sets import PROBES

WHERE = "--guard"
FORGETTING = "forgetting"
SUFFIX = "-guard"
CHOICE_FILE, REPORT_FILE = "choice.jsonl", "report.jsonl"


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """A search among remedies: `candidates` are trained, in this order; `beyond` are more than are allowed."""

    limit: float
    settings: Settings
    sets: tuple[str, ...]
    halves: Halves
    candidates: tuple[Candidate, ...]
    beyond: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...]
    stops_at_first: bool = False

    @property
    def folder(self) -> Path:
        """Where the runs of the candidates are, beside the recipe's own."""
        own = self.settings.run_folder
        return own.with_name(own.name + SUFFIX)

    @property
    def choice_file(self) -> Path:
        """The half to choose by."""
        return self.folder / CHOICE_FILE

    @property
    def report_file(self) -> Path:
        """The half of the report."""
        return self.folder / REPORT_FILE

    @property
    def shows(self) -> tuple[str, str]:
        """What the items of either half can say."""
        halves = self.halves
        choice, report = (what_it_shows(len(half), self.limit) for half in (halves.choice, halves.report))
        return f"to choose by: {choice}", f"for the report: {report}"


def limit_of(text: str) -> float:
    """The limit that `forgetting=0.03` names.

    Raises:
        ConfigError: it names something else.
    """
    name, equals, value = text.partition("=")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if name.strip() == FORGETTING and equals and 0.0 <= limit < 1.0:
        return limit
    fix = f"try --guard {FORGETTING}=0.03, which is 3 points"
    if name.strip() == FORGETTING and 1.0 <= limit < 100.0:
        fix = f"did you mean --guard {FORGETTING}={limit / 100:g}, which is {limit:g} points?"
    raise ConfigError(
        "The guard cannot be set to this",
        where=WHERE,
        found=text,
        expected=f"{FORGETTING}= and the share of the general set that may be lost, from 0 to below 1",
        fix=fix,
    )


def plan_guard(
    settings: Settings, limit: float, *, runs: int, stops_at_first: bool, log: Callable[[str], None]
) -> GuardPlan:
    """Split the general set, name the candidates and price them.

    Args:
        settings: of the recipe; without evaluate.general the probes are its general set.
        limit: of what may be lost, from 0 to 1.
        runs: how many candidates are trained at most.
        stops_at_first: end with the first one within the limit.
        log: told what is slow.

    Raises:
        ConfigError: the recipe has nothing to choose the better one by.
        DataError: the general set cannot be split, or the base's replies to its prompts would be trained on.
        TutelageError: the data or the tokenizer cannot be used.
    """
    sets = tuple(settings.evaluate.general) or (PROBES,)
    if not settings.evaluate.task and not settings.holds_out:
        raise ConfigError(
            "Nothing would tell which candidate is the better one at the task",
            where=WHERE,
            found="neither evaluate.task nor rows that are held out",
            expected="a task to ask, or rows to measure loss on",
            fix="set evaluate.task, or data.validation_ratio = 0.1",
        )
    items = _items_of(sets, log)
    _require_untrained(settings, items)
    candidates, left_out = candidates_of(settings)
    log(f"Proving the data of {len(candidates)} candidates")
    ordered = by_price(priced(candidates))
    halves = halves_of(items, seed=settings.seed)
    trained, beyond = tuple(ordered[:runs]), tuple(ordered[runs:])
    return GuardPlan(limit, settings, sets, halves, trained, beyond, tuple(left_out), stops_at_first)


def _items_of(sets: tuple[str, ...], log: Callable[[str], None]) -> list[GeneralItem]:
    files = [file for name in sets for file in general_files(name)]
    items = [item for file in files for item in read_general(str(file.path), shown=file.display_name, unit=file.unit)]
    if choices := sum(len(read_choices(str(file.path), shown=file.display_name, unit=file.unit)) for file in files):
        log(f"  note: {choices} questions with choices take no part: the guard counts replies")
    if not items:
        raise ConfigError(
            "The guard has no reply to count",
            where=WHERE,
            found=f"only questions with choices in {', '.join(sets)}",
            expected="prompts with checks",
            fix='set evaluate.general = ["probes"]',
        )
    return items


def _require_untrained(settings: Settings, items: list[GeneralItem]) -> None:
    """Refuse prompts of the general set among those whose replies by the base are replayed."""
    asked = {item.prompt.strip() for item in items}
    for source in settings.data.self_replay:
        try:
            prompts = {item.prompt.strip() for item in read_general(source)}
        except (DataError, FileNotFoundError):  # rows without checks, which self-replay reads in another way
            continue
        if both := sorted(prompts & asked):
            raise DataError(
                "Prompts of the general set would be trained on",
                where="data.self_replay",
                found=f"{source} has {len(both)} of them, such as: {both[0][:80]}",
                expected="prompts that evaluate.general (without it, the probes) does not ask",
                fix="name another set in one of the two",
            )

"""Puts the page together: figures in, one HTML text out, written in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from tutelage.errors import SaveError, cause_of
from tutelage.report import numbers as figures
from tutelage.report.divergence import divergence_sentence
from tutelage.report.health import health_sentence
from tutelage.report.html.charts import drawable
from tutelage.report.html.compare import Comparison, compare
from tutelage.report.html.intermediate_charts import intermediate_figures
from tutelage.report.html.lost_items import LostItems, view_lost
from tutelage.report.html.offline import own_parts, require_free_or_own, script_json, template, write_in_one_move
from tutelage.report.html.run_charts import QUANTITIES, Figure, loss_figure, quantity_figure
from tutelage.report.html.scores import ScoreLine, gained_and_forgot, outcome, progress, score_lines
from tutelage.report.html.token_view import RowView, view_rows
from tutelage.report.likelihoods import likelihood_sentences
from tutelage.report.noise import noise_sentence
from tutelage.runs.curves import Evaluation, Step
from tutelage.runs.reading import LedgerCounts, LedgerSample, Result, RunFolder, load
from tutelage.runs.uncertainty import Uncertainty
from tutelage.runs.unchecked import unchecked_notes

FILE_NAME = "report.html"

EXAMPLES_OPEN = 6
MOST_EXAMPLES = 30
MOST_TABLE_STEPS = 80
REQUIRED_SAME = {"weights": "Weights in memory", "trained": "Trained, in fp32", "optimizer_state": "Optimizer state"}
"""The keys of `bytes` in result.json, and what the page calls them."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A named figure: its words, and the exact value where it is a number."""

    name: str
    text: str
    exact: str = ""


@dataclass(frozen=True, slots=True)
class TokenShare:
    """Trained and context tokens of the whole run; `share` of the trained ones, 0 to 1."""

    trained: int
    total: int
    so_far: bool

    @property
    def context(self) -> int:
        """Tokens that are only read."""
        return self.total - self.trained

    @property
    def share(self) -> float:
        """Trained tokens of all tokens."""
        return self.trained / self.total


@dataclass(frozen=True, slots=True)
class Reason:
    """Why rows were dropped or changed: how many, and some of them."""

    name: str
    rows: int
    samples: tuple[LedgerSample, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """The row ledger: in = kept + dropped, or by how much they miss."""

    rows_in: int
    rows_kept: int
    rows_dropped: int

    @property
    def missing(self) -> int:
        """Rows that the books cannot account for; 0 when they balance."""
        return self.rows_in - self.rows_kept - self.rows_dropped


@dataclass(frozen=True, slots=True)
class Page:
    """All that the template shows."""

    name: str
    sentence: str
    gained: tuple[str, ...]
    forgot: tuple[str, ...]
    notices: tuple[str, ...]
    lines: tuple[ScoreLine, ...]
    uncertainty: Uncertainty | None
    lost: LostItems | None
    divergence: str | None
    likelihoods: tuple[str, ...]
    unchecked: tuple[str, ...]
    noise: str | None
    health: str | None
    facts: tuple[Fact, ...]
    figures: tuple[Figure, ...]
    token_share: TokenShare | None
    table: tuple[tuple[Step | None, Evaluation | None], ...]
    steps_recorded: int
    ledger_counts: LedgerCounts | None
    balance: Balance | None
    dropped: tuple[Reason, ...]
    changed: tuple[Reason, ...]
    comparisons: tuple[Comparison, ...]
    examples_left_out: int
    rows: tuple[RowView, ...] | None
    rows_left_out: int
    origin: tuple[Fact, ...]
    hashes: tuple[Fact, ...]
    versions: tuple[Fact, ...]
    settings: str | None
    curation_page: str | None


def write(run: Path) -> Path:
    """Write `report.html` into a run folder from the files that are there; a run in progress will do.

    The page is put beside the old one and takes its place in one move, so a reader never meets half a page.

    Returns:
        The path of the page.

    Raises:
        SourceNotFoundError: `run` is not a folder.
        ConfigError: a file of that name is there that is no page of ours.
        SaveError: the page could not be written; an older page is untouched.
    """
    page = render(load(run))
    target = run / FILE_NAME
    try:
        require_free_or_own(target, fix=f"move {FILE_NAME} away, then ask for the report again")
        write_in_one_move(page, target)
    except OSError as error:
        raise SaveError(
            "The report could not be written",
            where=str(target),
            found=cause_of(error),
            expected="a run folder that can be written to, with room for about 400 KB",
            fix="see to room and to the right to write there, then ask for the report again",
        ) from error
    return target


def render(folder: RunFolder) -> str:
    """The page as text; the same folder gives the same text."""
    page = _page(folder)
    readings = {figure.key: figure.readings for figure in page.figures}
    return template("page.html").render(
        page=page,
        figures=figures,
        readings=script_json(readings),
        **own_parts(style=("page.css",), script=("page.js",)),
        drawing=Markup,
        examples_open=EXAMPLES_OPEN,
    )


def _page(folder: RunFolder) -> Page:
    result, steps, ledger_counts = folder.result, folder.steps or (), folder.ledger_counts
    lines = score_lines(result.before, result.after, result.uncertainty, result.likelihoods.heldout) if result else ()
    gained, forgot = gained_and_forgot(lines) if lines else ((), ())
    rows, rows_left_out = view_rows(folder.rows or ())
    comparisons = tuple(compare(example) for example in result.examples[:MOST_EXAMPLES]) if result else ()
    samples = ledger_counts.samples if ledger_counts else {}
    dropped = ledger_counts.dropped if ledger_counts else result.dropped if result else {}
    return Page(
        name=(result.name if result else None) or folder.folder_name,
        sentence=outcome(lines) or _progress(folder),
        gained=gained,
        forgot=forgot,
        notices=(*folder.notices, *_contradictions(result, ledger_counts)),
        lines=lines,
        uncertainty=result.uncertainty if result else None,
        lost=view_lost(result.transitions) if result else None,
        divergence=divergence_sentence(result.divergence) if result else None,
        likelihoods=likelihood_sentences(result.likelihoods.losses, result.likelihoods.choices) if result else (),
        unchecked=tuple(unchecked_notes(result.unchecked)) if result else (),
        noise=noise_sentence(result.noise) if result else None,
        health=health_sentence(result.before.health, result.after.health) if result else None,
        facts=_facts(result),
        figures=_figures(folder),
        token_share=_token_share(result, steps),
        table=_table(steps, folder.evaluations),
        steps_recorded=len(steps),
        ledger_counts=ledger_counts,
        balance=_balance(ledger_counts),
        dropped=_reasons(dropped, samples),
        changed=_reasons(ledger_counts.changed if ledger_counts else {}, samples),
        comparisons=comparisons,
        examples_left_out=len(result.examples) - len(comparisons) if result else 0,
        rows=None if folder.rows is None else rows,
        rows_left_out=rows_left_out,
        origin=_origin(result),
        hashes=_hashes(result),
        versions=tuple(Fact(name, text) for name, text in sorted(result.versions.items())) if result else (),
        settings=folder.settings,
        curation_page=folder.curation_page,
    )


def _progress(folder: RunFolder) -> str:
    steps = folder.steps or ()
    heldout = [evaluation.heldout_loss for evaluation in folder.evaluations if drawable(evaluation.heldout_loss)]
    return progress(folder.result, len(steps), steps[-1].loss if steps else None, min(heldout, default=None))


def _contradictions(result: Result | None, ledger_counts: LedgerCounts | None) -> list[str]:
    """Where two files, or a file and its own sums, do not agree."""
    messages = []
    if result and ledger_counts and result.dropped and result.dropped != ledger_counts.dropped:
        messages.append(
            "result.json and ledger.json count the dropped rows differently; the ledger's counts are shown."
        )
    if (
        ledger_counts
        and ledger_counts.rows_dropped is not None
        and sum(ledger_counts.dropped.values()) != ledger_counts.rows_dropped
    ):
        messages.append(
            f"ledger.json says {ledger_counts.rows_dropped:,} rows were dropped, but its reasons sum to "
            f"{sum(ledger_counts.dropped.values()):,}."
        )
    return messages


def _facts(result: Result | None) -> tuple[Fact, ...]:
    if result is None:
        return ()
    resumed = [Fact("Resumed", figures.times(result.resumed), figures.exact(result.resumed))] if result.resumed else []
    return (
        Fact("Time", figures.duration(result.elapsed_seconds), figures.exact(result.elapsed_seconds)),
        *resumed,
        Fact("Steps", figures.count(result.steps), figures.exact(result.steps)),
        Fact("Epochs", figures.significant(result.epochs), figures.exact(result.epochs)),
        Fact("Tokens per second", figures.count(result.tokens_per_second), figures.exact(result.tokens_per_second)),
        Fact("Peak memory", figures.byte_size(result.peak_bytes), figures.exact(result.peak_bytes)),
    )


def _figures(folder: RunFolder) -> tuple[Figure, ...]:
    steps = folder.steps or ()
    best_step = folder.result.best_step if folder.result else None
    drawn = [loss_figure(steps, folder.evaluations, best_step)]
    after = folder.result.gained_and_forgot if folder.result else None
    after_step = None
    if folder.result:
        steps_it_may_be = (folder.result.chosen_step, best_step, folder.result.steps)
        after_step = next((step for step in steps_it_may_be if step is not None), None)
    drawn += intermediate_figures(folder.measured, after, after_step)
    drawn += [quantity_figure(quantity, steps) for quantity in QUANTITIES]
    return tuple(figure for figure in drawn if figure is not None)


def _token_share(result: Result | None, steps: Sequence[Step]) -> TokenShare | None:
    """The result's counts; while there is none, the sums of the record."""
    if result and result.trained_tokens is not None and result.total_tokens:
        return TokenShare(result.trained_tokens, result.total_tokens, so_far=False)
    trained = sum(step.trained_tokens or 0 for step in steps)
    total = sum(step.tokens or 0 for step in steps)
    return TokenShare(trained, total, so_far=True) if total > 0 else None


def _table(
    steps: Sequence[Step], evaluations: Sequence[Evaluation]
) -> tuple[tuple[Step | None, Evaluation | None], ...]:
    """Evenly spread steps, the first and the last among them, and all evaluations as far as they fit."""
    by_step, by_evaluation = (
        {step.step: step for step in steps},
        {evaluation.step: evaluation for evaluation in evaluations},
    )
    table_steps = sorted({*_spread(list(by_step)), *_spread(list(by_evaluation))})
    return tuple((by_step.get(step), by_evaluation.get(step)) for step in table_steps)


def _spread(numbers: list[int]) -> list[int]:
    if len(numbers) <= MOST_TABLE_STEPS:
        return numbers
    last = len(numbers) - 1
    return [numbers[round(index * last / (MOST_TABLE_STEPS - 1))] for index in range(MOST_TABLE_STEPS)]


def _balance(ledger_counts: LedgerCounts | None) -> Balance | None:
    if (
        ledger_counts is None
        or ledger_counts.rows_in is None
        or ledger_counts.rows_kept is None
        or ledger_counts.rows_dropped is None
    ):
        return None
    return Balance(ledger_counts.rows_in, ledger_counts.rows_kept, ledger_counts.rows_dropped)


def _reasons(counts: dict[str, int], samples: dict[str, tuple[LedgerSample, ...]]) -> tuple[Reason, ...]:
    """Reasons, the most frequent first."""
    return tuple(
        Reason(name, rows, samples.get(name, ())) for name, rows in sorted(counts.items(), key=lambda item: -item[1])
    )


def _origin(result: Result | None) -> tuple[Fact, ...]:
    if result is None:
        return ()
    total, trainable = result.parameters.get("total"), result.parameters.get("trainable")
    share = f" ({figures.percent(trainable / total)})" if total and trainable is not None else ""
    stopped = {True: "yes", False: "no", None: figures.ABSENT}[result.stopped_early]
    if result.forgot_step is not None:
        stopped = f"yes, as it forgot too much after step {figures.count(result.forgot_step)}"
    return (
        Fact("Model", result.model or figures.ABSENT),
        Fact("Method", result.method or figures.ABSENT),
        Fact("Parameters", figures.count(total), figures.exact(total)),
        Fact("Trainable parameters", figures.count(trainable) + share, figures.exact(trainable)),
        *(
            Fact(label, figures.byte_size(result.held_bytes.get(key)), figures.exact(result.held_bytes.get(key)))
            for key, label in REQUIRED_SAME.items()
        ),
        Fact("Started", result.started or figures.ABSENT),
        Fact("Stopped early", stopped),
        Fact("Best step", figures.count(result.best_step), figures.exact(result.best_step)),
        *_chosen_step(result),
        Fact("Device", result.device or figures.ABSENT),
        Fact("Seed", figures.ABSENT if result.seed is None else str(result.seed), figures.exact(result.seed)),
        Fact("Commit", result.git_commit or figures.ABSENT),
    )


def _chosen_step(result: Result) -> tuple[Fact, ...]:
    if result.chosen_step is None:
        return ()
    return (Fact("Step chosen by preference", figures.count(result.chosen_step), figures.exact(result.chosen_step)),)


def _hashes(result: Result | None) -> tuple[Fact, ...]:
    if result is None:
        return ()
    return (
        Fact("settings", result.settings_sha256 or figures.ABSENT),
        Fact("chat template", result.template_sha256 or figures.ABSENT),
        *(Fact(file, sha256) for file, sha256 in result.data_sha256.items()),
    )

"""A run folder -> typed figures. What is missing or damaged is named in `notices`; nothing is guessed or mended."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tutelage.errors import SourceNotFoundError
from tutelage.runs.curves import Evaluation, MeasuredStep, Step, read_curves
from tutelage.runs.divergence import DivergenceMeasure, read_divergence
from tutelage.runs.fields import Fields
from tutelage.runs.folder import CURATION_PAGE, RECORD
from tutelage.runs.health import Health, read_health
from tutelage.runs.intermediate import IntermediateMeasure, read_intermediate
from tutelage.runs.likelihoods import Likelihoods, read_likelihoods
from tutelage.runs.metrics_log import record_path, recorded_lines
from tutelage.runs.noise import NoiseFloor, read_noise
from tutelage.runs.transitions import ItemTransitions, read_transitions
from tutelage.runs.uncertainty import Uncertainty, read_uncertainty
from tutelage.runs.unchecked import Unchecked, unchecked_by_phase
from tutelage.system.seals import OTHER_BYTES, SEAL, differing_files, unsealed, unsealed_line

MOST_NOTICES = 20
T = TypeVar("T")

RUN_FILES = {
    RECORD: "the figures of each step",
    "result.json": "the outcome, written when the run ends",
    "ledger.json": "which rows were kept and dropped",
    "rows.json": "rows with their trained tokens marked",
    "settings.toml": "the settings of the run",
}
"""The files of a run folder, and what each holds."""
LEDGER_HASHED_FILES = {"ledger.jsonl": "every dropped and changed row", "rows.json": RUN_FILES["rows.json"]}
"""Files whose hashes `ledger.json` has."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What was measured before or after training. Shares are from 0 to 1; None = not measured.

    `others` keeps figures that this version has no words for, under the names they came with.
    """

    exact_match: float | None
    valid_json: float | None
    heldout_loss: float | None
    general: float | None
    fields: dict[str, float | None]
    others: dict[str, float | None]
    scores: dict[str, float | None] = field(default_factory=dict)
    capabilities: dict[str, float | None] = field(default_factory=dict)
    health: Health = field(default_factory=dict)
    lm_eval: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One held-out row with the replies before and after training."""

    address: str
    prompt: str
    reference: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a run; None = the file does not say."""

    name: str | None
    model: str | None
    method: str | None
    started: str | None
    elapsed_seconds: float | None
    resumed: int | None
    """How often; the seconds are those of all its parts. None of a version that counted only the last one."""
    steps: int | None
    epochs: float | None
    stopped_early: bool | None
    best_step: int | None
    before: Scores
    after: Scores
    tokens_per_second: float | None
    trained_tokens: int | None
    total_tokens: int | None
    peak_bytes: float | None
    dropped: dict[str, int]
    examples: tuple[Sample, ...]
    parameters: dict[str, int]
    held_bytes: dict[str, int]
    device: str | None
    versions: dict[str, str]
    seed: int | None
    settings_sha256: str | None
    template_sha256: str | None
    data_sha256: dict[str, str]
    git_commit: str | None
    uncertainty: Uncertainty | None
    transitions: ItemTransitions | None
    divergence: dict[str, DivergenceMeasure]
    likelihoods: Likelihoods
    unchecked: dict[str, dict[str, Unchecked]]
    noise: NoiseFloor | None
    gained_and_forgot: IntermediateMeasure
    """After training, as it was measured on the way."""
    forgot_step: int | None
    """The step after which a run was stopped for what it forgot."""
    chosen_step: int | None
    """The step that people or a judge chose, with whose weights the run ends; None where nobody chose."""


@dataclass(frozen=True, slots=True)
class LedgerSample:
    """One row of data that stands for a reason: where it is, and what was seen there."""

    address: str
    detail: str


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """What the ledger counted."""

    rows_in: int | None
    rows_kept: int | None
    rows_dropped: int | None
    dropped: dict[str, int]
    changed: dict[str, int]
    notes: tuple[str, ...]
    samples: dict[str, tuple[LedgerSample, ...]]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a rendered row; `weight` scales its loss, 0 = context only."""

    text: str
    id: int | None
    weight: float
    stop: bool


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """One row as the model sees it."""

    address: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """All that a run has written so far. None = that file is missing or could not be read (`notices` says which)."""

    folder_name: str
    steps: tuple[Step, ...] | None
    evaluations: tuple[Evaluation, ...]
    measured: tuple[MeasuredStep, ...]
    result: Result | None
    ledger_counts: LedgerCounts | None
    rows: tuple[RenderedRow, ...] | None
    settings: str | None
    notices: tuple[str, ...]
    curation_page: str | None = None


def load(run: Path) -> RunFolder:
    """Read what is there of a run folder.

    Raises:
        SourceNotFoundError: `run` is not a folder.
    """
    if not run.is_dir():
        raise SourceNotFoundError(
            "There is no run folder to report on",
            where=str(run),
            found="a file" if run.exists() else "nothing",
            expected="the folder that a training run wrote",
            fix=f"give the folder that holds {RECORD} and result.json",
        )
    notices: list[str] = []
    record = _unless_missing(
        RECORD, notices, lambda: recorded_lines(record_path(run), decode=lambda text: _decoded(text, unsealed_line))
    )
    curves = None if record is None else read_curves(record, notices)
    result, ledger, rows = (_json(run, name, notices) for name in ("result.json", "ledger.json", "rows.json"))
    if "rows.json" in _damaged_ledger_files(run, ledger, notices):
        rows = None
    settings = _read(run, "settings.toml", notices)
    # Evaluated before the notices are counted, as reading adds to them.
    contents = (
        None if result is None else _result(Fields.of(result, "result.json", notices)),
        None if ledger is None else _ledger_counts(Fields.of(ledger, "ledger.json", notices)),
        None if rows is None else _rows(rows, notices),
    )
    if len(notices) > MOST_NOTICES:
        notices[MOST_NOTICES:] = [f"And {len(notices) - MOST_NOTICES} more of this kind."]
    return RunFolder(
        folder_name=run.resolve().name,
        steps=None if curves is None else curves.steps,
        evaluations=() if curves is None else curves.evaluations,
        measured=() if curves is None else curves.measured,
        result=contents[0],
        ledger_counts=contents[1],
        rows=contents[2],
        settings=None if settings is None else settings.decode("utf-8", errors="replace"),
        notices=tuple(notices),
        curation_page=CURATION_PAGE if (run / CURATION_PAGE).is_file() else None,
    )


def _read(run: Path, name: str, notices: list[str]) -> bytes | None:
    return _unless_missing(name, notices, (run / name).read_bytes)


def _unless_missing(name: str, notices: list[str], read: Callable[[], T]) -> T | None:
    try:
        return read()
    except FileNotFoundError:
        notices.append(f"{name} is not there yet ({RUN_FILES[name]}).")
    except OSError as error:
        notices.append(f"{name} could not be read: {error.strerror} ({RUN_FILES[name]}).")
    return None


def _json(run: Path, name: str, notices: list[str]) -> Any:
    content = _read(run, name, notices)
    try:
        return None if content is None else _decoded(content, unsealed)
    except ValueError as error:
        notices.append(f"{name} is not {error}, so it is left out ({RUN_FILES[name]}).")
        return None


def _decoded(content: bytes, unseal: Callable[[bytes], Any]) -> Any:
    """JSON with its seal or, as other programs write it, without; a ValueError says what it is not."""
    is_sealed = SEAL.encode() in content
    try:
        return unseal(content) if is_sealed else json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError("as it was written" if is_sealed else "whole JSON") from error


def _damaged_ledger_files(run: Path, ledger: Any, notices: list[str]) -> set[str]:
    """The files whose hashes differ from those in `ledger.json`."""
    hashes = ledger.get("sha256") if isinstance(ledger, dict) else None
    known_hashes = (
        {name: hashes[name] for name in LEDGER_HASHED_FILES if name in hashes} if isinstance(hashes, dict) else {}
    )
    # A file that is missing, or cannot be read, is named where it is read.
    damaged = {name for name, damage in differing_files(run, known_hashes).items() if damage == OTHER_BYTES}
    for name in sorted(damaged):
        notices.append(f"{name} is not as it was written, so it is left out ({LEDGER_HASHED_FILES[name]}).")
    return damaged


def _scores(fields: Fields) -> Scores:
    named_keys = {*Scores.__dataclass_fields__, "lm_eval_numbers"}
    return Scores(
        exact_match=fields.number("exact_match"),
        valid_json=fields.number("valid_json"),
        heldout_loss=fields.number("heldout_loss"),
        general=fields.number("general"),
        **{name: fields.inner(name).numbers() for name in ("fields", "scores", "capabilities", "lm_eval")},
        health=read_health(fields.inner("health")),
        others={key: fields.number(key) for key in fields.content if key not in named_keys}
        | fields.inner("lm_eval_numbers").numbers(),
    )


def _result(fields: Fields) -> Result:
    return Result(
        name=fields.text("name"),
        model=fields.text("model"),
        method=fields.text("method"),
        started=fields.text("started"),
        elapsed_seconds=fields.number("elapsed_seconds"),
        resumed=fields.integer("resumed"),
        steps=fields.integer("steps"),
        epochs=fields.number("epochs"),
        stopped_early=fields.flag("stopped_early"),
        best_step=fields.integer("best_step"),
        before=_scores(fields.inner("before")),
        after=_scores(fields.inner("after")),
        tokens_per_second=fields.number("tokens_per_second"),
        trained_tokens=fields.integer("trained_tokens"),
        total_tokens=fields.integer("total_tokens"),
        peak_bytes=fields.number("peak_bytes"),
        dropped=fields.inner("dropped").counts(),
        examples=tuple(_sample(field) for field in fields.items("examples")),
        parameters=fields.inner("parameters").counts(),
        held_bytes=fields.inner("bytes").counts(),
        device=fields.text("device"),
        versions=fields.inner("versions").texts(),
        seed=fields.integer("seed"),
        settings_sha256=fields.text("settings_sha256"),
        template_sha256=fields.text("template_sha256"),
        data_sha256=fields.inner("data_sha256").texts(),
        git_commit=fields.text("git_commit"),
        uncertainty=read_uncertainty(fields.inner("uncertainty")),
        transitions=read_transitions(fields.inner("transitions")),
        divergence=read_divergence(fields.inner("divergence")),
        likelihoods=read_likelihoods(fields),
        unchecked=unchecked_by_phase(fields),
        noise=read_noise(fields.inner("noise")),
        gained_and_forgot=read_intermediate(fields.inner("gained_and_forgot")),
        forgot_step=fields.integer("forgot_step"),
        chosen_step=fields.integer("chosen_step"),
    )


def _sample(fields: Fields) -> Sample:
    address, prompt, reference = (fields.text(key) or "" for key in ("address", "prompt", "reference"))
    return Sample(address, prompt, reference, before=fields.text("before"), after=fields.text("after"))


def _ledger_counts(fields: Fields) -> LedgerCounts:
    samples = fields.inner("samples")
    return LedgerCounts(
        rows_in=fields.integer("rows_in"),
        rows_kept=fields.integer("rows_kept"),
        rows_dropped=fields.integer("rows_dropped"),
        dropped=fields.inner("dropped").counts(),
        changed=fields.inner("changed").counts(),
        notes=tuple(fields.lines("notes")),
        samples={reason: _ledger_samples(samples.items(reason)) for reason in samples.content},
    )


def _ledger_samples(rows: Sequence[Fields]) -> tuple[LedgerSample, ...]:
    return tuple(LedgerSample(row.text("address") or "", row.text("detail") or "") for row in rows)


def _rows(value: Any, notices: list[str]) -> tuple[RenderedRow, ...]:
    rows = Fields({"rows": value}, "rows.json", notices).items("rows")
    return tuple(
        RenderedRow(row.text("address") or "", tuple(_token(token) for token in row.items("tokens"))) for row in rows
    )


def _token(fields: Fields) -> Token:
    text, weight = fields.text("text") or "", fields.number("weight") or 0.0
    return Token(text=text, id=fields.integer("id"), weight=weight, stop=bool(fields.flag("stop")))

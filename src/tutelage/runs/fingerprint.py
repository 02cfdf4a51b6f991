"""`inputs.json`: what decided a run's numbers, and what it means that something of it is another now."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage import config
from tutelage.config import Settings
from tutelage.errors import CheckpointError, ConfigError, SourceNotFoundError, cause_of, command, shell_word
from tutelage.runs import folder as run_files

REQUIRED_SAME = {
    "data_sha256": "data",
    "template_sha256": "chat template",
    "tokenizer_sha256": "tokenizer",
    "base_sha256": "base model",
    "settings": "set of settings",
    (OUTCOME := "examples_sha256"): "outcome of preparing the data",
}
"""Entries that a resume and a replay must find as they were, in words, the causes before what they lead to."""
CHANGE_NOTHING = (
    "name",
    "folder",
    "data.workers",
    "model.threads",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.trackers",
)
"""Settings that may be others. Of them only `model.threads` reaches the last bits, as a fact of the machine."""
STARTED_IN = "started_in"
STARTS = "starts"
"""Entry with what a run starts from, and that from, down to the model that nobody here trained (`starts_of`)."""
DECIDING = ("versions", "machine")
"""Entries that may differ from one session of a run to the next, and then change the last bits of its numbers."""


def deciding_settings(settings: Settings) -> dict[str, Any]:
    """The settings as nested mappings, without those that change nothing of what is learned."""
    values = tomllib.loads(config.dump(settings))
    for path in CHANGE_NOTHING:
        section, _, key = path.rpartition(".")
        (values.get(section, {}) if section else values).pop(key, None)
    return values


def write_inputs(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Record `inputs` with a hash of their own.

    Raises:
        SaveError: the disk refuses.
    """
    run_files.write_json(folder / run_files.INPUTS, dict(inputs))


def read_inputs(folder: Path) -> dict[str, Any]:
    """What a run recorded of what it began with.

    Raises:
        CheckpointError: it recorded nothing, or not all that is asked for now, or the file is damaged.
    """
    path = folder / run_files.INPUTS
    try:
        inputs = run_files.read_json(path)
    except (OSError, ValueError) as error:
        raise _unknown(folder, cause_of(error)) from error
    if missing := [name for name in REQUIRED_SAME if name not in inputs]:
        raise _unknown(folder, f"a record of another version, without {', '.join(missing)}")
    return inputs


def _unknown(folder: Path, found: str) -> CheckpointError:
    again = command("train", str(folder / run_files.SETTINGS), f"name={folder.name}-again")
    return CheckpointError(
        "Cannot tell whether data, template and model are those that this run began with",
        where=str(folder / run_files.INPUTS),
        found=found,
        expected="the file as the run wrote it",
        fix=f"put the file back, or train anew with the same settings: {again}",
    )


@contextmanager
def paths_of(folder: Path | None) -> Iterator[None]:
    """What is missing in the block is perhaps looked for from another folder than a run's paths start from.

    Args:
        folder: of the run that is resumed or repeated; None for a new one.

    Raises:
        SourceNotFoundError: something is missing; the error says where the run was started, if not here.
    """
    try:
        yield
    except SourceNotFoundError as error:
        if folder is None:
            raise
        started_in = read_inputs(folder).get(STARTED_IN, str(Path.cwd()))
        if Path(started_in) == Path.cwd():
            raise
        raise SourceNotFoundError(
            error.what,
            where=error.where,
            found=f"{error.found or 'nothing'}, looked for from {Path.cwd()}",
            expected=f"the files of the run, whose paths start from {started_in}",
            fix=f"cd {shell_word(started_in)}, and give the run's folder as {shell_word(str(folder.resolve()))}",
        ) from error


def require_same_inputs(
    earlier: Mapping[str, Any], now: Mapping[str, Any], *, resume: bool, log: Callable[[str], None]
) -> dict[str, Any]:
    """Check that data, template, tokenizer, model and settings are what they were, and say which other facts are not.

    Args:
        earlier: what was recorded.
        now: the same entries as they are.
        resume: the run goes on, rather than being repeated.
        log: told of each fact that is another.

    Returns:
        Entries that `now` lacks: for a resumed run `earlier_sessions`, the facts of earlier parts of it.

    Raises:
        CheckpointError: one of `REQUIRED_SAME` is another; in a replay the settings may be.
    """
    other = {name: where for name in REQUIRED_SAME if (where := _others(name, earlier[name], now[name]))}
    if not resume and (settings := other.pop("settings", None)):  # a replay finds out what they do
        log(f"  note: the settings are not those of the record: {settings}")
        other.pop(OUTCOME, None)
    differing = changes(earlier, now)
    if other:
        rows_alone = list(other) == [OUTCOME]  # files and settings are the same, so the code must be another
        if not rows_alone:
            other.pop(OUTCOME, None)
        raise CheckpointError(
            f"The {' and the '.join(REQUIRED_SAME[name] for name in other)} is not the one this run began with, so "
            "this would "
            f"not be a {'resume' if resume else 'replay'}",
            where="; ".join(where for where in other.values()),
            found="; ".join(differing) or None if rows_alone else None,
            expected="sequences of the same tokens" if rows_alone else "the same bytes",
            fix="go on with the versions the run began with, or start a new run"
            if rows_alone
            else "restore what is another, or start a new run",
        )
    for change in differing:
        log(f"  note: the last bits of a number may differ from here on, as {change}")
    if not resume:
        return {}
    sessions: list[dict[str, Any]] = list(earlier.get("earlier_sessions", []))
    if differing:
        sessions.append({key: earlier.get(key) for key in DECIDING})
    return {"earlier_sessions": sessions}


def _others(name: str, then: Any, now: Any) -> str:
    """What differs of an entry, for people; empty where nothing does."""
    if name == "settings":
        here = now
        try:
            there = deciding_settings(config.from_mapping(then, where=run_files.INPUTS))  # with defaults of today
        except ConfigError:
            there = then
        return ", ".join(f"{path} = {old} then, {new} now" for path, old, new in _different(there, here))
    if isinstance(then, dict) and isinstance(now, dict):
        return ", ".join(sorted(key for key in {*then, *now} if then.get(key) != now.get(key)))
    return "" if then == now else REQUIRED_SAME[name]


def _different(then: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for key in sorted({*then, *now}):
        old, new = then.get(key, "not set"), now.get(key, "not set")
        if isinstance(old, dict) and isinstance(new, dict):
            found += _different(old, new, f"{path}{key}.")
        elif old != new:
            found.append((f"{path}{key}", old, new))
    return found


def process_counts(inputs: Mapping[str, Any]) -> set[int]:
    """How many processes each session of a run had."""
    sessions = [inputs, *inputs.get("earlier_sessions", [])]
    return {(session.get("machine") or {}).get("processes", 1) for session in sessions}


def changed_settings(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that are others now, in one line; empty where none is."""
    return [text] if (text := _others("settings", earlier["settings"], now["settings"])) else []


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each of the `DECIDING` facts that is another now, as a few words."""
    then, here = _flat(earlier), _flat(now)
    return [
        f"{name}: {then.get(name, 'not recorded')} then, {here.get(name, 'none')} now"
        for name in sorted({*then, *here})
        if then.get(name) != here.get(name)
    ]


def _flat(inputs: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key in DECIDING:
        flat |= inputs.get(key, {})
    return {"processes": 1} | flat


def skipped_steps(folder: Path, *, leave_out: bool) -> list[int]:
    """Steps of a run, counted from 1, that are left out; with `leave_out`, the one it was stopped before among them.

    Raises:
        CheckpointError: there is no such step.
    """
    known: list[int] = read_inputs(folder)["skipped_steps"]
    if not leave_out:
        return known
    path = folder / run_files.STOPPED
    if not path.is_file():
        raise CheckpointError(
            "There is no step to leave out",
            where=str(path),
            found="no such file",
            expected="a run that was stopped before a step that was not finite, or a loss spike",
            fix="resume without --skip-step",
        )
    try:
        step = int(run_files.read_json(path)["step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            "Which step the run was stopped before cannot be read",
            where=str(path),
            found=cause_of(error),
            expected="the file as the run wrote it",
            fix="resume without --skip-step; the run stops at the same step and writes it anew",
        ) from error
    return sorted({*known, step})

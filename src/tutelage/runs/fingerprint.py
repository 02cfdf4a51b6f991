"""`inputs.json`: what decided a run's numbers, and what it means that something of it differs now."""

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
"""Entries that must be the same in a resume and a replay, as users call them, causes before their effects."""
NEUTRAL_SETTINGS = (
    "name",
    "folder",
    "data.workers",
    "model.threads",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.trackers",
)
"""Settings that may differ. Of them only `model.threads` reaches the last bits, as a fact of the machine."""
STARTED_IN = "started_in"
STARTS = "starts"
"""Entry with what a run starts from, and that from, down to the model that nobody here trained (`starts_of`)."""
DECIDING_FACTS = ("versions", "machine")
"""Entries that may differ from one session of a run to the next, and then change the last bits of its numbers."""


def deciding_settings(settings: Settings) -> dict[str, Any]:
    """The settings as nested mappings, without those that change nothing of what is learned."""
    values = tomllib.loads(config.dump(settings))
    for path in NEUTRAL_SETTINGS:
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
        raise _unreadable_inputs(folder, cause_of(error)) from error
    if missing := [name for name in REQUIRED_SAME if name not in inputs]:
        raise _unreadable_inputs(folder, f"a record of another version, without {', '.join(missing)}")
    return inputs


def _unreadable_inputs(folder: Path, damage: str) -> CheckpointError:
    new_run = command("train", str(folder / run_files.SETTINGS), f"name={folder.name}-again")
    return CheckpointError(
        "Cannot tell whether data, template and model are those that this run began with",
        where=str(folder / run_files.INPUTS),
        found=damage,
        expected="the file as the run wrote it",
        fix=f"put the file back, or train anew with the same settings: {new_run}",
    )


@contextmanager
def explain_missing_paths(folder: Path | None) -> Iterator[None]:
    """Explain a source that is missing in the block by the folder that a run's relative paths start from.

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
    recorded: Mapping[str, Any], current: Mapping[str, Any], *, resume: bool, log: Callable[[str], None]
) -> dict[str, Any]:
    """Check that data, template, tokenizer, model and settings are those recorded, and log which other facts differ.

    Args:
        recorded: what was recorded.
        current: the same entries as they are.
        resume: the run goes on, rather than being repeated.
        log: receives a line for each fact that differs.

    Returns:
        Entries that `current` lacks: for a resumed run `earlier_sessions`, the facts of earlier parts of it.

    Raises:
        CheckpointError: one of `REQUIRED_SAME` differs; in a replay the settings may.
    """
    different_inputs = {
        name: difference
        for name in REQUIRED_SAME
        if (difference := _difference_text(name, recorded[name], current[name]))
    }
    if not resume and (settings := different_inputs.pop("settings", None)):  # a replay finds out what they do
        log(f"  note: the settings are not those of the record: {settings}")
        different_inputs.pop(OUTCOME, None)
    fact_changes = changed_facts(recorded, current)
    if different_inputs:
        only_outcome = list(different_inputs) == [OUTCOME]  # files and settings are the same, so the code must differ
        if not only_outcome:
            different_inputs.pop(OUTCOME, None)
        raise CheckpointError(
            f"The {' and the '.join(REQUIRED_SAME[name] for name in different_inputs)} is not the one this run began "
            f"with, so this would not be a {'resume' if resume else 'replay'}",
            where="; ".join(difference for difference in different_inputs.values()),
            found="; ".join(fact_changes) or None if only_outcome else None,
            expected="sequences of the same tokens" if only_outcome else "the same bytes",
            fix="go on with the versions the run began with, or start a new run"
            if only_outcome
            else "restore what is another, or start a new run",
        )
    for change in fact_changes:
        log(f"  note: the last bits of a number may differ from here on, as {change}")
    if not resume:
        return {}
    earlier_sessions: list[dict[str, Any]] = list(recorded.get("earlier_sessions", []))
    if fact_changes:
        earlier_sessions.append({key: recorded.get(key) for key in DECIDING_FACTS})
    return {"earlier_sessions": earlier_sessions}


def _difference_text(name: str, recorded: Any, current: Any) -> str:
    """What differs in an entry, for people; empty where nothing does."""
    if name == "settings":
        current_settings = current
        try:
            # With defaults of today.
            recorded_settings = deciding_settings(config.from_mapping(recorded, where=run_files.INPUTS))
        except ConfigError:
            recorded_settings = recorded
        return ", ".join(
            f"{path} = {old} then, {new} now" for path, old, new in _changed_paths(recorded_settings, current_settings)
        )
    if isinstance(recorded, dict) and isinstance(current, dict):
        return ", ".join(sorted(key for key in {*recorded, *current} if recorded.get(key) != current.get(key)))
    return "" if recorded == current else REQUIRED_SAME[name]


def _changed_paths(
    recorded: Mapping[str, Any], current: Mapping[str, Any], path: str = ""
) -> list[tuple[str, Any, Any]]:
    differences: list[tuple[str, Any, Any]] = []
    for key in sorted({*recorded, *current}):
        old_value, new_value = recorded.get(key, "not set"), current.get(key, "not set")
        if isinstance(old_value, dict) and isinstance(new_value, dict):
            differences += _changed_paths(old_value, new_value, f"{path}{key}.")
        elif old_value != new_value:
            differences.append((f"{path}{key}", old_value, new_value))
    return differences


def process_counts(inputs: Mapping[str, Any]) -> set[int]:
    """How many processes each session of a run had."""
    sessions = [inputs, *inputs.get("earlier_sessions", [])]
    return {(session.get("machine") or {}).get("processes", 1) for session in sessions}


def changed_settings(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """The settings that differ now, in one line; empty where none does."""
    return [text] if (text := _difference_text("settings", recorded["settings"], current["settings"])) else []


def changed_facts(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Each of the `DECIDING_FACTS` facts that differs now, in a few words."""
    recorded_facts, current_facts = _flat(recorded), _flat(current)
    return [
        f"{name}: {recorded_facts.get(name, 'not recorded')} then, {current_facts.get(name, 'none')} now"
        for name in sorted({*recorded_facts, *current_facts})
        if recorded_facts.get(name) != current_facts.get(name)
    ]


def _flat(inputs: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for key in DECIDING_FACTS:
        facts |= inputs.get(key, {})
    return {"processes": 1} | facts


def skipped_steps(folder: Path, *, leave_out: bool) -> list[int]:
    """Steps of a run, counted from 1, that are left out; with `leave_out`, the one it was stopped before among them.

    Raises:
        CheckpointError: there is no such step.
    """
    steps: list[int] = read_inputs(folder)["skipped_steps"]
    if not leave_out:
        return steps
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
    return sorted({*steps, step})

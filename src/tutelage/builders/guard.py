"""`train --guard`: trains candidates, chooses one by half of a general set, and reports on the other half.

`guard.json` has all of it, written as each candidate ends, so that what a kill ends goes on: nothing that is finished
and was made of the same settings, data and base is trained or measured again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage import config
from tutelage.builders.base_model import start_folder
from tutelage.builders.dial import measure_dial
from tutelage.builders.dial_model import holds_an_adapter, save_dial_model
from tutelage.builders.dial_page import dial_page
from tutelage.builders.guard_candidates import Candidate, placed
from tutelage.builders.guard_measure import measure_at
from tutelage.builders.guard_plan import GuardPlan
from tutelage.builders.measured import uncertainty_between
from tutelage.builders.run_inputs import base_sha256
from tutelage.config import Settings
from tutelage.errors import ConfigError, TrainingError
from tutelage.evaluate.dial import BASE, TUNED
from tutelage.evaluate.gate import Gate, forgetting_gate
from tutelage.evaluate.guard_choice import Choice, Trial, choose, score_of, trial_of
from tutelage.evaluate.halves import as_lines
from tutelage.evaluate.uncertainty import uncertainty_of
from tutelage.report.console.progress import Screen
from tutelage.report.dial import value_text
from tutelage.runs import folder as run_files
from tutelage.runs.uncertainty import uncertainty_in
from tutelage.system.seals import file_sha256

GUARD = "guard.json"
DIAL = (0.25, 0.5, 0.75)
AT_VALUE = "at-{}"
"""The folder in a run that holds its model at a value of the dial."""
MEASURED, FAILED, BEGUN = "measured", "failed", "begun"

Train = Callable[[Settings, bool], Mapping[str, Any] | None]
"""Trains (True: goes on with a run that was begun) and returns its result; None where it was interrupted."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """How a search ended: the choice, the report's gate, and `guard.json` in full."""

    choice: Choice
    gate: Gate
    record: dict[str, Any]


def run_guard(plan: GuardPlan, train: Train, screen: Screen) -> Guarded | None:
    """Train and measure the candidates, choose, and measure base and chosen one on the half of the report.

    Args:
        plan: what is searched.
        train: trains one candidate.
        screen: told what happens.

    Returns:
        None where a run was interrupted; the same call goes on.

    Raises:
        TrainingError: no candidate could be trained and measured.
        TutelageError: of the kind that fits.
    """
    run_files.require_not_inside_run(plan.folder / plan.candidates[0].name)
    run_files.make_folder(plan.folder)
    run_files.write_text(plan.choice_file, as_lines(plan.halves.choice))
    run_files.write_text(plan.report_file, as_lines(plan.halves.report))
    record = _begun(plan, _earlier(plan.folder / GUARD, screen))
    trials: list[Trial] = []
    for number, candidate in enumerate(plan.candidates, start=1):
        screen.log(f"Guard: {candidate.name}, candidate {number} of {len(plan.candidates)}")
        entry = _settled(plan, candidate, record, train, screen)
        if entry is None:
            return None
        trials += [Trial(**trial) for trial in entry["trials"]]
        record["tried"].append(candidate.name)
        if plan.stops_at_first and any(trial.lost <= plan.limit for trial in trials):
            break
    if not trials:
        raise TrainingError(
            "No candidate could be trained and measured",
            where=str(plan.folder),
            found="; ".join(f"{entry['name']}: {entry['problem']}" for entry in record["candidates"]),
            fix="train the recipe without --guard, which says more",
        )
    choice = choose(trials, plan.limit)
    run_entry = next(entry for entry in record["candidates"] if entry["name"] == choice.trial.run)
    record["chosen"] = {"name": choice.trial.name, "within_limit": choice.within, "tied": list(choice.tied)}
    record["chosen"] |= {"score": choice.trial.score, "base_score": run_entry["base_score"]}
    gate = _reported(plan, choice, record, screen)
    return Guarded(choice, gate, record)


def _earlier(path: Path, screen: Screen) -> dict[str, Any]:
    """What an earlier call wrote; nothing where it is not there or damaged, which is said."""
    try:
        return run_files.read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        screen.log(f"  note: {path} is damaged; the search begins anew, earlier runs are moved aside")
        return {}


def _begun(plan: GuardPlan, earlier: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "limit": plan.limit,
        "general": list(plan.sets),
        "split": {
            "choice": len(plan.halves.choice),
            "report": len(plan.halves.report),
            "topics": {topic: list(counts) for topic, counts in plan.halves.topics.items()},
            "shows": list(plan.shows),
        },
        "tried": [],
        "candidates": list(earlier.get("candidates", [])),
        "left_out": [asdict(left_out) for left_out in plan.left_out]
        + [{"name": candidate.name, "why": "beyond --guard-runs"} for candidate in plan.beyond],
        "reports": list(earlier.get("reports", [])),
    }


def _save(plan: GuardPlan, record: dict[str, Any]) -> None:
    run_files.write_json(plan.folder / GUARD, record)


def _enter(plan: GuardPlan, record: dict[str, Any], entry: dict[str, Any]) -> None:
    """Put a candidate's entry in the place of an older one, and save."""
    others = [other for other in record["candidates"] if other["name"] != entry["name"]]
    record["candidates"] = [*others, entry]
    _save(plan, record)


def _settled(
    plan: GuardPlan, candidate: Candidate, record: dict[str, Any], train: Train, screen: Screen
) -> dict[str, Any] | None:
    """The entry of a candidate that is trained and measured now, or was; None where it was interrupted."""
    settings = placed(candidate, plan.folder, plan.choice_file)
    key = _key(candidate, settings, plan.choice_file, screen)
    known: dict[str, Any] = next((entry for entry in record["candidates"] if entry["name"] == candidate.name), {})
    goes_on = known.get("key") == key
    is_finished = (settings.run_folder / run_files.RESULT).is_file()
    if goes_on and (known["state"] == FAILED or (known["state"] == MEASURED and is_finished)):
        screen.log(f"  {known['problem'] or 'trained and measured before'}")
        return known
    entry: dict[str, Any] = {"name": candidate.name, "overrides": list(candidate.overrides)}
    entry |= {
        "run": str(settings.run_folder),
        "key": key,
        "expected_tokens": candidate.tokens,
        "state": BEGUN,
        "problem": "",
        "trials": [],
    }
    _enter(plan, record, entry)
    try:
        entry["resumed"] = goes_on and _has_checkpoint(settings.run_folder)
        result = _result(settings, train, goes_on=goes_on, resume=entry["resumed"])
    except TrainingError as error:
        screen.log(f"  {candidate.name} could not be trained: {error.what}")
        entry |= {"state": FAILED, "problem": f"{error.what} ({error.found})"}
        _enter(plan, record, entry)
        return entry
    if result is None:
        return None
    entry |= {"state": MEASURED} | _measured(candidate.name, settings, result, plan.limit, screen)
    _enter(plan, record, entry)
    return entry


def _key(candidate: Candidate, settings: Settings, choice_file: Path, screen: Screen) -> str:
    """The hash of all that a candidate's numbers come from; another one is another candidate."""
    base = start_folder(settings.model, log=screen.log)
    prompts = [file_sha256(Path(name)) for name in settings.data.self_replay if Path(name).is_file()]
    facts = [
        config.dump(settings),
        candidate.data_sha256,
        base_sha256(settings, base, log=screen.log),
        file_sha256(choice_file),
        prompts,
        run_files.versions(),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _has_checkpoint(run: Path) -> bool:
    return any((run / run_files.CHECKPOINTS).glob("step-*"))


def _result(settings: Settings, train: Train, *, goes_on: bool, resume: bool) -> Mapping[str, Any] | None:
    folder = settings.run_folder
    if goes_on and (folder / run_files.RESULT).is_file():
        result = run_files.read_result(folder)
        if not result.get("unmeasured"):
            return result
    return train(settings, resume)


def _measured(name: str, settings: Settings, result: Mapping[str, Any], limit: float, screen: Screen) -> dict[str, Any]:
    """The trials of a run: what it trained, and values of the dial where its method has any, which get their page."""
    trained = trial_of(
        name,
        run=name,
        dial=TUNED,
        tokens=result["total_tokens"],
        seconds=result["elapsed_seconds"],
        metrics=result["after"],
        uncertainty=uncertainty_in(result),
    )
    if trained is None:
        return {"state": BEGUN, "problem": "its general half, or its task, was not measured"}  # asked again, it is
    found: dict[str, Any] = {"trials": [asdict(trained)], "base_score": score_of(result["before"])}
    if settings.model.method == "prompt":
        return found
    began = time.perf_counter()
    try:
        measures = measure_dial(str(settings.run_folder), DIAL, screen=screen)
    except ConfigError as error:  # kinds of adapters that have nothing between
        screen.log(f"  note: {name} is measured as it is alone: {error.found}")
        return found
    dial_page(settings.run_folder, measures, margin=limit)
    seconds = (time.perf_counter() - began) / len(measures)
    for value in DIAL:
        trial = trial_of(
            f"{name} at {value:g}",
            run=name,
            dial=value,
            tokens=result["total_tokens"],
            seconds=seconds,
            metrics=asdict(measures[value].metrics),
            uncertainty=uncertainty_of(measures[BASE].outcomes, measures[value].outcomes, measures[value].clusters),
        )
        found["trials"] += [] if trial is None else [asdict(trial)]
    return found


def _reported(plan: GuardPlan, choice: Choice, record: dict[str, Any], screen: Screen) -> Gate:
    """Base and chosen one on the half that took no part; asked once for each chosen one, and kept."""
    trial = choice.trial
    entry = next(entry for entry in record["candidates"] if entry["name"] == trial.run)
    key = hashlib.sha256(f"{entry['key']} {trial.dial} {file_sha256(plan.report_file)}".encode()).hexdigest()
    known = next((report for report in record["reports"] if report["key"] == key), None)
    if known is None:
        screen.log(f"Guard: the base and {trial.name} are asked the half that took no part in the choice")
        measured = measure_at(Path(entry["run"]), (BASE, trial.dial), screen=screen, general=(str(plan.report_file),))
        uncertainty = uncertainty_between(measured[BASE], measured[trial.dial])
        known = {
            "key": key,
            "name": trial.name,
            "run": entry["run"],
            "dial": trial.dial,
            "before": asdict(measured[BASE].metrics),
            "after": asdict(measured[trial.dial].metrics),
            "uncertainty": asdict(uncertainty),
        }
        record["reports"] = [*record["reports"], known]
    gate = forgetting_gate(uncertainty_in(known), plan.limit)
    record["report"] = {
        **{name: known[name] for name in ("name", "run", "dial", "before", "after", "uncertainty")},
        "within_limit": gate.tripped_by is None,
        "sentence": gate.sentence,
        "asked_before": [other["name"] for other in record["reports"] if other["key"] != key],
        "model": str(_kept_model(Path(entry["run"]), trial.dial, screen)),
    }
    _save(plan, record)
    return gate


def _kept_model(run: Path, value: float, screen: Screen) -> Path:
    """The folder of the chosen model: what the run trained, or one beside it for its value of the dial."""
    if value == TUNED:
        return run / run_files.trained_name(run_files.read_settings(run))
    folder = run / AT_VALUE.format(value_text(value))
    if not folder.is_dir():
        save_dial_model(run, value, folder, merged=not holds_an_adapter(run), screen=screen)
    return folder

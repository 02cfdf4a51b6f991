"""A run again, from its settings, held against what it recorded: the same numbers, or the first that is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tutelage import config
from tutelage.builders.resolved_run import draws_noise
from tutelage.distributed.process_group import first_here, processes_here
from tutelage.errors import ConfigError, SourceNotFoundError, command
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.choice import read_choice
from tutelage.runs.fingerprint import changed_facts, changed_settings, process_counts, read_inputs
from tutelage.runs.metrics_log import record_path
from tutelage.train.checkpoint import Checkpoints
from tutelage.train.replay_comparison import OTHER_PROCESSES, Difference, RecordedRun, first_different_tensor
from tutelage.train.run import run


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay.

    Attributes:
        recorded: the folder of the run that was repeated.
        folder: where the repeating run is.
        steps: steps that were compared.
        weights: what of the weights was compared; None where the two runs left none in common, or `tolerance` is not 0.
        difference: the first one; None when all is the same to the last bit, or within `tolerance`.
        causes: what is another now than when the run was recorded, and so may be why.
        tolerance: what numbers may be apart: 0, or more where the run was made by another number of processes.
    """

    recorded: Path
    folder: Path
    steps: int
    weights: str | None
    difference: Difference | None
    causes: tuple[str, ...]
    tolerance: float = 0.0


def replay(name: str, screen: Screen, *, into: str | None = None) -> Replayed:
    """Run the settings of a run again, into another folder, and compare as it goes; end at the first difference.

    Every process that was started calls this; the main one compares weights and finds causes.

    Args:
        name: the folder of the run, finished or not.
        screen: told what happens.
        into: the other folder; None puts `.replay` behind the run's name.

    Raises:
        SourceNotFoundError: not a run, or it recorded no step.
        ConfigError: the other folder is the run's own, or inside of it; or another number of processes would draw other
            noise.
        CheckpointError: data or template have other bytes now.
    """
    folder = run_files.existing_run_folder(name)
    target = folder.with_name(f"{folder.name}.replay") if into is None else Path(into)
    if target.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            "A replay needs a folder of its own", where="--into", found=str(target), fix=f"--into {folder}.replay"
        )
    earlier = read_inputs(folder)
    settings = run_files.read_settings(folder)
    tolerance = _tolerance(settings, folder, process_counts(earlier))
    recorded = RecordedRun.of(folder, tolerance=tolerance)
    if not recorded.lines:
        raise SourceNotFoundError(
            "This run recorded no step, so there is nothing to compare with",
            where=str(record_path(folder)),
            fix="replay a run that has taken a step",
        )
    if tolerance > 0.0 and first_here():
        screen.log(
            f"Another number of processes sums in another order: losses are compared to {tolerance:g}, norms to 0.001"
        )
    # One checkpoint more: the last one of an unfinished run lies some steps before the last line of its record.
    keep = settings.train.model_copy(update={"keep_checkpoints": settings.train.keep_checkpoints + 1})
    settings = settings.model_copy(update={"folder": str(target.parent), "name": target.name, "train": keep})
    run(settings, screen, recorded=recorded)
    if recorded.difference is None:
        recorded.conclude()
    weights = None
    if recorded.difference is None and tolerance == 0.0 and first_here():
        weights = _common_weights(recorded, target)
        if weights is not None:
            recorded.difference = first_different_tensor(folder / weights, target / weights)
    steps = sum(kind == "loss" for kind, _ in recorded.compared)
    inputs = read_inputs(target)
    causes = changed_settings(earlier, inputs) + changed_facts(earlier, inputs)
    for session in earlier.get("earlier_sessions", []):
        causes += [f"before a resume, {change}" for change in changed_facts(session, inputs)]
    return Replayed(folder, target, steps, weights, recorded.difference, tuple(causes), tolerance)


def _tolerance(settings: config.Settings, folder: Path, counts: set[int]) -> float:
    """0 where the run was made by as many processes as this replay, else what their order of summation may change."""
    process_count = processes_here()
    if counts == {process_count}:
        return 0.0
    recorded_counts = " and ".join(map(str, sorted(counts)))
    if draws_noise(settings):
        raise ConfigError(
            "Each process draws its own dropout and noise, so another number of processes is another run",
            where=str(folder),
            found=f"{process_count} {'process' if process_count == 1 else 'processes'}",
            expected=f"{recorded_counts}, as the run had",
            fix=command("train", "--replay", folder, "--processes", recorded_counts)
            if len(counts) == 1
            else "a run that went on with another number of processes cannot be repeated with dropout or noise",
        )
    return OTHER_PROCESSES


def _common_weights(recorded: RecordedRun, target: Path) -> str | None:
    """The folder of weights that both runs have: what was trained, or the newest checkpoint of both.

    A run whose checkpoint somebody chose may have ended with other weights than a replay, which nobody chooses for.
    """
    if recorded.finished and read_choice(recorded.folder) is None:
        return next(name for name in (run_files.ADAPTER, run_files.MODEL) if (recorded.folder / name).is_dir())
    recorded_names, repeated_names = (
        Checkpoints(folder / run_files.CHECKPOINTS, keep=1).names() for folder in (recorded.folder, target)
    )
    newest = next((name for name in recorded_names if name in repeated_names), None)
    return None if newest is None else f"{run_files.CHECKPOINTS}/{newest}"

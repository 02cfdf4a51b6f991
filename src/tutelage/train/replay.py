"""A run again, from its settings, held against what it recorded: the same numbers, or the first that is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tutelage import config
from tutelage.errors import ConfigError, SourceNotFoundError
from tutelage.train import folder as run_files
from tutelage.train.inputs import changes, read_inputs
from tutelage.train.recorded import Difference, Recorded, first_other_tensor
from tutelage.train.run import run
from tutelage.train.screen import Screen


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came of a replay.

    Attributes:
        recorded: the folder of the run that was repeated.
        folder: where the repeating run is.
        steps: steps that were compared.
        weights: what of the weights was compared; None where the two runs left none in common.
        difference: the first one; None when all is the same to the last bit.
        causes: what is another now than when the run was recorded, and so may be why.
    """

    recorded: Path
    folder: Path
    steps: int
    weights: str | None
    difference: Difference | None
    causes: tuple[str, ...]


def replay(name: str, screen: Screen, *, into: str | None = None) -> Replayed:
    """Run the settings of a run again, into another folder, and compare as it goes; end at the first difference.

    Args:
        name: the folder of the run, finished or not.
        screen: told what happens.
        into: the other folder; None puts `.replay` behind the run's name.

    Raises:
        SourceNotFoundError: not a run, or it recorded no step.
        ConfigError: the other folder is the run's own.
        CheckpointError: data or template have other bytes now.
    """
    folder = run_files.existing_run_folder(name)
    target = folder.with_name(f"{folder.name}.replay") if into is None else Path(into)
    if target.resolve() == folder.resolve():
        raise ConfigError(
            "A replay needs a folder of its own", where="--into", found=str(target), fix=f"--into {folder}.replay"
        )
    recorded = Recorded.of(folder)
    if not recorded.lines:
        raise SourceNotFoundError(
            "This run recorded no step, so there is nothing to compare with",
            where=str(folder / run_files.RECORD),
            fix="replay a run that has taken a step",
        )
    settings = config.load(folder / run_files.SETTINGS)
    # One checkpoint more: the last one of an unfinished run lies some steps before the last line of its record.
    keep = settings.train.model_copy(update={"keep_checkpoints": settings.train.keep_checkpoints + 1})
    settings = settings.model_copy(update={"folder": str(target.parent), "name": target.name, "train": keep})
    run(settings, screen, recorded=recorded)
    if recorded.difference is None:
        recorded.conclude()
    weights = None
    if recorded.difference is None:
        weights = _common_weights(recorded, target)
        if weights is not None:
            recorded.difference = first_other_tensor(folder / weights, target / weights)
    steps = sum(kind == "loss" for kind, _ in recorded.met)
    causes = changes(read_inputs(folder), read_inputs(target))
    for session in read_inputs(folder).get("earlier_sessions", []):
        causes += [f"before a resume, {one}" for one in changes(session, read_inputs(target))]
    return Replayed(folder, target, steps, weights, recorded.difference, tuple(causes))


def _common_weights(recorded: Recorded, target: Path) -> str | None:
    """The folder of weights that both runs have: what was trained, or the newest checkpoint of both."""
    if recorded.finished:
        return next(name for name in (run_files.ADAPTER, run_files.MODEL) if (recorded.folder / name).is_dir())
    steps = [
        {one.name for one in (folder / run_files.CHECKPOINTS).glob("step-*")} for folder in (recorded.folder, target)
    ]
    common = sorted(steps[0] & steps[1])
    return f"{run_files.CHECKPOINTS}/{common[-1]}" if common else None

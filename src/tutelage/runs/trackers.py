"""Trackers outside the run folder: TensorBoard, Weights & Biases, MLflow, trackio.

Each is imported when it starts, and is pointed elsewhere (server, project, account, offline) by its own environment
variables. What a resumed run needs to find its entry again lies in the tracker's folder.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from tutelage.errors import DependencyError

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "tutelage"
"""Where runs are gathered, unless an environment variable of the tracker names another project."""


class Tracker(Protocol):
    """Where the figures of a run are shown besides its folder. Any method may raise what its package raises."""

    def start(self, settings: Mapping[str, Any], name: str) -> None:
        """Make an entry for the run `name`, or find it again after a resume; `settings` by dotted path."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take finite values after `step` steps, counted from 1."""

    def finish(self, scores: Mapping[str, float]) -> None:
        """Take the final scores and close; no scores mean that the run stopped before its end."""


def require_tracker(name: TrackerName) -> None:
    """Fail before anything is loaded where a tracker's package is not installed.

    Raises:
        DependencyError: the package is missing.
    """
    if find_spec(name) is None:
        raise DependencyError(
            f"The tracker {name} needs a package that is not installed",
            where="train.trackers",
            found=f"no package {name}",
            fix=f"pip install {name}; or leave it out, as record.jsonl in the run's folder has all figures",
        )


def tracker(name: TrackerName, folder: Path) -> Tracker:
    """The tracker of that name, which may keep files in `folder`."""
    match name:
        case "tensorboard":
            return TensorBoard(folder)
        case "wandb":
            return WeightsAndBiases(folder)
        case "mlflow":
            return MLflow(folder)
        case "trackio":
            return Trackio(folder)


class TensorBoard:
    """Event files in the run's folder; nothing leaves the machine. Look at them with `tensorboard --logdir runs`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.last_step = folder, 0
        self.writer: Any = None
        self.settings: Mapping[str, Any] = {}

    def start(self, settings: Mapping[str, Any], name: str) -> None:  # noqa: ARG002 TensorBoard names a run by its folder
        """Remember the settings; the first step opens the file."""
        self.settings = settings

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write scalars, and see them onto the disk."""
        writer = self._writer_from(step)
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()
        self.last_step = step

    def finish(self, scores: Mapping[str, float]) -> None:
        """Write the scores at the last step."""
        writer = self._writer_from(self.last_step)
        for name, value in scores.items():
            writer.add_scalar(name, value, self.last_step)
        writer.close()

    def _writer_from(self, step: int) -> Any:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # Steps that a killed run had taken after its checkpoint are taken again.
            self.writer = SummaryWriter(str(self.folder), purge_step=step)
            self.writer.add_text("settings", "\n".join(f"    {key} = {value}" for key, value in self.settings.items()))
        return self.writer


class WeightsAndBiases:
    """Weights & Biases. WANDB_MODE=offline keeps it on this machine; WANDB_PROJECT names another project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run: Any = None

    def start(self, settings: Mapping[str, Any], name: str) -> None:
        """Make the run, or go on with the one whose id is in the folder."""
        import wandb

        identity = _read_identity(self.folder) or uuid.uuid4().hex
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=name,
            id=identity,
            resume="allow",
            config=dict(settings),
            dir=str(self.folder),
        )
        _write_identity(self.folder, identity)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send values of a step."""
        self.run.log(dict(values), step=step)

    def finish(self, scores: Mapping[str, float]) -> None:
        """Put the scores into the summary, and wait until all is sent."""
        self.run.summary.update(dict(scores))
        self.run.finish(exit_code=0 if scores else 255)


class MLflow:
    """MLflow. MLFLOW_TRACKING_URI names a server or database, MLFLOW_EXPERIMENT_NAME another experiment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client: Any = None
        self.run_id = ""

    def start(self, settings: Mapping[str, Any], name: str) -> None:
        """Make the run with its settings as parameters, or go on with the one whose id is in the folder."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient()
        run_id = _read_identity(self.folder)
        if run_id is not None:
            self.run_id = run_id
            self.client.update_run(run_id, status="RUNNING")
            return
        experiment_name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(experiment_name)
        experiment_id = (
            self.client.create_experiment(experiment_name) if experiment is None else experiment.experiment_id
        )
        self.run_id = self.client.create_run(experiment_id, run_name=name).info.run_id
        self.client.log_batch(self.run_id, params=[Param(key, json.dumps(value)) for key, value in settings.items()])
        _write_identity(self.folder, self.run_id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send values of a step."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        self.client.log_batch(self.run_id, metrics=[Metric(key, value, now_ms, step) for key, value in values.items()])

    def finish(self, scores: Mapping[str, float]) -> None:
        """Send the scores, and say how the run ended."""
        self.log(0, scores)
        self.client.set_terminated(self.run_id, status="FINISHED" if scores else "KILLED")


class Trackio:
    """trackio. TRACKIO_DIR names another folder, TRACKIO_SPACE_ID a Hugging Face Space."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run: Any = None
        self.last_step = 0

    def start(self, settings: Mapping[str, Any], name: str) -> None:
        """Make the run, or go on with the one whose name is in the folder."""
        import trackio

        saved_name = _read_identity(self.folder)
        self.run = trackio.init(
            PROJECT,
            name=saved_name or name,
            config=dict(settings),
            resume="never" if saved_name is None else "must",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        _write_identity(self.folder, self.run.name)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send values of a step."""
        self.run.log(dict(values), step=step)
        self.last_step = step

    def finish(self, scores: Mapping[str, float]) -> None:
        """Send the scores at the last step, and wait until all is written."""
        if scores:
            self.run.log(dict(scores), step=self.last_step)
        self.run.finish()


def _read_identity(folder: Path) -> str | None:
    path = folder / "identity"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _write_identity(folder: Path, identity: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "identity").write_text(identity, encoding="utf-8")

"""Trackers: each one's own files read back, failures that do not end a run, and nothing imported unless used."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.support import ROOT
from tutelage.errors import ConfigError, DependencyError, TrainingError
from tutelage.runs import tracker_group as tracker_group_module
from tutelage.runs import trackers
from tutelage.runs.metrics_log import HeldoutRecord, StepRecord
from tutelage.runs.tracker_group import TrackerGroup, flattened, numbers_in
from tutelage.runs.trackers import TrackerName, require_tracker, tracker
from tutelage.train import startup

NAMES: tuple[TrackerName, ...] = get_args(TrackerName)


def needs(package: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f"the package {package} is not installed")


STEP = StepRecord(
    step=1,
    epoch=0.25,
    loss=2.5,
    learning_rate=1e-3,
    gradient_norm=0.5,
    tokens=100,
    trained_tokens=40,
    tokens_per_second=50.0,
    elapsed_seconds=2.0,
    peak_bytes=10**9,
)
RESULT = {
    "steps": 2,
    "best_step": None,
    "before": {"general": 0.5},
    "after": {"general": 0.75, "fields": {"item": 1.0}},
}
SETTINGS = {"name": "tiny", "train": {"learning_rate": 0.01, "epochs": 4.0}, "data": {"train": ["a.jsonl"]}}


class Told:
    """A tracker that keeps what it is told, and fails where it should."""

    def __init__(self, *, fails_in: str = "") -> None:
        self.heard: list[Any] = []
        self.fails_in = fails_in

    def hear(self, what: str, *values: Any) -> None:
        if what == self.fails_in:
            raise ConnectionError(f"no network in {what}")
        self.heard.append((what, *values))

    def start(self, settings: Mapping[str, Any], name: str) -> None:
        self.hear("start", dict(settings), name)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.hear("log", step, dict(values))

    def finish(self, scores: Mapping[str, float]) -> None:
        self.hear("finish", dict(scores))


def drive(folder: Path, name: TrackerName, steps: range = range(1, 3), result: Mapping[str, Any] = RESULT) -> None:
    said: list[str] = []
    tracking = TrackerGroup({name: tracker(name, folder)}, log=said.append)
    tracking.start(SETTINGS, "tiny")
    with tracking.attach_to(lambda _record: None) as watch:
        for step in steps:
            watch(StepRecord(**{**_fields(STEP), "step": step, "loss": 3.0 / step}))
            watch(HeldoutRecord(step, 2.0 / step, 3.0))
    tracking.finish(result)
    assert said == []


def _fields(record: StepRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in StepRecord.__slots__}


def test_what_trackers_are_told() -> None:
    one = Told()
    seen: list[Any] = []
    tracking = TrackerGroup({"wandb": one}, log=seen.append)
    tracking.start(SETTINGS, "tiny")
    with tracking.attach_to(seen.append) as watch:
        watch(STEP)
        watch(HeldoutRecord(1, float("nan"), 3.0))
    tracking.finish(RESULT)

    assert seen == [STEP, seen[1]], "the screen is told the records themselves"
    start, step, heldout, finish = one.heard
    assert start[1:] == ({"name": "tiny", "train.learning_rate": 0.01, "train.epochs": 4.0,
                          "data.train": ["a.jsonl"]}, "tiny")  # fmt: skip
    assert step[1] == 1
    assert set(step[2]) >= {"loss", "learning_rate", "gradient_norm", "tokens_per_second", "peak_bytes"}
    assert heldout[2] == {"elapsed_seconds": 3.0}, "a value that is not finite is left out"
    assert finish[1] == {"steps": 2.0, "before/general": 0.5, "after/general": 0.75, "after/fields/item": 1.0}


@pytest.mark.parametrize("fails_in", ["log", "finish"])
def test_one_that_fails_is_announced_once_and_the_others_go_on(fails_in: str) -> None:
    bad, good = Told(fails_in=fails_in), Told()
    said: list[str] = []
    tracking = TrackerGroup({"mlflow": bad, "wandb": good}, log=said.append)
    tracking.start(SETTINGS, "tiny")
    with tracking.attach_to(lambda _record: None) as watch:
        for _ in range(3):
            watch(STEP)
    tracking.finish(RESULT)

    assert len(said) == 1
    assert "mlflow" in said[0]
    assert f"no network in {fails_in}" in said[0]
    assert [what for what, *_ in good.heard] == ["start", "log", "log", "log", "finish"]


def test_one_that_does_not_start_ends_the_run_before_a_model_is_loaded() -> None:
    tracking = TrackerGroup({"wandb": Told(fails_in="start")}, log=print)
    with pytest.raises(ConfigError, match="wandb does not start") as caught:
        tracking.start(SETTINGS, "tiny")
    assert caught.value.found == "no network in start"


def test_an_error_of_the_run_closes_them_without_scores() -> None:
    one = Told()
    tracking = TrackerGroup({"wandb": one}, log=print)
    with pytest.raises(TrainingError), tracking.attach_to(lambda _record: None):
        raise TrainingError("Step 3 is not finite")
    tracking.finish(RESULT)
    assert one.heard == [("finish", {})], "closed once"


def test_numbers_and_paths() -> None:
    assert numbers_in({"a": 1, "b": True, "c": None, "d": float("inf"), "e": "x", "f": 0.5}) == {"a": 1.0, "f": 0.5}
    assert flattened({"a": {"b": {"c": 1}}, "d": 2}, separator="/") == {"a/b/c": 1, "d": 2}


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch, name: TrackerName) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _name: None)
    with pytest.raises(DependencyError, match=name) as caught:
        require_tracker(name)
    assert caught.value.fix.startswith(f"pip install {name};")


def test_none_is_imported_unless_used() -> None:
    code = (
        "import sys; import tutelage.train.run; "
        f"print([one for one in {NAMES} if one in sys.modules], 'torch.utils.tensorboard' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[] False"


def test_a_run_tells_its_tracker_and_outlives_it(
    train_tiny: Callable[..., Any], record_of: Any, monkeypatch: pytest.MonkeyPatch, quiet_screen: Any
) -> None:
    """The JSONL goes on without it, and so does everything else."""
    one = Told(fails_in="finish")
    monkeypatch.setattr(startup, "require_tracker", lambda _name: None)
    monkeypatch.setattr(tracker_group_module, "tracker", lambda _name, _folder: one)

    finished = train_tiny('train.trackers=["wandb"]', "train.epochs=1", "evaluate.task=", "evaluate.before=false")

    start, *logged = one.heard
    assert start[2] == finished.folder.name
    assert start[1]["train.epochs"] == 1.0
    steps, heldout = record_of(finished.folder)
    assert [(step, values["loss"]) for _, step, values in logged if "loss" in values] == [
        (step, line["loss"]) for step, line in steps.items()
    ]
    assert [values["heldout_loss"] for *_, values in logged if "heldout_loss" in values] == list(heldout.values())
    assert (finished.folder / "report.html").is_file()
    assert "The tracker wandb failed" in quiet_screen.console.file.getvalue()


@needs("tensorboard")
def test_tensorboard_files_hold_the_figures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    drive(tmp_path, "tensorboard", range(1, 4), result={})
    drive(tmp_path, "tensorboard", range(3, 5))  # resumed after step 2: step 3 is taken again

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    losses = [(Scalar.step, Scalar.value) for Scalar in events.Scalars("loss")]
    assert losses == [(step, pytest.approx(3.0 / step)) for step in range(1, 5)]
    assert [Scalar.step for Scalar in events.Scalars("heldout_loss")] == [1, 2, 3, 4]
    assert events.Scalars("learning_rate")[0].value == pytest.approx(1e-3)
    (score,) = events.Scalars("after/general")
    assert (score.step, score.value) == (4, 0.75)
    text = events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "train.learning_rate = 0.01" in text


@needs("wandb")
def test_wandb_keeps_its_files_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    drive(tmp_path, "wandb")
    identity = (tmp_path / "identity").read_text()
    drive(tmp_path, "wandb", range(3, 4))

    assert (tmp_path / "identity").read_text() == identity
    files = sorted(tmp_path.glob(f"wandb/offline-run-*/run-{identity}.wandb"))
    assert files, "resumed under the same id"
    written = b"".join(file.read_bytes() for file in files)
    for word in (b"heldout_loss", b"gradient_norm", b"train.learning_rate", b"after/general", b"0.75"):
        assert word in written, word


@needs("mlflow")
def test_mlflow_stores_params_metrics_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    drive(tmp_path, "mlflow", result={})
    identity = (tmp_path / "identity").read_text()
    assert MlflowClient().get_run(identity).info.status == "KILLED"
    drive(tmp_path, "mlflow", range(3, 5))

    client = MlflowClient()
    run = client.get_run(identity)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "tiny"
    assert run.data.params["train.learning_rate"] == "0.01"
    history = client.get_metric_history(identity, "loss")
    assert [(one.step, one.value) for one in history] == [(step, 3.0 / step) for step in range(1, 5)]
    assert run.data.metrics["after/general"] == 0.75
    assert client.get_experiment(run.info.experiment_id).name == "tutelage"


@needs("trackio")
def test_trackio_stores_the_figures(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tests.runs.test_trackers import drive\n"
        "drive(Path(sys.argv[2]), 'trackio', result={}); drive(Path(sys.argv[2]), 'trackio', range(3, 5))\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "logs = SQLiteStorage.get_logs('tutelage', 'tiny')\n"
        "print('LOSSES', [(one['step'], one['loss']) for one in logs if 'loss' in one])\n"
        "print('SCORES', [(one['step'], one['after/general']) for one in logs if 'after/general' in one])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), str(tmp_path / "here")],
        env={**os.environ, "TRACKIO_DIR": str(tmp_path / "store")},  # read when it is imported
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"LOSSES {[(step, 3.0 / step) for step in range(1, 5)]}" in done.stdout
    assert "SCORES [(4, 0.75)]" in done.stdout

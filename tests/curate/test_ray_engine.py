"""Curation on a Ray cluster of two machines: the output is that of one machine, whatever becomes of workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.curate.test_pipeline import contents, request_for, rows, run
from tests.support.curation_steps import EndWorker, NoteMachine, Tidy
from tests.support.killed_curation import STEPS
from tutelage.config.curation import CurateSettings, step_names
from tutelage.curate import ray_engine
from tutelage.curate.out_folder import HASHES
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest
from tutelage.errors import ConfigError, DependencyError, EngineError, FitError

__all__ = ["rows"]
ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "datasets" / "support"
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra ray)")
STORE_BYTES = 80 << 20


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two machines with a processor each: two raylets, side by side on this one."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster()
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, include_dashboard=False)
        cluster.wait_for_nodes()
        yield cluster.address
        cluster.shutdown()


def said(line: str, alter: Callable[[str], str]) -> str:
    """A row with its last turn altered."""
    row = json.loads(line)
    row["messages"][-1]["content"] = alter(row["messages"][-1]["content"])
    return json.dumps(row)


def left_out() -> set[str]:
    """Steps that ask a model, which the first process does and no worker, or that lack a package here."""
    return {"model_scores", "judge"} | (set() if find_spec("wordllama") is not None else {"semantic_duplicates"})


@pytest.fixture(scope="module")
def every_step(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_folder: Path) -> Callable[..., CurationRequest]:
    """Asks for all steps on real rows with copies, debris and held-out rows among them, in several stretches."""
    folder = tmp_path_factory.mktemp("rows")
    rows = (SUPPORT / "train.jsonl").read_text(encoding="utf-8").splitlines()[:150]
    rows += (SUPPORT / "validation.jsonl").read_text(encoding="utf-8").splitlines()[:5]
    rows += [rows[3], said(rows[20], lambda text: f"{text} and"), said(rows[30], lambda text: f"cafÃ© {text}")]
    rows += ["{broken"]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    steps = [name for name in step_names() if name not in left_out()]
    tokenizer = str(tiny_tokenizer_folder / "tokenizer.json")
    settings = {
        "steps": steps,
        "select": {"keep": 100, "method": "diversity"},
        "mix": {"trained_tokens": 2000, "tokenizer": tokenizer},
    }

    def request(out: Path, **changed: Any) -> CurationRequest:
        held_out = (str(SUPPORT / "validation.jsonl"),)
        fields: dict[str, Any] = {"chunk_rows": 25, "held_out": held_out} | changed
        return CurationRequest((str(folder / "rows.jsonl"),), out, CurateSettings(**settings), **fields)

    return request


@needs_ray
@pytest.mark.parametrize(("workers", "file_format"), [(1, "parquet"), (2, "jsonl")])
def test_every_step_makes_the_same_bytes_on_a_cluster(
    every_step: Callable[..., CurationRequest],
    tiny_tokenizer_folder: Path,
    tmp_path: Path,
    address: str,
    workers: int,
    file_format: str,
) -> None:
    asked: dict[str, Any] = {"file_format": file_format, "tokenizer": tiny_tokenizer_folder / "tokenizer.json"}
    here = curate(every_step(tmp_path / "here", workers=1, **asked))
    there = curate(every_step(tmp_path / "there", workers=workers, engine="ray", ray_address=address, **asked))
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert there.funnel.as_dict() == here.funnel.as_dict()
    assert there.computed == here.computed
    assert min(here.funnel.total(what) for what in ("dropped", "merged", "changed")) > 0


@needs_ray
def test_both_machines_work(rows: Path, tmp_path: Path, address: str) -> None:
    (tmp_path / "machines").mkdir()
    run(rows, tmp_path / "out", (NoteMachine(tmp_path / "machines"),), workers=2, engine="ray", ray_address=address)
    assert len(list((tmp_path / "machines").iterdir())) == 2


@needs_ray
def test_the_rows_of_a_worker_that_ended_are_worked_on_by_another(rows: Path, tmp_path: Path, address: str) -> None:
    steps = (Tidy(), EndWorker(tmp_path / "ended"), *STEPS[1:])
    run(rows, tmp_path / "there", steps, workers=2, engine="ray", ray_address=address)
    assert (tmp_path / "ended").exists()
    run(rows, tmp_path / "here", steps)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


@needs_ray
def test_rows_over_which_every_worker_ends_are_named(
    rows: Path, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = (EndWorker(tmp_path / "ended", always=True),)
    with pytest.raises(FitError) as error:
        run(rows, tmp_path / "out", steps, workers=2, engine="ray", ray_address=address)
    assert error.value.where is not None
    assert error.value.where.startswith("stretch 3 of 01-deadly-")
    assert not capsys.readouterr().out, "stdout is for what was asked for"


@needs_ray
def test_a_worker_with_other_packages_is_refused(
    rows: Path, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ray_engine.versions()
    monkeypatch.setattr(ray_engine, "versions", lambda: here | {"numpy": "1.0"})
    with pytest.raises(EngineError) as error:
        run(rows, tmp_path / "out", engine="ray", ray_address=address)
    assert (error.value.found, error.value.expected) == (f"numpy {here['numpy']}", "numpy 1.0")


@needs_ray
def test_no_cluster_at_the_address(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="There is no Ray cluster to work on"):
        run(rows, tmp_path / "out", engine="ray", ray_address="127.0.0.1:1")


@needs_ray
def test_a_cluster_that_does_not_start_is_no_traceback(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def init(**_options: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(EngineError, match="could not be started") as error:
        run(rows, tmp_path / "out", engine="ray")
    assert error.value.fix == "go without Ray: --engine local"


def test_rays_client_protocol_is_refused(rows: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DependencyError), match=r"client protocol|ray, which is not installed"):
        run(rows, tmp_path / "out", engine="ray", ray_address="ray://127.0.0.1:10001")


def test_without_ray_no_row_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.system.ray_cluster.find_spec", lambda _name: None)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("", encoding="utf-8")
    with pytest.raises(DependencyError) as error:
        curate(request_for(empty, tmp_path / "out", engine="ray"))
    assert error.value.fix is not None
    assert error.value.fix.startswith("pip install 'tutelage[ray]'")


LINGERING = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""They try for a minute to tell a server that is gone of the end of a cluster that was killed."""


def processes_with(mark: str) -> list[str]:
    """The commands of all processes that have the mark in their environment, but for those that linger."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [command for command in found if command and not command.startswith(LINGERING)]


@needs_ray
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize("ended_by", ["SIGKILL", "SIGINT"])
def test_what_was_stopped_leaves_no_process_and_goes_on(rows: Path, tmp_path: Path, ended_by: str) -> None:
    mark = f"TUTELAGE_TEST_MARK={tmp_path}"
    command = [sys.executable, "-m", "tests.support.killed_curation", str(rows), str(tmp_path / "out"), "20"]
    environment = {**os.environ, "TUTELAGE_TEST_MARK": str(tmp_path), "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    environment = {name: value for name, value in environment.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [*command, "ray", ended_by], cwd=ROOT, env=environment, capture_output=True, check=False, timeout=120
    )
    assert {address.removeprefix("::ffff:") for address in done.stdout.decode().split()} == {"127.0.0.1"}
    assert done.returncode in (-signal.Signals[ended_by], 1), done.stderr.decode()[-2000:]
    assert ("KeyboardInterrupt" in done.stderr.decode()) == (ended_by == "SIGINT")
    deadline = time.monotonic() + 20
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
    assert not (tmp_path / "home" / ".ray").exists(), "a token in the home folder would protect other clusters, too"
    assert not (tmp_path / "out" / HASHES).exists()
    again, whole = (run(rows, tmp_path / name, STEPS) for name in ("out", "whole"))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert json.dumps(again.funnel.as_dict()) == json.dumps(whole.funnel.as_dict())
    assert 0 < sum(again.computed.values()) < sum(whole.computed.values())

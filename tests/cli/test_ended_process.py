"""A command that is started again in several processes, and what is said where the system ends one of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher import api

from tutelage.cli import main
from tutelage.cli.launch import KILLED, in_processes
from tutelage.errors import EngineError


@pytest.mark.parametrize(
    ("count", "saved", "advice"),
    [
        (3, True, "go on with 2 of them: tutelage train --resume RUN --processes 2"),
        (2, True, "go on with 1 of them: tutelage train --resume RUN"),
        (2, False, "end what else takes memory on this machine, then give the same command again"),
        (2, None, "end what else takes memory on this machine, then give the same command again"),
    ],
)
def test_b12_where_memory_ran_out_what_is_advised_is_what_a_resume_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int, saved: bool | None, advice: str
) -> None:
    def killed(*_: Any) -> Any:
        def start(*_words: str) -> None:
            failure = ProcessFailure(local_rank=1, pid=1, exitcode=-KILLED, error_file="none")
            raise ChildFailedError("tutelage", {1: failure})

        return start

    monkeypatch.setattr(api, "elastic_launch", killed)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if saved:
        (tmp_path / "checkpoints" / "step-000002").mkdir(parents=True)

    with pytest.raises(EngineError, match="Process 1 of") as caught:
        in_processes(count, ["train"], folder=None if saved is None else tmp_path)

    assert caught.value.fix == advice.replace("RUN", str(tmp_path))
    assert caught.value.found == "signal 9, as where memory runs out"


@pytest.mark.parametrize("words", [("--replay",), ("--resume",)])
def test_a_run_is_replayed_or_resumed_in_as_many_processes_as_were_asked_for(
    train_tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    folder = train_tiny("train.max_steps=1", "evaluate.before=false", "evaluate.task=", "evaluate.general=").folder
    asked: list[Any] = []

    def start(config: Any, *_executable: str) -> Callable[..., None]:
        return lambda *given: asked.append((config.nproc_per_node, given))

    monkeypatch.setattr(api, "elastic_launch", start)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = ("train", *words, str(folder), "--processes", "2")
    monkeypatch.setattr(sys, "argv", ["tutelage", *command])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code in (0, None)
    assert asked == [(2, ("-m", "tutelage", *command))]

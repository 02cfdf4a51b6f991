"""Runs in children that are killed: `python killed_run.py loop FOLDER SEED KILLS` or `... cli RECIPE SEED KILLS`.

The parent imports torch once and forks, so that a kill costs no new start of Python. A child trains and saves without
pause; SIGKILL meets it at a random moment after it has come some way, and the next child goes on from what it left. The
last one is let to its end. A line of JSON says what each kill left behind.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.cli import main
from tutelage.optim.lr_schedule import LRSchedule
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import adamw
from tutelage.pack import Sampler, batches
from tutelage.runs.metrics_log import Recorder
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.train.listener import Listener
from tutelage.train.loop import Cadence, Parts, train
from tutelage.types import Address, Example, PackedSequence, Turn

CHANGED = ("train.epochs=6", "train.checkpoint_every=1", "lora.dropout=0.1", "evaluate.before=false", "evaluate.task=")
STEPS = 110
EVALUATE_EVERY = 4
PATIENCE_SECONDS = 120.0


def documents() -> list[Example]:
    made = []
    for number in range(24):
        ids = np.arange(number, number + 8, dtype=np.int32)
        weights = np.ones(8, dtype=np.float32)
        weights[0] = 0.0
        made.append(Example(Address("made", number), 0, ids, weights, (Turn(0, 1, 8),)))
    return made


def row_loss(model: Any, row: PackedSequence) -> tuple[torch.Tensor, int]:
    outputs = model(torch.from_numpy(row.ids).float().reshape(-1, 8) / 10)
    return (outputs - torch.from_numpy(row.ids).float().reshape(-1, 8).sin()).square().sum(), row.trained_tokens


def train_in(folder: Path) -> None:
    """A small network with dropout, saved after every step and measured after every fourth."""
    torch.manual_seed(1)
    layers = [torch.nn.Linear(8, 300), torch.nn.Tanh(), torch.nn.Linear(300, 300), torch.nn.Dropout(0.2)]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(300, 8))
    optimizer = MasterWeights(model, build=adamw(weight_decay=0.1, betas=(0.9, 0.99), epsilon=1e-8))
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    resumed = any((folder / "checkpoints").glob("step-*"))
    progress = checkpoints.restore_newest(optimizer) if resumed else Progress()
    examples, order = documents(), Sampler(24, 5, 100.0, 3, max_steps=STEPS)
    held = torch.ones(1, 8)

    def heldout() -> float:
        model.eval()
        with torch.no_grad():
            return float(model(held).square().sum())

    parts = Parts(
        model=model,
        row_loss=row_loss,
        optimizer=optimizer,
        schedule=LRSchedule(kind="cosine", peak=0.003, steps=STEPS, warmup_steps=5),
        max_grad_norm=1.0,
        cadence=Cadence(EVALUATE_EVERY, checkpoint_every=1),
        checkpoints=checkpoints,
        listener=Listener(Recorder(folder / "record.jsonl", from_step=progress.steps_done), lambda _record: None),
        heldout=heldout,
    )
    train(parts, batches(examples, order, row_tokens=24, start_step=progress.steps_done), progress)


def command(folder: Path) -> None:
    """`tutelage train RECIPE`, or `--resume` once there is something to go on from."""
    run = folder / "runs" / "tiny"
    resumed = any((run / "checkpoints").glob("step-*"))
    recipe = [str(folder / "recipe.toml"), *CHANGED]
    sys.argv = ["tutelage", "train", *(["--resume", str(run)] if resumed else recipe)]
    main()


@contextmanager
def child(work: Callable[[Path], None], folder: Path) -> Iterator[int]:
    """A forked process at work; whoever leaves the block has waited for it."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work(folder)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            os._exit(code)
    yield process


def steps_in(run: Path) -> int:
    """Checkpoints come and go; the highest number ever seen is the way a run has come."""
    numbers = [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]
    return max(numbers, default=0)


def kill_on_the_way(process: int, run: Path, chance: random.Random) -> bool:
    """SIGKILL at a random moment of the time a step takes, once two are done; False where it ended by itself before."""
    seen, at = [], steps_in(run)
    limit = time.monotonic() + PATIENCE_SECONDS
    while len(seen) < 2 and time.monotonic() < limit:
        if os.waitpid(process, os.WNOHANG)[0]:
            return False
        if (now := steps_in(run)) != at:
            at = now
            seen.append(time.monotonic())
        time.sleep(0.002)
    time.sleep(chance.uniform(0.0, seen[-1] - seen[0]))
    if os.waitpid(process, os.WNOHANG)[0]:
        return False
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return True


def left_behind(run: Path) -> list[str]:
    """Names that begin with a dot, in the run's folder and among its checkpoints."""
    folders = [one for one in (run, run / "checkpoints") if one.is_dir()]
    return sorted(path.name for folder in folders for path in folder.iterdir() if path.name.startswith("."))


def warm_up(kind: str) -> None:
    """Import what the children would each import again: torch loads some of itself with the first step."""
    one = torch.nn.Parameter(torch.ones(2))
    one.grad = torch.ones(2)
    torch.optim.AdamW([one], fused=True).step()
    if kind == "cli":
        for name in ("tutelage.train.run", "peft", "transformers.models.llama.modeling_llama"):
            importlib.import_module(name)


def nurse(work: Callable[[Path], None], folder: Path, run: Path, seed: int, kills: int) -> dict[str, Any]:
    """Kill as often as asked, then let one child finish."""
    chance = random.Random(seed)
    killed: list[dict[str, Any]] = []
    for _ in range(kills):
        with child(work, folder) as process:
            if not kill_on_the_way(process, run, chance):
                break
        killed.append({"at": steps_in(run), "left": left_behind(run)})
    with child(work, folder) as process:
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return {"killed": killed, "code": code, "left": left_behind(run)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    kind, where, seed, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    work, run = (train_in, where) if kind == "loop" else (command, where / "runs" / "tiny")
    warm_up(kind)
    sys.stdout.write("\n" + json.dumps(nurse(work, where, run, seed, kills)) + "\n")

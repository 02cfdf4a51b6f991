"""A run that kills itself with SIGKILL as it writes a reply: `python killed_evaluation.py FOLDER LINE ...`.

The recipe is in FOLDER. A session is a forked process that trains, or resumes, and dies in the middle of writing the
given line of replies, counted over all files and sessions; the last one is let to its end, and another evaluates the
run, killed and let to its end the same way (negative LINEs). A line of JSON says how many prompts each session asked.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tutelage.cli import main
from tutelage.evaluate import asking, reply_log


def dying_at(line: int | None) -> None:
    """Have this process write half of a line, and die."""
    written, write_all = 0, reply_log._write_all

    def write(descriptor: int, data: bytes) -> None:
        nonlocal written
        written += 1
        if written == line:
            os.write(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write_all(descriptor, data)

    reply_log._write_all = write


def noting(path: Path) -> None:
    """Have this process write down how many prompts it asks."""
    greedy_replies = asking.greedy_replies

    def ask(model: Any, tokenizer: Any, prompts: Any, **how: Any) -> Any:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(f"{len(prompts)}\n")
        return greedy_replies(model, tokenizer, prompts, **how)

    asking.greedy_replies = ask  # type: ignore[assignment] # fewer of its arguments are named


def session(work: Callable[[], None], asked: Path, line: int | None) -> int:
    """One process; its exit status, negative for a signal."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            dying_at(line)
            noting(asked)
            work()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def train(folder: Path) -> None:
    """`tutelage train RECIPE`, or `--resume` once the run has begun."""
    run = folder / "runs" / "tiny"
    sys.argv = ["tutelage", "train", *(["--resume", str(run)] if run.is_dir() else [str(folder / "recipe.toml")])]
    main()


def evaluate(folder: Path) -> None:
    """`tutelage evaluate`."""
    sys.argv = ["tutelage", "evaluate", str(folder / "runs" / "tiny"), "--json"]
    main()


def whole_lines(run: Path) -> int:
    """Of all replies that are kept."""
    return sum(path.read_bytes().count(b"\n") for path in run.glob("replies-*.jsonl"))


def sessions(folder: Path, lines: list[int]) -> list[dict[str, Any]]:
    """All of them, and what each left."""
    told = []
    trained = [line for line in lines if line > 0]
    evaluated = [-line for line in lines if line < 0]
    for work, deaths in ((train, trained), (evaluate, evaluated)):
        for number, line in enumerate([*deaths, None]):
            asked = folder / f"asked-{work.__name__}-{number}"
            kept = whole_lines(folder / "runs" / "tiny")
            code = session(lambda work=work: work(folder), asked, line)  # type: ignore[misc] # a lambda's default
            counts = [int(text) for text in asked.read_text(encoding="utf-8").split()] if asked.exists() else []
            left = whole_lines(folder / "runs" / "tiny")
            told.append({"code": code, "asked": sum(counts), "kept_before": kept, "kept_after": left})
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in (
        "tutelage.train.run",
        "tutelage.builders.evaluation",
        "peft",
        "transformers.models.llama.modeling_llama",
    ):
        importlib.import_module(name)
    sys.stdout.write("\n" + json.dumps(sessions(Path(sys.argv[1]), [int(text) for text in sys.argv[2:]])) + "\n")

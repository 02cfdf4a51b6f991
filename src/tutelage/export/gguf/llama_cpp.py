"""llama.cpp as a witness: what it makes of a file that was just written."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import DataError

MAX_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Witness:
    """A file, perhaps with an adapter, that llama.cpp is asked about.

    Attributes:
        model: the file.
        adapter: a LoRA file that is put on it.
        context: how many tokens it can hold.
        threads: how many compute.
    """

    model: Path
    adapter: Path | None = None
    context: int = 1024
    threads: int = 1

    def ask(self, steps: Sequence[dict[str, Any]]) -> list[Any]:
        """Answers to all steps; see `llama_cpp_process`.

        Raises:
            DataError: llama.cpp cannot load the file, or dies of a request.
        """
        questions = {
            "model": str(self.model),
            "adapter": None if self.adapter is None else str(self.adapter),
            "context": self.context,
            "threads": self.threads,
            "steps": list(steps),
        }
        with tempfile.TemporaryDirectory(prefix="tutelage-llama-") as scratch:
            asked, told = Path(scratch) / "questions.json", Path(scratch) / "answers.json"
            asked.write_text(json.dumps(questions), encoding="utf-8")
            done = subprocess.run(  # noqa: S603 - this Python, and files made here
                [sys.executable, "-m", "tutelage.export.gguf.llama_cpp_process", str(asked), str(told)],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=MAX_SECONDS,
                check=False,
            )
            if done.returncode != 0 or not told.is_file():
                raise DataError(
                    "llama.cpp cannot serve the file that was written",
                    where=str(self.model),
                    found=_last_lines(done.stderr) or f"it ended with status {done.returncode}",
                    expected="a file that llama.cpp loads",
                    fix="report this with the settings of the model (config.json): it is a fault of the export",
                )
            told_all: list[Any] = json.loads(told.read_text(encoding="utf-8"))
        return told_all


def is_available() -> bool:
    """Whether llama.cpp is installed, as the package xllamacpp."""
    return importlib.util.find_spec("xllamacpp") is not None


def tokenize(text: str, *, special: bool = False) -> dict[str, Any]:
    """A step that gives the ids of a text, control tokens recognized."""
    return {"route": "/tokenize", "body": {"content": text, "add_special": special, "parse_special": True}}


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:])

"""`record.jsonl`: one line for each step and each evaluation, flushed as it happens."""

from __future__ import annotations

import json
import math
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from tutelage.errors import SaveError, cause_of
from tutelage.train.folder import remedy, write_text


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step. `step` counts from 1 as people do; `peak_bytes` is the peak so far: see `peak_bytes`."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    trained_tokens: int
    tokens_per_second: float
    elapsed_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class HeldoutRecord:
    """One evaluation on held-out rows after `step` steps."""

    step: int
    heldout_loss: float
    elapsed_seconds: float


@dataclass(frozen=True, slots=True)
class RowsRecord:
    """Memory ran out in step `step`: it starts again, and from now on no row has more than `row_tokens` tokens.

    A single document may still be longer.
    """

    step: int
    row_tokens: int
    elapsed_seconds: float


Record = StepRecord | HeldoutRecord | RowsRecord


class Recorder:
    """Appends records to a JSONL file.

    Args:
        path: the file; None writes nothing. (Not the null device: the file is renamed into place, and root may.)
        from_step: keep earlier lines up to this step and drop later ones, which a resumed run writes again.
    """

    def __init__(self, path: Path | None, *, from_step: int = 0) -> None:
        kept = _lines_up_to(path, from_step) if path is not None and from_step > 0 and path.is_file() else []
        self.elapsed_before_seconds = float(json.loads(kept[-1])["elapsed_seconds"]) if kept else 0.0
        self.path = path
        self._stream: TextIO | None = None
        if path is None:
            return
        try:
            write_text(path, "".join(kept))  # renamed into place: a kill here must not lose what was recorded
            self._stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._not_written(error) from error

    def write(self, record: Record) -> None:
        """Write one line; a value that is not finite becomes null, as JSON has no NaN.

        Raises:
            SaveError: the disk is full or refuses.
        """
        if self._stream is None:
            return
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(record).items()
        }
        try:
            self._stream.write(json.dumps(values) + "\n")
            self._stream.flush()
        except OSError as error:
            raise self._not_written(error) from error

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _not_written(self, error: OSError) -> SaveError:
        return SaveError(
            "The record could not be written",
            where=str(self.path),
            found=cause_of(error),
            fix=f"{remedy(error)}, then resume the run",
        )


def _lines_up_to(path: Path, step: int) -> list[str]:
    kept = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            if line and json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except ValueError:  # the line that was being written when the process was killed
            break
    return kept


def peak_bytes() -> int:
    """Peak memory so far where the model computes: what PyTorch took of the GPU, or this process of the machine.

    Freed pieces that PyTorch keeps for later count: it is what must fit.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

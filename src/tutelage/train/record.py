"""`record.jsonl`: one line for each step and each evaluation, flushed as it happens."""

from __future__ import annotations

import json
import math
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step. `step` counts from 1 as people do; `peak_bytes` is the process's peak so far."""

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


class Recorder:
    """Appends records to a JSONL file.

    Args:
        path: the file.
        from_step: keep earlier lines up to this step and drop later ones, which a resumed run writes again.
    """

    def __init__(self, path: Path, *, from_step: int = 0) -> None:
        kept = []
        if from_step > 0 and path.is_file():
            for line in path.read_text(encoding="utf-8").split("\n"):
                if line and json.loads(line)["step"] <= from_step:
                    kept.append(line + "\n")
        self.elapsed_before_seconds = float(json.loads(kept[-1])["elapsed_seconds"]) if kept else 0.0
        path.write_text("".join(kept), encoding="utf-8")
        self._stream = path.open("a", encoding="utf-8")

    def write(self, record: StepRecord | HeldoutRecord) -> None:
        """Write one line; a value that is not finite becomes null, as JSON has no NaN."""
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(record).items()
        }
        self._stream.write(json.dumps(values) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

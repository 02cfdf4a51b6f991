"""`record.jsonl`: one line for each step and measurement, flushed as it happens; no other module opens the file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from tutelage.errors import CheckpointError, SaveError, cause_of, remedy
from tutelage.runs.folder import RECORD, write_text
from tutelage.runs.intermediate import IntermediateMeasure
from tutelage.system.seals import LINE_NUMBER, NumberedLine, numbered_lines, sealed_line


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step. `step` counts from 1 as people do; `peak_bytes` is the peak so far: see `peak_bytes`.

    `divergence` is KL(base || model) in nats per trained token of the replayed rows, as the forward met it (with
    dropout, if any); None where none of them was held to the base, and the line has no such key.
    """

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
    divergence: float | None = None


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


@dataclass(frozen=True, slots=True)
class MeasuredRecord:
    """The model as it was measured after `step` steps, while it trains."""

    step: int
    measured: IntermediateMeasure
    elapsed_seconds: float


Record = StepRecord | HeldoutRecord | RowsRecord | MeasuredRecord


class Recorder:
    """Appends records to a JSONL file; each line has its number, so that one that is taken out leaves a gap.

    Args:
        path: the file; None writes nothing. (Not the null device: the file is renamed into place, and root may.)
        from_step: keep earlier lines up to this step and drop later ones, which a resumed run writes again.
        log: receives a line for each damaged line; only those are left out.
    """

    def __init__(self, path: Path | None, *, from_step: int = 0, log: Callable[[str], None] = print) -> None:
        lines, damaged = read_record(path) if path is not None and from_step > 0 else ([], [])
        kept_lines = [line for line in lines if line["step"] <= from_step]
        last_step = max((line["step"] for line in kept_lines if "loss" in line), default=0)
        if path is not None and last_step < from_step:
            damaged.append(f"{path.name}: its last step is {last_step}, and the run had taken {from_step}")
        sealed_lines = [
            sealed_line(line | {LINE_NUMBER: number}) + "\n" for number, line in enumerate(kept_lines, start=1)
        ]
        self._lines = len(sealed_lines)
        for damage in damaged:
            log(f"  note: {damage}")
        self.previous_elapsed_seconds = max((float(line["elapsed_seconds"]) for line in kept_lines), default=0.0)
        self.path = path
        self._stream: TextIO | None = None
        if path is None:
            return
        try:
            write_text(path, "".join(sealed_lines))  # renamed into place: a kill here must not lose what was recorded
            self._stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._save_error(error) from error

    def write(self, record: Record) -> None:
        """Write one line; a value that is not finite becomes null, as JSON has no NaN.

        Raises:
            SaveError: the disk is full or refuses.
        """
        if self._stream is None:
            return
        try:
            line = _plain(asdict(record))
            if isinstance(record, StepRecord) and record.divergence is None:
                del line["divergence"]
            self._stream.write(sealed_line(line | {LINE_NUMBER: self._lines + 1}) + "\n")
            self._stream.flush()
            self._lines += 1
        except OSError as error:
            raise self._save_error(error) from error

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _save_error(self, error: OSError) -> SaveError:
        return SaveError(
            "The record could not be written",
            where=str(self.path),
            found=cause_of(error),
            fix=f"{remedy(error)}, then resume the run",
        )


def _plain(value: Any) -> Any:
    """As JSON has it, within other values too."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def record_path(folder: Path) -> Path:
    """Where the record of a run lies in its folder."""
    return folder / RECORD


def recorded_lines(path: Path, *, decode: Callable[[bytes], Any] | None = None) -> list[NumberedLine]:
    """All lines of a record, in their order, whatever is wrong with them.

    Args:
        path: the file.
        decode: as for `numbered_lines`.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    return list(numbered_lines(path.read_bytes(), decode=decode))


def read_record(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of a record in their order, and what is wrong with each that is not as it was written, or not where.

    The line that was being written when a process was killed counts as neither; no file has no lines.

    Raises:
        CheckpointError: the file cannot be read.
    """
    try:
        written = recorded_lines(path)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise CheckpointError(
            "The record cannot be read",
            where=str(path),
            found=cause_of(error),
            fix="make it readable for this user",
        ) from error
    lines: list[dict[str, Any]] = []
    damaged: list[str] = []
    for line in written:
        if not line.is_ended:
            continue
        if line.damage is not None:
            damaged.append(f"{path.name}, line {line.number}: {line.damage}; it is left out")
            continue
        lines.append(line.content)
        if line.misplaced is not None:
            damaged.append(f"{path.name}, line {line.number}: {line.misplaced}")
    return lines, damaged

"""What a run recorded, held against the run that repeats it, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tutelage.errors import CheckpointError
from tutelage.runs import folder as run_files
from tutelage.runs.metrics_log import HeldoutRecord, MeasuredRecord, Record, RowsRecord, read_record, record_path

COMPARED = ("loss", "gradient_norm", "learning_rate", "tokens", "trained_tokens", "heldout_loss")
"""Fields of the record that the settings decide; the others are times and memory."""
OTHER_PROCESSES = 1e-5
"""What another number of processes, which sum in another order, may change of a loss or norm, or as a share of one.
Source: tests/train/test_processes.py, fp32."""
NORM_OF_OTHER_PROCESSES = 1e-3
"""The same for the norm of a gradient, as a share of it: a sum over all weights, of a step behind others that differed
in their last bits, is further apart than a loss."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where two runs part: what it is, and the values recorded and found."""

    what: str
    recorded: str
    repeated: str

    def __str__(self) -> str:
        return f"{self.what}: {self.recorded} recorded, {self.repeated} now"


@dataclass(slots=True)
class RecordedRun:
    """A run that is being repeated.

    Args:
        folder: of the run.
        finished: whether it went to its end; one that did not is repeated up to the last step it recorded.
        lines: what its record says, by kind ("loss" or "heldout_loss") and step.
        compared: the same keys, as the repeating run comes to them.
        difference: the first one found.
        tolerance: what two numbers may be apart, as a share of those above one; 0 asks for the same bits. Above it
            `tokens` are not compared: with other processes, rows of another make are filled up with others.
    """

    folder: Path
    finished: bool
    lines: dict[tuple[str, int], dict[str, Any]]
    compared: set[tuple[str, int]] = field(default_factory=set)
    difference: Difference | None = None
    tolerance: float = 0.0

    @classmethod
    def of(cls, folder: Path, *, tolerance: float = 0.0) -> RecordedRun:
        """Read a run's record; later lines count, and one that breaks off does not.

        Raises:
            CheckpointError: a line is not as it was written.
        """
        lines: dict[tuple[str, int], dict[str, Any]] = {}
        written, damaged = read_record(record_path(folder))
        if damaged:
            raise CheckpointError(
                "The record of this run is damaged, so nothing can be held against it",
                where=str(record_path(folder)),
                found="; ".join(damaged[:3]),
                expected="the lines that the run wrote",
                fix="put the file back as it was",
            )
        for values in written:
            for kind in ("loss", "heldout_loss"):
                if kind in values:
                    lines[kind, values["step"]] = values
        return cls(folder, (folder / run_files.RESULT).is_file(), lines, tolerance=tolerance)

    @property
    def last_step(self) -> int:
        """The last step it recorded; 0 where it recorded none."""
        return max((step for _, step in self.lines), default=0)

    def compare(self, record: Record) -> None:
        """Compare what the repeating run comes to with what was recorded."""
        if isinstance(record, RowsRecord | MeasuredRecord) or self.difference is not None:
            return
        values = asdict(record)
        kind = "heldout_loss" if isinstance(record, HeldoutRecord) else "loss"
        recorded = self.lines.get((kind, record.step))
        self.compared.add((kind, record.step))
        if recorded is None:
            self.difference = Difference(f"step {record.step}, {kind}", "nothing", str(values[kind]))
            return
        for name in COMPARED:
            if name in values and not self._alike(name, _plain(values[name]), recorded.get(name)):
                self.difference = Difference(f"step {record.step}, {name}", str(recorded.get(name)), str(values[name]))
                return

    def _alike(self, name: str, repeated: Any, recorded: Any) -> bool:
        if self.tolerance == 0.0 or not isinstance(repeated, float) or not isinstance(recorded, float):
            return bool(repeated == recorded) or (self.tolerance > 0.0 and name == "tokens")
        difference = abs(repeated - recorded)
        if name == "gradient_norm" and difference <= NORM_OF_OTHER_PROCESSES * abs(recorded):
            return True
        return difference <= self.tolerance * max(1.0, abs(recorded))

    def beside(self, watch: Callable[[Record], None]) -> Callable[[Record], None]:
        """A watcher that hands each record to `watch`, then compares it."""

        def both(record: Record) -> None:
            watch(record)
            self.compare(record)

        return both

    def asked_to_stop(self) -> bool:
        """Whether there is nothing more to compare: the runs have parted, or the record ends here."""
        at_end = not self.finished and ("loss", self.last_step) in self.compared
        return at_end or self.difference is not None

    def conclude(self) -> None:
        """Note what was recorded and never met."""
        missed = sorted(set(self.lines) - self.compared, key=lambda line: line[1])
        if missed and self.difference is None:
            kind, step = missed[0]
            self.difference = Difference(f"step {step}, {kind}", str(self.lines[missed[0]][kind]), "nothing")


def _plain(value: Any) -> Any:
    """As JSON has it: a value that is not finite is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors of a kind are the same to the last bit; so is a NaN to itself."""
    return torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))


def first_different_tensor(recorded: Path, repeated: Path) -> Difference | None:
    """The first tensor, by file and name, that is not the same to the last bit in two folders of safetensors files."""
    files = [sorted(path.name for path in folder.glob("*.safetensors")) for folder in (recorded, repeated)]
    if files[0] != files[1]:
        return Difference("files of the weights", ", ".join(files[0]) or "none", ", ".join(files[1]) or "none")
    for name in files[0]:
        with (
            safe_open(recorded / name, framework="pt") as recorded_file,
            safe_open(repeated / name, framework="pt") as repeated_file,
        ):
            names = [sorted(file.keys()) for file in (recorded_file, repeated_file)]
            if names[0] != names[1]:
                unshared = sorted(set(names[0]) ^ set(names[1]))[0]
                return Difference(f"{name}, {unshared}", str(unshared in names[0]), str(unshared in names[1]))
            for key in names[0]:
                recorded_tensor, repeated_tensor = recorded_file.get_tensor(key), repeated_file.get_tensor(key)
                kinds = [f"{tensor.dtype} {[*tensor.shape]}" for tensor in (recorded_tensor, repeated_tensor)]
                if kinds[0] != kinds[1]:
                    return Difference(f"{name}, {key}", *kinds)
                if not _same_bits(recorded_tensor, repeated_tensor):
                    gap = float((recorded_tensor.double() - repeated_tensor.double()).abs().max())
                    largest = f"largest value {float(recorded_tensor.double().abs().max()):.6g}"
                    return Difference(f"{name}, {key}", largest, f"up to {gap:.3g} away")
    return None

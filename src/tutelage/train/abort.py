"""A step that must not be taken: the last good state is saved, the step's rows are written down, the run ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import FitError, TrainingError, cause_of, command
from tutelage.optim.master_weights import MasterWeights, non_finite_names
from tutelage.runs import folder as run_files
from tutelage.train.checkpoint import Checkpoints, Progress
from tutelage.types import Batch, PackedSequence

SHOWN_ADDRESSES = 4
NEXT_ROW_TOKENS = "next_row_tokens"
"""Key in `stopped.json`: the budget of a row that a resume begins with."""


def abort_before_step(
    batch: Batch,
    rows: Sequence[PackedSequence],
    losses: Sequence[float],
    *,
    spike: bool,
    norm: float,
    progress: Progress,
    optimizer: MasterWeights,
    checkpoints: Checkpoints,
    process_group: ProcessGroup = SINGLE,
) -> TrainingError:
    """Save the state before `batch`, write `stopped.json` into the run's folder, and return the error to raise.

    Args:
        batch: the step that is not taken.
        rows: its rows as they were computed.
        losses: the summed loss of each.
        spike: the loss is finite, and too large to learn from.
        norm: that of the gradient; NaN where it was not looked at.
        progress: of the step before.
        optimizer: its masters are untouched by the step; its gradients are dropped.
        checkpoints: receives the state, however few it keeps.
        process_group: the processes that share the batch; all come here.

    Raises:
        SaveError: the disk is full or refuses.
    """
    optimizer.zero_gradients()
    loss = process_group.sum(sum(losses))[0] / batch.trained_tokens
    median_loss = median(progress.recent_losses) if spike else None
    stop_report = {
        "reason": "loss_spike" if spike else "not_finite",
        "loss": _number(loss),
        "gradient_norm": _number(norm),
        "median_loss": median_loss,
    }
    records_by_rank = process_group.gather(
        [_micro_batch_record(row, summed) for row, summed in zip(rows, losses, strict=True)]
    )
    micro_batches = [record for rank_records in records_by_rank for record in rank_records]
    saved = _save_and_write_stop_report(
        batch, stop_report, micro_batches, progress=progress, optimizer=optimizer, checkpoints=checkpoints
    )
    run_folder = checkpoints.folder.parent
    lower = "start a new run with a lower train.learning_rate"
    fix = f"the weights themselves are no longer finite: {lower}"
    if saved:
        fix = f"look at these rows; then {_skip_step_phrase(run_folder)}, or {lower}"
    return TrainingError(
        f"Step {batch.step + 1} {'is a loss spike' if spike else 'is not finite'}; the run stops before it",
        where=_named_addresses(micro_batches, run_folder / run_files.STOPPED),
        found=f"loss {loss}, gradient norm {norm}"
        if median_loss is None
        else f"loss {loss:.4g}; the median was {median_loss:.4g}",
        expected="finite numbers" if median_loss is None else "a loss near those of the steps before it",
        fix=fix,
    )


def abort_out_of_memory(
    batch: Batch, row: PackedSequence, *, progress: Progress, optimizer: MasterWeights, checkpoints: Checkpoints
) -> FitError:
    """The same for a row of one document that memory is too small for: there is nothing to divide.

    Raises:
        SaveError: the disk is full or refuses.
    """
    tokens = len(row.ids)
    stop_report = {"reason": "out_of_memory", "row_tokens": tokens}
    micro_batches = [{"addresses": [str(address) for address in row.addresses]}]
    _save_and_write_stop_report(
        batch, stop_report, micro_batches, progress=progress, optimizer=optimizer, checkpoints=checkpoints
    )
    return FitError(
        f"One example of step {batch.step + 1} alone does not fit in memory; the run stops before it",
        where=", ".join(map(str, row.addresses)),
        found=f"{tokens} tokens in a row of its own",
        expected="room for its forward and backward pass",
        fix=f"{_skip_step_phrase(checkpoints.folder.parent)}; or start a new run with pack.max_seq_length below "
        f"{tokens}, or another model.method or model.precision",
    )


def abort_out_of_memory_on_rank(
    batch: Batch, row: PackedSequence, *, process_group: ProcessGroup, checkpoints: Checkpoints
) -> FitError:
    """Memory ran out on one of several processes: the others cannot be called back from the step they are in.

    Nothing can be saved together any more. `stopped.json` says how long rows may be, and a resume keeps to it
    (`row_tokens_after_out_of_memory`).
    """
    run_folder, tokens = checkpoints.folder.parent, len(row.ids)
    addresses = [str(address) for address in row.addresses]
    newest = checkpoints.newest()
    stop_report: dict[str, Any] = {"step": batch.step + 1, "reason": "out_of_memory", "process": process_group.rank}
    stop_report |= {"row_tokens": tokens, "checkpoint": newest, "rows": [{"addresses": addresses}]}
    resume_phrase = f"go on from {newest or 'the start'}"
    fix = f"{_skip_step_phrase(run_folder)}; or start a new run with pack.max_seq_length below {tokens}"
    if len(addresses) > 1:
        stop_report[NEXT_ROW_TOKENS] = tokens // 2
        resume_command = command("train", "--resume", run_folder, "--processes", process_group.size)
        fix = f"{resume_phrase} with rows of at most {tokens // 2} tokens: {resume_command}"
    run_files.write_json(run_folder / run_files.STOPPED, stop_report)
    return FitError(
        f"Memory ran out in step {batch.step + 1}, on process {process_group.rank} of "
        f"{process_group.size}; the run ends",
        where=_named_addresses(stop_report["rows"], run_folder / run_files.STOPPED) or None,
        found=f"a row of {tokens} tokens",
        expected="room for the forward and backward pass of a row",
        fix=f'{fix}; train.activation_checkpointing = "on" saves memory in a new run',
    )


def row_tokens_after_out_of_memory(run_folder: Path, *, log: Callable[[str], None]) -> int | None:
    """How long rows may be as memory ran out on one of several processes; None where it did not, or that is over.

    Args:
        run_folder: holds `stopped.json`, or not.
        log: told where that file is damaged.
    """
    path = run_folder / run_files.STOPPED
    try:
        row_tokens: int | None = run_files.read_json(path).get(NEXT_ROW_TOKENS)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log(f"  note: {path.name} is damaged ({cause_of(error)}); rows are as long as the newest checkpoint has them")
        return None
    return row_tokens


def _save_and_write_stop_report(
    batch: Batch,
    stop_report: dict[str, Any],
    rows: list[dict[str, Any]],
    *,
    progress: Progress,
    optimizer: MasterWeights,
    checkpoints: Checkpoints,
) -> bool:
    """Save the state unless it is itself not finite, write `stopped.json`; whether it was saved."""
    finite = not checkpoints.process_group.any(bool(non_finite_names(optimizer.masters)))
    saved = checkpoints.save(optimizer, progress, keep_older=True).name if finite else None
    content = {"step": batch.step + 1, **stop_report, "checkpoint": saved, "rows": rows}
    if checkpoints.process_group.is_main:
        run_files.write_json(checkpoints.folder.parent / run_files.STOPPED, content)
    return finite


def _skip_step_phrase(run_folder: Path) -> str:
    return f"{command('train', '--resume', run_folder, '--skip-step')} leaves this step out"


def _micro_batch_record(row: PackedSequence, summed: float) -> dict[str, Any]:
    return {
        "loss": _number(summed / max(1, row.trained_tokens)),
        "addresses": [str(address) for address in row.addresses],
    }


def _named_addresses(rows: list[dict[str, Any]], path: Path) -> str:
    addresses = [address for row in rows for address in row["addresses"]]
    omitted_count = len(addresses) - SHOWN_ADDRESSES
    return ", ".join(addresses[:SHOWN_ADDRESSES]) + (
        f" and {omitted_count} more rows, all in {path}" if omitted_count > 0 else ""
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""A run before its model is loaded: what it needs is there, its data prepared; its folder says what it began with."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tutelage import config
from tutelage.audit.embedding_rows import untrained_tokens
from tutelage.builders.base_model import start_folder
from tutelage.builders.dataset import Prepared, prepare, prepared_cache
from tutelage.builders.positions import positions_of
from tutelage.builders.resolved_run import ResolvedRun
from tutelage.builders.run_inputs import inputs_of
from tutelage.builders.sampler import questions_of_length
from tutelage.config import Settings
from tutelage.distributed.process_group import ProcessGroup
from tutelage.model.precision import resolve_precision
from tutelage.model.quantization import require_bitsandbytes
from tutelage.optim.optimizers import require_optimizer, slow_here
from tutelage.render.token_text import colored_rows
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import read_inputs, require_same_inputs, write_inputs
from tutelage.runs.lock import locked, new_run_folder
from tutelage.runs.metrics_log import read_record, record_path
from tutelage.runs.row_ledger import row_ledger_damage, write_row_ledger
from tutelage.runs.trackers import require_tracker
from tutelage.train.announcement import announce_data
from tutelage.train.extension import (
    Part,
    as_entry,
    has_other_length,
    order_over_parts,
    parts_of,
    require_more,
    with_length,
)
from tutelage.train.preflight import embedding_fix, pass_gates
from tutelage.train.replay_comparison import RecordedRun

ROWS_SHOWN = 24


def opened(
    resolved: ResolvedRun,
    screen: Screen,
    process_group: ProcessGroup,
    *,
    resume: bool,
    checkpoint: str | None,
    skipped: list[int],
    recorded: RecordedRun | None,
) -> tuple[Path, Prepared, ExitStack]:
    """The model's folder and the data; problems show before a model is loaded. The main process writes them down.

    With them comes what holds the run's folder: its lock, on the main process, until it is closed.
    """
    settings, folder = resolved.settings, resolved.settings.run_folder
    if resume:
        require_more(folder, settings)
    if settings.model.method == "qlora":
        require_bitsandbytes()
    require_optimizer(settings.train.optimizer, device=resolved.device)
    for name in settings.train.trackers:
        require_tracker(name)
    base = start_folder(settings.model, log=screen.log)
    positions = positions_of(settings, base)
    if not process_group.is_main:
        return base, prepare(positions.within(settings), base, cache=prepared_cache()), ExitStack()
    with ExitStack() as resources:
        lock_folder = locked if resume else new_run_folder
        resources.enter_context(lock_folder(folder, log=screen.log))
        if resume:
            require_more(folder, settings)  # another process may have finished it until now
        native_bf16 = resolve_precision("auto") == "bf16"
        slow = slow_here(settings.train.optimizer, native_bf16=native_bf16)
        for question in [*config.questions(settings), *([slow] if slow else [])]:
            screen.log(f"Is this meant? {question}")
        with run_files.scratch_file(folder / run_files.DROPS) as drops:
            fitting = positions.within(settings, log=screen.log)
            prepared = prepare(fitting, base, ledger_path=drops, cache=prepared_cache(), log=screen.log)
            positions.require_room(settings, prepared)
            _pass_gates(settings, prepared, base)
            earlier = read_inputs(folder) if resume else None if recorded is None else read_inputs(recorded.folder)
            parts = parts_of(settings, prepared, earlier or {}, resume=resume, checkpoint=checkpoint)
            _write_inputs(resolved, base, prepared, earlier, screen, resume=resume, skipped=skipped, parts=parts)
        announce_data(screen, prepared)
        order = order_over_parts(settings, prepared, parts)
        for question in filter(None, [*questions_of_length(settings, order), positions.question(prepared)]):
            screen.log(f"Is this meant? {question}")
        return base, prepared, resources.pop_all()


def has_no_step_yet(folder: Path) -> bool:
    """Whether a run was ended before its first step, while its base was asked or after it: it begins there again."""
    asked = any((folder / name).is_file() for name in (run_files.BEFORE, run_files.REPLIES_BEFORE))
    return asked and not read_record(record_path(folder))[0]


def _pass_gates(settings: Settings, prepared: Prepared, base: Path) -> None:
    tokenizer, trains_on_all = prepared.renderer.tokenizer, settings.render.train_on == "all"
    untrained_V, fix = untrained_tokens(base, tokenizer), embedding_fix(settings, base)
    token_ids = [tokenizer.fast.token_to_id(add_token) for add_token in settings.model.add_tokens]
    new_ids = [token_id for token_id in token_ids if token_id is not None]
    if untrained_V is not None:
        untrained_V[new_ids] = True
    for note in pass_gates(
        prepared.train, tokenizer, untrained_V=untrained_V, whole=trains_on_all, fix=fix, new_ids=frozenset(new_ids)
    ):
        prepared.ledger.note(note)


def _write_inputs(
    resolved: ResolvedRun,
    base: Path,
    prepared: Prepared,
    earlier: dict[str, Any] | None,
    screen: Screen,
    *,
    resume: bool,
    skipped: list[int],
    parts: tuple[Part, ...],
) -> None:
    """Record settings, hashes, books and a few rows; a resume or replay must find the bytes that the run began with.

    Where it does not, nothing in the folder has changed.
    """
    settings, folder = resolved.settings, resolved.settings.run_folder
    inputs = inputs_of(resolved, prepared, base, skipped=skipped, log=screen.log)
    if earlier is not None:
        recorded_inputs = with_length(earlier, settings) if resume else earlier
        inputs |= require_same_inputs(recorded_inputs, inputs, resume=resume, log=screen.log)
    inputs |= as_entry(parts)
    if resume and has_other_length(folder, settings) and (folder / run_files.RESULT).is_file():
        aside = run_files.move_finished_aside(folder, steps=parts[-1].steps)
        steps = order_over_parts(settings, prepared, parts).steps
        screen.log(f"What the run ended with is now in {aside}; it goes on to step {steps}")
    for damage in row_ledger_damage(folder) if resume else ():
        screen.log(f"  note: the books were damaged ({damage}); they are written again, from the same data")
    run_files.publish(folder / run_files.DROPS)
    run_files.clear_scratch(folder)
    write_inputs(folder, inputs)  # before the settings, whose length is new for a resume until they have it
    run_files.write_text(folder / run_files.SETTINGS, config.dump(settings))
    write_row_ledger(folder, prepared.ledger, colored_rows(prepared.train[:ROWS_SHOWN], prepared.renderer.tokenizer))

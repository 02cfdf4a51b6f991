"""What the planner says of a run: its fullest row, and whether its activations have to be computed again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

from tutelage.builders.base_model import start_name
from tutelage.builders.dataset import Prepared
from tutelage.builders.resolved_run import ResolvedRun
from tutelage.builders.sampler import replay_source, replayed_from, sampler_for
from tutelage.errors import TutelageError, cause_of
from tutelage.model.activation_checkpointing import recomputes
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.model.refusals import REFUSALS
from tutelage.pack import batches
from tutelage.plan.devices import this_machine
from tutelage.plan.fit import Choice, choose_checkpointing
from tutelage.plan.model_shape import ModelShape, read_model_shape
from tutelage.plan.noise import draws_noise
from tutelage.plan.workload import Workload
from tutelage.types import PackedSequence

LOOKED_AT_STEPS = 20
"""Steps whose rows are packed to find the fullest; later ones can be no fuller than `pack.row_tokens`."""
SURE_SHARE = 0.5
"""A run that a rough estimate puts below this share of the free memory is not counted out, which takes seconds."""
BYTES_A_PARAMETER = 18
"""bf16 weights, fp32 masters, gradients and two moments, see `optim.master_weights`: more than any method keeps."""
ACTIVATION_BYTES = 34
"""For each token, hidden unit and layer, in 16 bits, without the attention matrix.
Source: Korthikanti et al. 2022 (Reducing Activation Recomputation), section 4.1; doubled below, as allocators waste."""


def fullest_row(resolved: ResolvedRun, prepared: Prepared, model_shape: ModelShape) -> PackedSequence:
    """The row with the most tokens among those of a run's first steps, packed as that run packs them."""
    sampler = sampler_for(resolved.settings, examples=len(prepared.train), sources=prepared.sources)
    run_batches = batches(
        prepared.train,
        sampler,
        row_tokens=resolved.row_tokens,
        share_prefixes=resolved.trains_on_shared_prefixes and not draws_noise(model_shape),
        replayed_from=replayed_from(resolved.settings, prepared.train_totals.examples),
    )
    rows = (row for batch in islice(run_batches, LOOKED_AT_STEPS) for row in batch.rows)
    return max(rows, key=lambda row: len(row.ids))


def kept_tokens(resolved: ResolvedRun, prepared: Prepared) -> int:
    """About how many trained tokens of replayed examples a run visits, each counted once."""
    source = replay_source(prepared.sources)
    if source is None:
        return 0
    visits = min(len(source.indices), math.ceil(resolved.settings.train.epochs * source.epoch_visits))
    return round(float(prepared.train.column("trained_tokens")[source.indices].mean()) * visits)


def workload_of(resolved: ResolvedRun, row: PackedSequence, prepared: Prepared) -> Workload:
    """A step of the run on `row`; activations are not computed again where that is not decided yet."""
    settings, lora = resolved.settings, resolved.settings.lora
    return Workload(
        method=settings.model.method,
        precision=resolved.precision,
        document_tokens=row.document_tokens,
        parents=row.parents,
        trained_tokens=row.trained_tokens,
        optimizer=settings.train.optimizer,
        checkpointing=resolved.recompute is True,
        averaged=settings.train.ema_decay is not None,
        pulled_to_base=settings.train.l2_to_base is not None,
        held_to_base=settings.train.kl_to_base is not None,
        kept_tokens=0 if settings.train.kl_to_base is None else kept_tokens(resolved, prepared),
        frozen=tuple(settings.model.freeze),
        lora_rank=lora.rank,
        dora=lora.dora,
        double_quantization=settings.qlora.double_quantization,
        virtual_tokens=settings.prompt.tokens,
        lora_targets=lora.target_modules if isinstance(lora.target_modules, str) else tuple(lora.target_modules),
    )


def checkpointing_choice(resolved: ResolvedRun, prepared: Prepared, *, log: Callable[[str], Any]) -> Choice:
    """Whether a step of this run fits the memory that is free here without computing activations again.

    Raises:
        TutelageError: the model cannot be planned.
    """
    model_shape = _model_shape(resolved, log=log)
    workload = workload_of(resolved, fullest_row(resolved, prepared, model_shape), prepared)
    return choose_checkpointing(model_shape, workload, this_machine())


def decide_recompute(resolved: ResolvedRun, prepared: Prepared, *, log: Callable[[str], Any]) -> ResolvedRun:
    """The record with `recompute` decided, by what the planner finds for this machine where it was left open.

    That a model cannot be planned is no reason not to train it: then the room in a row decides.

    Args:
        resolved: of the run.
        prepared: its data.
        log: told the figures where activations are computed again, and why there is no plan where there is none.
    """
    if resolved.recompute is not None:
        return resolved
    try:
        recompute = _planned_recompute(resolved, prepared, log=log)
    except (TutelageError, *REFUSALS) as error:  # the planner runs the model's own code on tensors without numbers
        if is_out_of_memory(error):
            raise
        recompute = recomputes("auto", row_tokens=resolved.row_tokens)
        cause = error.found or error.what if isinstance(error, TutelageError) else cause_of(error)
        log(f"  no plan of its memory ({cause}): activation checkpointing {'on' if recompute else 'off'}")
    return replace(resolved, recompute=recompute)


def _planned_recompute(resolved: ResolvedRun, prepared: Prepared, *, log: Callable[[str], Any]) -> bool:
    """Whether one process computes activations again, by what is free here."""
    device = this_machine()
    rough_bytes = device.overhead.process_bytes + _rough_bytes(_model_shape(resolved, log=log), resolved.row_tokens)
    if rough_bytes < SURE_SHARE * device.memory_bytes:
        return False
    choice = checkpointing_choice(resolved, prepared, log=log)
    if choice.on:
        log(f"  {choice.reason}")
    return choice.on


def _model_shape(resolved: ResolvedRun, *, log: Callable[[str], Any]) -> ModelShape:
    model = resolved.settings.model
    return read_model_shape(start_name(model, log=log), trust_remote_code=model.trust_remote_code, log=log)


def _rough_bytes(model_shape: ModelShape, row_tokens: int) -> int:
    """Bytes of a step in fp32, by formula: generous, so that only runs that surely fit stay below."""
    activations = 2 * 2 * ACTIVATION_BYTES * row_tokens * model_shape.hidden_width * model_shape.layers
    return BYTES_A_PARAMETER * model_shape.parameters + activations

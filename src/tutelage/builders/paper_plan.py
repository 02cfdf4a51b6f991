"""The plan of a recipe at the size of its paper, where neither its model nor its data is here; the gate before it."""

from __future__ import annotations

import json
import math
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from tutelage.builders.base_model import start_name
from tutelage.config import Settings
from tutelage.errors import FitError, SourceNotFoundError, command
from tutelage.model.configuration import CONFIG_FILE
from tutelage.model.precision import resolve_precision
from tutelage.plan.console import gigabytes
from tutelage.plan.devices import Device, this_machine
from tutelage.plan.model_shape import ModelShape, read_model_shape
from tutelage.plan.plan import DataVolume, Plan, make_plan
from tutelage.plan.workload import COMPUTE_BYTES, Workload, document_lengths

Say = Callable[[str], Any]
FULL_STATE_BYTES = {"adamw": 16, "paged_adamw": 8, "adamw_8bit": 10, "paged_adamw_8bit": 8, "adafactor": 8, "muon": 12}
"""Bytes a trained parameter at the least: fp32 master and gradient, and what the optimizer keeps beside them."""


def published_shapes() -> dict[str, dict[str, Any]]:
    """What is known of the configuration of the models that papers trained, by their hub ids."""
    return tomllib.loads(files("tutelage.plan").joinpath("published_shapes.toml").read_text(encoding="utf-8"))


def paper_plan(settings: Settings, device: Device, *, probe: bool, log: Say) -> Plan:
    """What a step of the published settings needs: a full row of the longest documents, every token but one trained.

    Args:
        settings: of a recipe at the size `paper`.
        device: what it is planned for.
        probe: time a few layers.
        log: told what stands for what is not here.

    Raises:
        SourceNotFoundError: the model is not here, not reachable, and not one whose shape is known.
        ConfigError: the method or precision cannot be used.
    """
    shape = paper_shape(settings, log=log)
    longest = settings.pack.max_seq_length
    row_tokens = max(settings.pack.row_tokens or 0, longest)
    targets = settings.lora.target_modules
    workload = Workload(
        settings.model.method,
        resolve_precision(settings.model.precision),
        document_lengths(row_tokens, longest),
        row_tokens - 1,
        optimizer=settings.train.optimizer,
        checkpointing=settings.train.activation_checkpointing == "on",
        lora_rank=settings.lora.rank,
        lora_targets=targets if isinstance(targets, str) else tuple(targets),
        averaged=settings.train.ema_decay is not None,
    )
    log(f"planned by a full row of {row_tokens:,} tokens: the data is not read")
    return make_plan(shape, workload, device, data_volume=published_volume(settings), probe=probe, log=log)


def published_volume(settings: Settings) -> DataVolume | None:
    """What a run of the published settings goes through, by what is published of its data; None where nothing is.

    Steps are rows times epochs over the batch, and no more than `train.max_steps`. Tokens are those of a mean row,
    where that is known, or else of the longest.
    """
    data, train, rows = settings.data, settings.train, settings.data.published_rows
    if rows is None:
        return None
    steps = math.ceil(rows * train.epochs / train.batch_size)
    steps = steps if train.max_steps is None else min(steps, train.max_steps)
    row_tokens = data.published_row_tokens or settings.pack.max_seq_length
    basis: Literal["published", "published, at most"]
    basis = "published, at most" if data.published_row_tokens is None else "published"
    return DataVolume(rows, rows * row_tokens, None, steps, float(row_tokens * min(rows, train.batch_size)), basis)


def paper_shape(settings: Settings, *, log: Say) -> ModelShape:
    """The model's shape by its own config.json, or, where that cannot be reached, by what is published of it.

    Raises:
        SourceNotFoundError: it is neither here nor reachable nor known.
    """
    try:
        return read_model_shape(start_name(settings.model, log=log), log=log)
    except SourceNotFoundError:
        facts = published_shapes().get(settings.model.name)
        if facts is None:
            raise
    log(f"{settings.model.name} is not here: its shape is what is published of it, mostly its config.json")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / CONFIG_FILE
        file.write_text(json.dumps(facts), encoding="utf-8")
        return replace(read_model_shape(str(file), log=log), name=settings.model.name)


def require_paper_fits(settings: Settings, *, log: Say) -> None:
    """Refuse the size `paper` before anything is loaded or fetched, where this machine cannot even hold the weights.

    Weights, fp32 master weights, gradients and AdamW's moments alone are counted, which takes a second; what passes is
    held to the whole plan later, as every run is.

    Raises:
        FitError: it cannot, with what it needs and what is here.
        SourceNotFoundError: as `paper_shape`.
    """
    if settings.model.method != "full":
        return
    device, shape = this_machine(), paper_shape(settings, log=log)
    stored_bytes = COMPUTE_BYTES[resolve_precision(settings.model.precision)]
    needed = shape.parameters * (stored_bytes + FULL_STATE_BYTES[settings.train.optimizer])
    if needed <= device.memory_bytes:
        return
    raise FitError(
        f"The published settings need more than {gigabytes(needed)}, and this machine has "
        f"{gigabytes(device.memory_bytes)}",
        where=f"{device.name}: {settings.model.name}, {shape.parameters:,} parameters, all of them trained",
        found="the size paper",
        expected="a machine with the memory, or several processes that share the model: --processes",
        fix="take the size for this machine: --size laptop; what other machines hold: "
        + command("plan", "RECIPE", "--size", "paper"),
    )

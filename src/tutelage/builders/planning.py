"""From a recipe or a model's name to its plan: finds the model, counts the data, names the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from tutelage.builders.base_model import start_folder, start_name, with_adapters_own
from tutelage.builders.dataset import Prepared, prepare, prepared_cache
from tutelage.builders.memory_plan import checkpointing_choice, fullest_row, workload_of
from tutelage.builders.paper_plan import paper_plan
from tutelage.builders.resolved_run import resolve
from tutelage.builders.row_limit import held_to_positions
from tutelage.builders.sampler import epoch_tokens, sampler_for
from tutelage.config import Settings
from tutelage.errors import ConfigError
from tutelage.model.precision import resolve_precision
from tutelage.plan.console import gigabytes
from tutelage.plan.devices import Device, this_machine
from tutelage.plan.memory import lora_init_bytes
from tutelage.plan.model_shape import read_model_shape
from tutelage.plan.plan import DataVolume, Plan, make_plan
from tutelage.plan.workload import METHODS, single_document

PRECISIONS: tuple[Literal["auto", "bf16", "fp32"], ...] = ("auto", "bf16", "fp32")
Say = Callable[[str], Any]


def of_recipe(
    settings: Settings, *, memory_gb: float | None, probe: bool, log: Say, prepared: Prepared | None = None
) -> Plan:
    """The plan of a recipe, its tokens and steps counted on its prepared data.

    Args:
        settings: of the run.
        memory_gb: plan for this much memory; None for what is free here.
        probe: time a few layers.
        log: told what goes on.
        prepared: the data, where it is at hand.

    Raises:
        TutelageError: the recipe's data or model cannot be used, or its settings do not go together.
    """
    if settings.size == "paper" and prepared is None:
        return paper_plan(settings, _device(memory_gb), probe=probe, log=log)
    settings = with_adapters_own(settings)
    resolved = resolve(settings)
    if prepared is None:
        folder = start_folder(settings.model, weights=False, log=log)
        fitting, _ = held_to_positions(settings, folder, log=log)
        log("proving the data")
        prepared = prepare(fitting, folder, cache=prepared_cache(), log=lambda _text: None)
    model_name = start_name(settings.model, log=log)
    model_shape = read_model_shape(model_name, trust_remote_code=settings.model.trust_remote_code, log=log)
    workload = workload_of(resolved, fullest_row(resolved, prepared, model_shape), prepared)
    if settings.model.method == "lora" and (init_bytes := lora_init_bytes(model_shape, settings.lora.init)):
        log(f"lora.init = {settings.lora.init} takes {gigabytes(init_bytes)} beside the weights before the first step")
    data_volume = _data_volume(settings, prepared)
    return make_plan(model_shape, workload, _device(memory_gb), data_volume=data_volume, probe=probe, log=log)


def memory_line(settings: Settings, prepared: Prepared, *, log: Say) -> str:
    """For a dry run: the peak of the recipe's method, what is free, and whether activations will be recomputed.

    Raises:
        TutelageError: the model cannot be planned.
    """
    choice = checkpointing_choice(resolve(settings), prepared, log=log)
    return f"{gigabytes(choice.without_bytes)} at the peak; {choice.reason}; more: tutelage plan"


def of_model(
    model: str, method: str, tokens: int, precision: str, *, memory_gb: float | None, probe: bool, log: Say
) -> Plan:
    """The plan of a model without data, a row being one document of `tokens` tokens.

    Raises:
        ConfigError: there is no such method or precision.
        TutelageError: the model cannot be used.
    """
    known_method = next((choice for choice in METHODS if choice == method), None)
    known_precision = next((choice for choice in PRECISIONS if choice == precision), None)
    if known_method is None or known_precision is None:
        raise ConfigError(
            "There is no such method" if known_method is None else "There is no such precision",
            where="--method" if known_method is None else "--precision",
            found=method if known_method is None else precision,
            expected=", ".join(METHODS if known_method is None else PRECISIONS),
            fix="give one of them",
        )
    model_shape = read_model_shape(model, log=log)
    workload = single_document(known_method, resolve_precision(known_precision), tokens)
    return make_plan(model_shape, workload, _device(memory_gb), probe=probe, log=log)


def _device(memory_gb: float | None) -> Device:
    device = this_machine()
    if memory_gb is None:
        return device
    size_bytes = round(memory_gb * 1e9)
    name = f"{device.name}, with {memory_gb:g} GB"
    return replace(device, name=name, memory_bytes=size_bytes, total_bytes=size_bytes, source="--memory-gb")


def _data_volume(settings: Settings, prepared: Prepared) -> DataVolume:
    """What a run goes through."""
    sampler = sampler_for(settings, examples=len(prepared.train), sources=prepared.sources)
    tokens = epoch_tokens(prepared.train, prepared.sources)
    return DataVolume(
        examples=round(sampler.epoch_visits),
        tokens=round(tokens),
        trained_tokens=round(epoch_tokens(prepared.train, prepared.sources, column="trained_tokens")),
        steps=sampler.steps,
        step_tokens=tokens / sampler.epoch_visits * min(settings.train.batch_size, sampler.visits),
    )

"""Settings, data and the model to start from -> the entries of `inputs.json`: all that decides a run's numbers."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tutelage.builders.base_model import continued, names_a_run, start_adapter
from tutelage.builders.dataset import Prepared
from tutelage.builders.resolved_run import ResolvedRun
from tutelage.config import Settings
from tutelage.config.sections import ModelSettings
from tutelage.errors import CheckpointError
from tutelage.model.checksums import model_sha256
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import STARTED_IN, STARTS, deciding_settings, read_inputs
from tutelage.system.allocator import allocator_here
from tutelage.system.files import cache_folder
from tutelage.system.hardware import processor_name


def machine(threads: int | None, *, processes: int, row_tokens: int) -> dict[str, Any]:
    """The hardware that computes here, and how: what the last bits of a sum depend on.

    Args:
        threads: what the settings ask for; None leaves it to torch.
        processes: how many share each step.
        row_tokens: most tokens of a row.
    """
    facts = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processor": processor_name() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": threads or torch.get_num_threads(),
        "processes": processes,
        "row_tokens": row_tokens,
    }
    return facts | ({"cuda": torch.version.cuda} if torch.cuda.is_available() else {})


def inputs_of(
    resolved: ResolvedRun, prepared: Prepared, base: Path, *, skipped: Sequence[int], log: Callable[[str], None]
) -> dict[str, Any]:
    """What a run that starts or goes on now is made of.

    Args:
        resolved: the run's.
        prepared: its data.
        base: the folder of the model it starts from.
        skipped: steps that are left out, counted from 1.
        log: told where hashing takes time.

    Raises:
        DataError: a file of the model cannot be read.
    """
    settings = resolved.settings
    return {
        "settings": deciding_settings(settings),
        "data_sha256": prepared.data_sha256,
        "template_sha256": prepared.renderer.template.sha256(),
        "tokenizer_sha256": prepared.renderer.tokenizer.sha256(),
        "base_sha256": base_sha256(settings, base, log=log),
        STARTS: starts_of(settings.model, log=log),
        "examples_sha256": prepared.examples_sha256,
        "system_prompt": prepared.system_prompt,
        "seed": settings.seed,
        "skipped_steps": list(skipped),
        "versions": run_files.versions(),
        "machine": machine(settings.model.threads, processes=resolved.processes, row_tokens=resolved.row_tokens),
        "allocator": allocator_here(),
        "git_commit": run_files.git_commit(),
        STARTED_IN: str(Path.cwd()),
    }


def base_sha256(settings: Settings, base: Path, *, log: Callable[[str], None]) -> dict[str, str]:
    """The hash of each file that decides the model a run starts from; of an adapter that is trained on, too.

    Raises:
        DataError: one of them cannot be read.
    """
    cache, adapter = cache_folder() / "sha256", continued(settings)
    files = model_sha256(base, cache=cache, log=log)
    if adapter is not None:
        adapter_sha256 = model_sha256(adapter.folder, cache=cache, log=log)
        files |= {f"{run_files.ADAPTER}/{name}": sha256 for name, sha256 in adapter_sha256.items()}
    return files


def starts_of(model_settings: ModelSettings, *, log: Callable[[str], None]) -> list[dict[str, Any]]:
    """Where the weights come from that a run with these settings starts with, the nearest first.

    Each entry has the `name` as it was given, from the folder where that run was started; an adapter `used` as
    `model.adapter` says, with the hash of each of its files; and `add_tokens`, where tokens were added. What an earlier
    run recorded of its own start is taken from there, as that may be gone by now. The last is a model, not a run.

    Raises:
        DataError: a file of the adapter cannot be read.
    """
    path, adapter = Path(model_settings.name).expanduser(), start_adapter(model_settings)
    entry: dict[str, Any] = {"name": model_settings.name}
    if model_settings.add_tokens:
        entry["add_tokens"] = list(model_settings.add_tokens)
    if adapter is not None:
        sha256 = model_sha256(adapter.folder, cache=cache_folder() / "sha256", log=log)
        entry |= {"used": model_settings.adapter, "sha256": sha256}
    run = path.parent if adapter is not None and adapter.folder == path else path
    if not names_a_run(run):
        return [entry] if adapter is None else [entry, *starts_of(adapter.base, log=log)]
    with suppress(CheckpointError):  # that start is none of this run's inputs: a damaged record does not stop it
        if recorded := read_inputs(run).get(STARTS):
            return [entry, *recorded]
    return [entry, *starts_of(run_files.read_settings(run).model, log=log)]

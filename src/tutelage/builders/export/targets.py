"""The forms that a run can leave in, by the name that `--to` takes: a line of help and a function each.

Imports without torch: each function imports what it needs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tutelage.builders.export.request import Exported, ExportRequest
from tutelage.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Target:
    """A form.

    Attributes:
        summary: what is written, in a few words.
        write: writes `ExportRequest.out`, whole or not at all.
        is_hub_folder: it is a folder as the hub holds models.
        reads: of the options that are for some forms only, those that this one reads.
    """

    summary: str
    write: Callable[[ExportRequest], Exported]
    is_hub_folder: bool = False
    reads: tuple[str, ...] = ("--type",)


def export_run(target: str, request: ExportRequest) -> Exported:
    """Write a run in the form of this name, and upload it where that is asked for.

    Raises:
        ConfigError: there is no such form, or it is none that the hub holds; there is no token.
        TutelageError: as of the form.
    """
    require_target(target)
    require_options(target, request)
    if request.push is None:
        return TARGETS[target].write(request)
    from tutelage.export.upload import require_uploadable, upload

    require_uploadable(request.push, is_hub_folder=TARGETS[target].is_hub_folder, form=target)
    exported = TARGETS[target].write(request)
    address = upload(exported.path, request.push, log=request.screen.log)
    return replace(exported, facts={**exported.facts, "uploaded": address})


def require_options(target: str, request: ExportRequest) -> None:
    """Refuse an option that this form does not read.

    Raises:
        ConfigError: that is so.
    """
    given = {"--type": request.kind, "--dtype": request.dtype, "--preferences": request.preferences}
    reads = TARGETS[target].reads
    if option := next((name for name, value in given.items() if value is not None and name not in reads), None):
        readers = ", ".join(name for name, form in TARGETS.items() if option in form.reads)
        raise ConfigError(
            f"{option} is not read by --to {target}",
            where=option,
            expected=f"{option} with --to {readers}",
            fix=f"leave {option} out",
        )


def require_target(target: str) -> None:
    """Refuse a name that is no form's.

    Raises:
        ConfigError: that is so; the nearest name is given.
    """
    if target not in TARGETS:
        near = difflib.get_close_matches(target, TARGETS, n=1, cutoff=0.4)
        raise ConfigError(
            f"There is no form '{target}' to export to",
            where="--to",
            found=target,
            expected=", ".join(TARGETS),
            fix=f"write --to {(near or list(TARGETS))[0]}",
        )


def _hf(request: ExportRequest) -> Exported:
    from tutelage.builders.export.whole_model import write_whole_model

    return write_whole_model(request)


def _gguf(request: ExportRequest) -> Exported:
    from tutelage.builders.export.gguf_model import write_gguf_model

    return write_gguf_model(request)


def _gguf_adapter(request: ExportRequest) -> Exported:
    from tutelage.builders.export.gguf_model import write_gguf_adapter

    return write_gguf_adapter(request)


def _ollama(request: ExportRequest) -> Exported:
    from tutelage.builders.export.gguf_model import write_ollama_folder

    return write_ollama_folder(request)


def _adapter(request: ExportRequest) -> Exported:
    from tutelage.builders.export.adapter import write_adapter

    return write_adapter(request)


def _dpo_start(request: ExportRequest) -> Exported:
    from tutelage.builders.export.dpo_start import write_dpo_start

    return write_dpo_start(request)


TARGETS: Mapping[str, Target] = {
    "hf": Target(
        "a folder with the whole model, merged, that transformers loads", _hf, is_hub_folder=True, reads=("--dtype",)
    ),
    "adapter": Target(
        "the adapter alone, that PEFT loads on the base", _adapter, is_hub_folder=True, reads=("--dtype",)
    ),
    "gguf": Target("one file with the whole model for llama.cpp, compared with the run there", _gguf),
    "gguf-adapter": Target("one file with the LoRA adapter alone, for llama.cpp's --lora", _gguf_adapter),
    "ollama": Target("a folder with such a file of the whole model and a Modelfile", _ollama),
    "dpo-start": Target(
        "the folder of hf with rows of preferences and settings, for TRL's DPOTrainer",
        _dpo_start,
        reads=("--dtype", "--preferences"),
    ),
}

"""`--to adapter`: the adapter of a run alone, as PEFT loads it on the base, and the proof that it is that adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tutelage.builders.base_model import names_a_run, start_folder
from tutelage.builders.dial_model import CONFIG, no_scale, scale_pairs
from tutelage.builders.export.finished import finished
from tutelage.builders.export.proving import proof_of
from tutelage.builders.export.request import Exported, ExportRequest
from tutelage.builders.trained_model import require_as_trained, trained_folder
from tutelage.errors import ConfigError, command
from tutelage.export.model_folder import copy_texts, new_export
from tutelage.model.embedded import embedded_models
from tutelage.system.hub import looks_like_repository

FORM = "This is the adapter alone: load its base with transformers, then `PeftModel.from_pretrained(base, folder)`."


def write_adapter(request: ExportRequest) -> Exported:
    """Write `request.out`.

    Raises:
        ConfigError: all weights were trained; a precision is asked for; an adapter cannot hold what is at the dial.
        TutelageError: the run is not finished, or damaged; the folder holds something; the disk refuses.
    """
    trained = _adapter_of(request)
    with new_export(request.out) as scratch:
        shutil.copytree(trained, scratch, dirs_exist_ok=True)
        if request.dial is not None:
            scale_pairs(scratch / CONFIG, request.dial)
        _name_base(request, scratch / CONFIG)
        copy_texts(start_folder(request.settings.model, weights=False, log=request.screen.log), scratch, code=False)
        proof = proof_of(request, scratch, adapter=True) if request.prompts else None
        return finished(request, scratch, proof, form=FORM)


def _adapter_of(request: ExportRequest) -> Path:
    settings = request.settings
    if settings.model.method == "full":
        raise ConfigError(
            "All weights were trained, so there is no adapter",
            where="--to",
            found=f"{request.run} was trained with model.method = full",
            expected="a run of lora, qlora or prompt",
            fix=f"write the whole model: {command('export', request.run, '--to', 'hf', '-o', request.out)}",
        )
    if request.dtype is not None:
        raise ConfigError(
            "An adapter keeps the precision that it was trained in",
            where="--dtype",
            found=request.dtype,
            expected="--to hf, whose weights are rounded to it",
            fix="leave --dtype out",
        )
    trained = trained_folder(request.run, settings)
    require_as_trained(request.run, trained)
    if request.dial is not None:
        reason = "virtual tokens, of which no part is the base" if settings.model.method == "prompt" else None
        if reason := reason or no_scale(trained, settings):
            raise ConfigError(
                "An adapter cannot hold what is at this value of the dial",
                where="--dial",
                found=reason,
                expected="an adapter of plain pairs",
                fix="leave --dial out" if settings.model.method == "prompt" else "write the whole model: --to hf",
            )
    return trained


def _name_base(request: ExportRequest, path: Path) -> None:
    """Name the base as others find it, where it has a name beyond this machine."""
    name = request.settings.model.name
    is_here = Path(name).expanduser().exists() or names_a_run(Path(name)) or name in embedded_models()
    if is_here or request.settings.model.add_tokens or not looks_like_repository(name):
        return
    adapter_config = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": name}
    path.write_text(json.dumps(adapter_config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

"""What a run leaves behind for other tools: a Hugging Face folder (full) or a PEFT adapter folder (the others)."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import save_file

from tutelage.distributed.process_group import SINGLE, ProcessGroup, full_tensor
from tutelage.errors import ConfigError, SaveError, TutelageError, cause_of, command, remedy
from tutelage.model.load import no_progress_bars
from tutelage.optim.master_weights import MasterWeights
from tutelage.render import Renderer, Tokenizer
from tutelage.render.tokenizer import read_object
from tutelage.system.files import new_folder

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
LICENSE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")
SHARD_BYTES = 5 * 10**9
"""As `max_shard_size` of huggingface_hub has it."""


def save_trained(
    model: Any,
    optimizer: MasterWeights,
    renderer: Renderer,
    folder: Path,
    *,
    stored_as: torch.dtype,
    process_group: ProcessGroup = SINGLE,
    sharded: bool = False,
    start: Mapping[str, torch.Tensor] | None = None,
    original_model: Any | None = None,
) -> None:
    """Write the trained weights, the tokenizer and the template that was trained with, aside and renamed.

    Args:
        model: what was trained; its trainable parameters are replaced by the masters for the write. When this
            returns it computes as before.
        optimizer: holds the masters.
        renderer: its tokenizer's files and its template go into the folder.
        folder: replaced if a run that was killed left one.
        stored_as: precision on disk.
        process_group: the main one of these processes writes.
        sharded: each of them keeps a part of the model.
        start: `model.adapters.lora.Trainable.start`: what the adapter took out of the base before the first step. It is
            subtracted, so that the saved adapter (of twice the rank) belongs to the original base.
        original_model: a fresh copy of the model, whose frozen weights are saved in place of the rounded ones that were
            computed with.

    Raises:
        SaveError: the disk is full or refuses; nothing of that name is left.
    """
    save_arguments = {"state_dict": _gathered(model, stored_as, process_group)} if sharded else {}
    if not process_group.is_main:
        return
    computed_placements = {name: (parameter.device, parameter.dtype) for name, parameter in model.named_parameters()}
    try:
        if not sharded:
            _put_back(model, optimizer, torch.float32 if start else stored_as, original_model)
        _write_folder(model, renderer, folder, start=start or {}, save_arguments=save_arguments)
    except (OSError, SafetensorError) as error:  # a full disk reaches us as either
        raise SaveError(
            "The trained model could not be saved; the checkpoints are untouched",
            where=str(folder),
            found=cause_of(error),
            fix=f"{remedy(error)}, then go on: {command('train', '--resume', folder.parent)}",
        ) from error
    finally:
        for name, parameter in model.named_parameters():
            if (placement := computed_placements.get(name)) is not None and placement != (
                parameter.device,
                parameter.dtype,
            ):
                parameter.data = parameter.data.to(*placement)


def _write_folder(
    model: Any,
    renderer: Renderer,
    folder: Path,
    *,
    start: Mapping[str, torch.Tensor],
    save_arguments: Mapping[str, Any],
) -> None:
    with new_folder(folder, replace=True) as scratch:  # left by a run that was killed before it was marked finished
        with no_progress_bars():
            _save_weights(model, scratch, start, save_arguments)
        _copy_tokenizer(renderer, scratch)
        write_serving_files(renderer, scratch)
        (scratch / "README.md").unlink(missing_ok=True)  # PEFT's card speaks of things nobody filled in


def _copy_tokenizer(renderer: Renderer, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        source = renderer.tokenizer.folder / name
        if source.is_file() and not (folder / name).exists():
            shutil.copyfile(source, folder / name)


def _put_back(model: Any, optimizer: MasterWeights, stored_as: torch.dtype, original_model: Any | None) -> None:
    """Give the model its masters, and the frozen weights of `original_model` as they came."""
    for name, parameter in optimizer.parameters.items():
        parameter.data = optimizer.masters[name].to(stored_as)
    if original_model is not None:
        for name, parameter in original_model.named_parameters():
            if name not in optimizer.parameters:
                model.get_parameter(name).data = parameter.data


def _gathered(model: Any, stored_as: torch.dtype, process_group: ProcessGroup) -> dict[str, torch.Tensor]:
    """Whole tensors on the main process, one gathered after the other; the others get none.

    Of a model with an adapter only what was trained, as the base is not saved.
    """
    gathered, saved_by_id = {}, {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(model, PeftModel) and not tensor.requires_grad:
            continue
        if id(tensor) not in saved_by_id:  # a tied head is the same tensor under a second name
            unsharded = full_tensor(tensor.detach())
            saved_tensor = (
                unsharded.to("cpu", stored_as if unsharded.is_floating_point() else None)
                if process_group.is_main
                else None
            )
            saved_by_id[id(tensor)] = saved_tensor
        if (saved_tensor := saved_by_id[id(tensor)]) is not None:
            gathered[name] = saved_tensor
    return gathered


def _save_weights(
    model: Any, folder: Path, start: Mapping[str, torch.Tensor], save_arguments: Mapping[str, Any]
) -> None:
    """PEFT's own way from an adapter of a changed base to one of the original: it wants the first one on disk."""
    if not start:
        model.save_pretrained(folder, **save_arguments)
        return
    with tempfile.TemporaryDirectory(prefix=".start-", dir=folder.parent) as scratch, warnings.catch_warnings():
        start_adapter = Path(scratch) / "start"
        start_adapter.mkdir()
        save_file(dict(start), start_adapter / "adapter_model.safetensors")
        # The first advises to do what is done here, the second speaks of its doing.
        expected_warnings = (
            "(PiSSA|OLoRA|CorDA|LoRA-GA) changes the base|`(corda|lora_ga)_config` specified but will be ignored"
        )
        warnings.filterwarnings("ignore", message=expected_warnings, category=UserWarning)
        model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(start_adapter))
    path = folder / "adapter_config.json"  # of an ordinary pair now; PEFT would warn of these whenever it opens it
    adapter_config = json.loads(path.read_text(encoding="utf-8")) | {"corda_config": None, "lora_ga_config": None}
    path.write_text(json.dumps(adapter_config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_model(source: Path, folder: Path) -> Path:
    """Write a model's or adapter's folder again, what it links to included; returns where.

    Args:
        source: as a run or a merge left it.
        folder: made; an empty one is taken.

    Raises:
        ConfigError: it holds something.
        SaveError: the disk refuses.
    """
    with new_export(folder) as scratch:
        shutil.copytree(source, scratch, dirs_exist_ok=True)
    return folder


def save_whole(model: Any, renderer: Renderer, folder: Path) -> Path:
    """Write a model that is in memory, with its tokenizer and template, as it computes; returns where.

    Args:
        model: whole, without an adapter.
        renderer: its tokenizer's files and its template go into the folder.
        folder: as of `copy_model`.

    Raises:
        ConfigError: it holds something.
        SaveError: the disk refuses.
    """
    with new_export(folder) as scratch:
        fill_whole(model, renderer, scratch)
    return folder


def fill_whole(model: Any, renderer: Renderer, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the files of `save_whole` into a folder that is there, weights in files of at most `shard_bytes`.

    Where they are split is decided by huggingface_hub, which transformers asks.
    """
    with no_progress_bars():
        model.save_pretrained(folder, max_shard_size=shard_bytes)
    _copy_tokenizer(renderer, folder)
    write_serving_files(renderer, folder)


def copy_texts(source: Path, folder: Path, *, code: bool) -> None:
    """Copy what belongs to a model beside weights and tokenizer: its license, and the code that it runs by.

    Args:
        source: the model's folder.
        folder: what is there stays.
        code: its Python files, too.
    """
    for path in (*license_files(source), *(sorted(source.glob("*.py")) if code else ())):
        if path.is_file() and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def license_files(folder: Path) -> list[Path]:
    """The texts of a model's license, and the notices that it asks for."""
    return sorted(path for pattern in LICENSE_FILES for path in folder.glob(pattern) if path.is_file())


def require_free(folder: Path) -> None:
    """Refuse a place that something is written to already.

    Raises:
        ConfigError: the folder holds something, or is none.
        OSError: it cannot be looked at.
    """
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            "The folder to export to holds something already",
            where=str(folder),
            expected="no such folder, or an empty one",
            fix="name another folder",
        )


@contextmanager
def new_export(folder: Path) -> Iterator[Path]:
    """A folder that becomes `folder` when the block ends; where it fails, nothing is left.

    Raises:
        ConfigError: `folder` holds something.
        SaveError: the disk refuses.
    """
    try:
        require_free(folder)
        if folder.is_dir():
            folder.rmdir()
        with new_folder(folder) as scratch:
            yield scratch
    except (OSError, shutil.Error, SafetensorError) as error:  # a full disk reaches us as any of them
        if isinstance(error, TutelageError):
            raise
        raise SaveError(
            "The model could not be exported",
            where=str(folder),
            found=cause_of(error),
            fix=remedy(error, elsewhere="name another folder"),
        ) from error


def write_serving_files(renderer: Renderer, folder: Path) -> None:
    """Make `folder` serve as the model was trained: the template of the run, and all tokens that end its replies.

    A template inside tokenizer_config.json is taken out, as some servers would read that one. Further templates of the
    checkpoint stay only where the run used the checkpoint's own.
    """
    (folder / "chat_template.jinja").write_text(renderer.template.source, encoding="utf-8")
    extra_templates = (
        dict(renderer.tokenizer.templates) if renderer.template.source == renderer.tokenizer.template else {}
    )
    extra_templates.pop("default", None)
    if renderer.template.tools_source is not None:
        extra_templates["tool_use"] = renderer.template.tools_source
    for name, source in extra_templates.items():
        (folder / "additional_chat_templates").mkdir(exist_ok=True)
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(source, encoding="utf-8")
    tokenizer_config = folder / "tokenizer_config.json"
    if tokenizer_config.is_file():
        _write_without(tokenizer_config, "chat_template")
    _write_stops(folder / "generation_config.json", renderer.tokenizer.stop_ids)
    _write_special(folder / "tokenizer.json", renderer.tokenizer)


def _write_special(path: Path, tokenizer: Tokenizer) -> None:
    """Mark the tokens as special that are so in the run: servers leave these out of the text that a user reads.

    tokenizer_config.json, which may say of each token the same, is brought in line.
    """
    if not path.is_file():
        return
    special = set(tokenizer.special_tokens.values())
    value = json.loads(path.read_text(encoding="utf-8"))
    plain = [entry for entry in value.get("added_tokens", []) if entry["id"] in special and not entry["special"]]
    if not plain:
        return
    for entry in plain:
        entry["special"] = True
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    settings_path = path.with_name("tokenizer_config.json")
    settings = read_object(settings_path)
    named = settings.get("added_tokens_decoder", {})
    for entry in plain:
        if str(entry["id"]) in named:
            named[str(entry["id"])]["special"] = True
    if named:
        settings_path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_without(path: Path, key: str) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict) and value.pop(key, None) is not None:
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_stops(path: Path, stop_ids: frozenset[int]) -> None:
    """Set `eos_token_id` to all stop ids; those that were there keep their order, as the first is the usual one."""
    value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    recorded_ids = value.get("eos_token_id", [])
    eos_ids = [
        token_id
        for token_id in (recorded_ids if isinstance(recorded_ids, list) else [recorded_ids])
        if token_id in stop_ids
    ]
    eos_ids += sorted(stop_ids - set(eos_ids))
    value["eos_token_id"] = eos_ids if len(eos_ids) > 1 else eos_ids[0]
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

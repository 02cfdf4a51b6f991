"""What a run leaves behind for other tools: a Hugging Face folder (full) or a PEFT adapter folder (the others)."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import save_file

from tutelage.distributed.process_group import SINGLE, ProcessGroup, whole_tensor
from tutelage.errors import SaveError, cause_of, command, remedy
from tutelage.model.load import no_progress_bars
from tutelage.optim.master_weights import MasterWeights
from tutelage.render import Renderer
from tutelage.system.files import new_folder

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


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
    untouched: Any | None = None,
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
        untouched: a fresh copy of the model, whose frozen weights are saved in place of the rounded ones that were
            computed with.

    Raises:
        SaveError: the disk is full or refuses; nothing of that name is left.
    """
    given = {"state_dict": _gathered(model, stored_as, process_group)} if sharded else {}
    if not process_group.is_main:
        return
    computed_in = {name: (one.device, one.dtype) for name, one in model.named_parameters()}
    try:
        if not sharded:
            _put_back(model, optimizer, torch.float32 if start else stored_as, untouched)
        _write_folder(model, renderer, folder, start=start or {}, given=given)
    except (OSError, SafetensorError) as error:  # a full disk reaches us as either
        raise SaveError(
            "The trained model could not be saved; the checkpoints are untouched",
            where=str(folder),
            found=cause_of(error),
            fix=f"{remedy(error)}, then go on: {command('train', '--resume', folder.parent)}",
        ) from error
    finally:
        for name, one in model.named_parameters():
            if (place := computed_in.get(name)) is not None and place != (one.device, one.dtype):
                one.data = one.data.to(*place)


def _write_folder(
    model: Any, renderer: Renderer, folder: Path, *, start: Mapping[str, torch.Tensor], given: Mapping[str, Any]
) -> None:
    with new_folder(folder, replace=True) as scratch:  # left by a run that was killed before it was marked finished
        with no_progress_bars():
            _save_weights(model, scratch, start, given)
        _copy_tokenizer(renderer, scratch)
        write_serving_files(renderer, scratch)
        (scratch / "README.md").unlink(missing_ok=True)  # PEFT's card speaks of things nobody filled in


def _copy_tokenizer(renderer: Renderer, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        source = renderer.tokenizer.folder / name
        if source.is_file() and not (folder / name).exists():
            shutil.copyfile(source, folder / name)


def _put_back(model: Any, optimizer: MasterWeights, stored_as: torch.dtype, untouched: Any | None) -> None:
    """Give the model its masters, and the frozen weights of `untouched` as they came."""
    for name, parameter in optimizer.parameters.items():
        parameter.data = optimizer.masters[name].to(stored_as)
    if untouched is not None:
        for name, parameter in untouched.named_parameters():
            if name not in optimizer.parameters:
                model.get_parameter(name).data = parameter.data


def _gathered(model: Any, stored_as: torch.dtype, process_group: ProcessGroup) -> dict[str, torch.Tensor]:
    """Whole tensors on the main process, one gathered after the other; the others get none.

    Of a model with an adapter only what was trained, as the base is not saved.
    """
    gathered, seen = {}, {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(model, PeftModel) and not tensor.requires_grad:
            continue
        if id(tensor) not in seen:  # a tied head is the same tensor under a second name
            whole = whole_tensor(tensor.detach())
            kept = whole.to("cpu", stored_as if whole.is_floating_point() else None) if process_group.is_main else None
            seen[id(tensor)] = kept
        if (kept := seen[id(tensor)]) is not None:
            gathered[name] = kept
    return gathered


def _save_weights(model: Any, folder: Path, start: Mapping[str, torch.Tensor], given: Mapping[str, Any]) -> None:
    """PEFT's own way from an adapter of a changed base to one of the original: it wants the first one on disk."""
    if not start:
        model.save_pretrained(folder, **given)
        return
    with tempfile.TemporaryDirectory(prefix=".start-", dir=folder.parent) as beside, warnings.catch_warnings():
        first = Path(beside) / "start"
        first.mkdir()
        save_file(dict(start), first / "adapter_model.safetensors")
        # The first advises to do what is done here, the second speaks of its doing.
        changed = "(PiSSA|OLoRA|CorDA|LoRA-GA) changes the base|`(corda|lora_ga)_config` specified but will be ignored"
        warnings.filterwarnings("ignore", message=changed, category=UserWarning)
        model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(first))
    path = folder / "adapter_config.json"  # of an ordinary pair now; PEFT would warn of these whenever it opens it
    ordinary = json.loads(path.read_text(encoding="utf-8")) | {"corda_config": None, "lora_ga_config": None}
    path.write_text(json.dumps(ordinary, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_serving_files(renderer: Renderer, folder: Path) -> None:
    """Make `folder` serve as the model was trained: the template of the run, and all tokens that end its replies.

    A template inside tokenizer_config.json is taken out, as some servers would read that one. Further templates of the
    checkpoint stay only where the run used the checkpoint's own.
    """
    (folder / "chat_template.jinja").write_text(renderer.template.source, encoding="utf-8")
    others = dict(renderer.tokenizer.templates) if renderer.template.source == renderer.tokenizer.template else {}
    others.pop("default", None)
    if renderer.template.tools_source is not None:
        others["tool_use"] = renderer.template.tools_source
    for name, source in others.items():
        (folder / "additional_chat_templates").mkdir(exist_ok=True)
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(source, encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        _write_without(settings, "chat_template")
    _write_stops(folder / "generation_config.json", renderer.tokenizer.stop_ids)


def _write_without(path: Path, key: str) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, dict) and value.pop(key, None) is not None:
        path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_stops(path: Path, stop_ids: frozenset[int]) -> None:
    """Set `eos_token_id` to all stop ids; those that were there keep their order, as the first is the usual one."""
    value = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = value.get("eos_token_id", [])
    listed = [one for one in (known if isinstance(known, list) else [known]) if one in stop_ids]
    listed += sorted(stop_ids - set(listed))
    value["eos_token_id"] = listed if len(listed) > 1 else listed[0]
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

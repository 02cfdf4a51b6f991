"""The dotted names of all fields, and the nearest right one for a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from tutelage.config.sections import Section
from tutelage.config.settings import Settings

MAPPING_FIELDS = ("data.columns", "data.weights", "render.template_arguments")
"""Fields whose own keys are the user's."""

OTHER_TOOLS_NAMES = {
    "lr": "train.learning_rate",
    "batch_size": "train.batch_examples",
    "effective_batch_size": "train.batch_examples",
    "per_device_train_batch_size": "pack.row_tokens",
    "micro_batch_size": "pack.row_tokens",
    "gradient_accumulation_steps": "train.batch_examples",
    "num_train_epochs": "train.epochs",
    "optim": "train.optimizer",
    "optimizer_name": "train.optimizer",
    "lr_scheduler_type": "train.schedule",
    "warmup_ratio": "train.warmup_share",
    "max_grad_norm": "train.max_gradient_norm",
    "eval_steps": "train.evaluate_every",
    "report_to": "train.trackers",
    "save_steps": "train.checkpoint_every",
    "save_total_limit": "train.keep_checkpoints",
    "max_length": "pack.max_tokens",
    "max_seq_length": "pack.max_tokens",
    "sequence_len": "pack.max_tokens",
    "cutoff_len": "pack.max_tokens",
    "output_dir": "folder",
    "model_name_or_path": "model.name",
    "base_model": "model.name",
    "finetuning_type": "model.method",
    "dataset": "data.train",
    "val_size": "data.validation_share",
    "r": "lora.rank",
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "target_modules": "lora.targets",
    "lora_target_modules": "lora.targets",
    "init_lora_weights": "lora.init",
    "use_rslora": "lora.rslora",
    "use_dora": "lora.dora",
    "load_in_4bit": "model.method",
    "bnb_4bit_use_double_quant": "qlora.double_quantisation",
    "num_virtual_tokens": "prompt.tokens",
    "prompt_tuning_init_text": "prompt.text",
    "freeze_parameters": "model.freeze",
}
"""Where the things live that other trainers call by these names."""


def section_types() -> dict[str, type[Section]]:
    """The sections by name, in recipe order."""
    found: dict[str, type[Section]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found[name] = field.annotation
    return found


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every field with its dotted path, in recipe order; sections themselves are not fields."""
    sections = section_types()
    for name, field in Settings.model_fields.items():
        if name in sections:
            for inner_name, inner in sections[name].model_fields.items():
                yield f"{name}.{inner_name}", inner
        else:
            yield name, field


def paths() -> list[str]:
    """The dotted paths of all fields, in recipe order."""
    return [path for path, _ in fields()]


def takes_text_alone(path: str) -> bool:
    """Whether the values of a field are texts and nothing else, so that an override of it needs no quotes."""
    annotation = dict(fields())[path].annotation if path in paths() else None
    branches = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return (
        all(branch is str or branch is NoneType or _is_text(branch) for branch in branches) and annotation is not None
    )


def _is_text(annotation: object) -> bool:
    """Annotated text, or a choice of texts."""
    inner = get_args(annotation)
    if get_origin(annotation) is Literal:
        return all(isinstance(one, str) for one in inner)
    return get_origin(annotation) is Annotated and inner[0] is str


def nearest(unknown: str) -> list[str]:
    """Right names for an unknown dotted path, the likeliest first; empty where none is near.

    First the same key in another section, then what other trainers call by this name, then similar spelling.
    """
    known = paths()
    key = unknown.rpartition(".")[2]
    same_key = [path for path in known if path.rpartition(".")[2] == key]
    if same_key:
        return same_key
    if key.lower() in OTHER_TOOLS_NAMES:
        return [OTHER_TOOLS_NAMES[key.lower()]]
    similar = difflib.get_close_matches(unknown, known, n=1, cutoff=0.75)
    if similar:
        return similar
    keys = {path.rpartition(".")[2]: path for path in known}
    similar = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    if similar:
        return [keys[similar[0]]]
    return difflib.get_close_matches(unknown, known, n=1, cutoff=0.6)


def did_you_mean(unknown: str) -> str:
    """A closing half-sentence that names the nearest right fields, or says where the list is."""
    near = nearest(unknown)
    if not near:
        return "see `tutelage train --explain all` for all names"
    return f"did you mean {' or '.join(near)}?"

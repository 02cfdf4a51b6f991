"""The dotted names of all fields, and the nearest right one for a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from tutelage.config.sections import Section
from tutelage.config.settings import Settings

MAPPING_FIELDS = ("data.columns", "data.licenses", "data.weights", "render.template_arguments", "curate.licenses")
"""Fields whose own keys are the user's."""

OTHER_TOOLS_NAMES = {
    "lr": "train.learning_rate",
    "effective_batch_size": "train.batch_size",
    "train_batch_size": "train.batch_size",
    "global_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.batch_size",
    "per_device_train_batch_size": "pack.row_tokens",
    "micro_batch_size": "pack.row_tokens",
    "per_device_eval_batch_size": "evaluate.batch_prompts",
    "eval_batch_size": "evaluate.batch_prompts",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "loss_type": "train.loss",
    "loss_function": "train.loss",
    "use_dft_loss": "train.loss",
    "enable_dft_loss": "train.loss",
    "use_eaft_loss": "train.loss",
    "use_eaft": "train.loss",
    "eaft_alpha": "train.loss",
    "optim": "train.optimizer",
    "optimizer_name": "train.optimizer",
    "lr_scheduler_type": "train.lr_scheduler",
    "lr_schedule": "train.lr_scheduler",
    "num_warmup_steps": "train.warmup_steps",
    "lr_scheduler_kwargs": "train.min_lr_ratio",
    "cosine_min_lr_ratio": "train.min_lr_ratio",
    "min_lr": "train.min_lr_ratio",
    "kl_coef": "train.kl_to_base",
    "kl_beta": "train.kl_to_base",
    "kl_weight": "train.kl_to_base",
    "asft_alpha": "train.kl_to_base",
    "l2_sp": "train.l2_to_base",
    "l2sp_alpha": "train.l2_to_base",
    "l2_regularization": "train.l2_to_base",
    "gradient_clipping": "train.max_grad_norm",
    "clip_grad_norm": "train.max_grad_norm",
    "adam_beta1": "train.beta1",
    "adam_beta2": "train.beta2",
    "adam_epsilon": "train.epsilon",
    "neftune_noise_alpha": "train.neftune_alpha",
    "gradient_checkpointing": "train.activation_checkpointing",
    "enable_activation_checkpointing": "train.activation_checkpointing",
    "use_gradient_checkpointing": "train.activation_checkpointing",
    "eval_steps": "train.evaluate_every",
    "eval_strategy": "train.evaluate_every",
    "evals_per_epoch": "train.evaluate_every",
    "report_to": "train.trackers",
    "save_steps": "train.checkpoint_every",
    "save_strategy": "train.checkpoint_every",
    "save_total_limit": "train.keep_checkpoints",
    "max_length": "pack.max_seq_length",
    "max_seq_len": "pack.max_seq_length",
    "sequence_len": "pack.max_seq_length",
    "cutoff_len": "pack.max_seq_length",
    "model_max_length": "pack.max_seq_length",
    "output_dir": "folder",
    "run_name": "name",
    "model_name_or_path": "model.name",
    "model_id": "model.name",
    "base_model": "model.name",
    "finetuning_type": "model.method",
    "adapter_type": "model.method",
    "torch_dtype": "model.precision",
    "dtype": "model.precision",
    "bf16": "model.precision",
    "fp16": "model.precision",
    "torch_compile": "model.compile",
    "dataset": "data.train",
    "datasets": "data.train",
    "dataset_name": "data.train",
    "train_dataset": "data.train",
    "train_file": "data.train",
    "replay_dataset": "data.replay",
    "general_dataset": "data.replay",
    "rehearsal": "data.replay",
    "mix_ratio": "data.replay_ratio",
    "replay_share": "data.replay_ratio",
    "eval_dataset": "data.validation",
    "validation_file": "data.validation",
    "val_size": "data.validation_ratio",
    "val_set_size": "data.validation_ratio",
    "max_samples": "data.max_rows",
    "dataset_num_proc": "data.workers",
    "preprocessing_num_workers": "data.workers",
    "column_mapping": "data.columns",
    "interleave_probs": "data.weights",
    "chat_template": "render.template",
    "chat_template_path": "render.template",
    "chat_template_kwargs": "render.template_arguments",
    "train_on_inputs": "render.train_on",
    "train_on_prompt": "render.train_on",
    "assistant_only_loss": "render.train_on",
    "completion_only_loss": "render.train_on",
    "mask_history": "render.turns",
    "eos_token": "render.stop_tokens",
    "r": "lora.rank",
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_target": "lora.target_modules",
    "lora_target_modules": "lora.target_modules",
    "lora_modules_to_save": "lora.modules_to_save",
    "additional_target": "lora.modules_to_save",
    "init_lora_weights": "lora.init",
    "use_rslora": "lora.rslora",
    "use_dora": "lora.dora",
    "load_in_4bit": "model.method",
    "quantization_bit": "model.method",
    "bnb_4bit_use_double_quant": "qlora.double_quantization",
    "double_quant": "qlora.double_quantization",
    "num_virtual_tokens": "prompt.tokens",
    "prompt_tuning_init_text": "prompt.text",
    "freeze_parameters": "model.freeze",
    "unfrozen_parameters": "model.freeze",
    "early_stopping": "train.early_stopping_patience",
    "batch_examples": "train.batch_size",
    "warmup_share": "train.warmup_ratio",
    "max_gradient_norm": "train.max_grad_norm",
    "minimum_ratio": "train.min_lr_ratio",
    "early_stop_patience": "train.early_stopping_patience",
    "schedule": "train.lr_scheduler",
    "max_tokens": "pack.max_seq_length",
    "shape": "data.format",
    "validation_share": "data.validation_ratio",
    "targets": "lora.target_modules",
    "double_quantisation": "qlora.double_quantization",
}
"""Where the things live that TRL, Axolotl, LLaMA-Factory, Unsloth and torchtune call by these names; the last ones are
earlier names of our own."""


def section_types() -> dict[str, type[Section]]:
    """The sections by name, in recipe order."""
    sections: dict[str, type[Section]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            sections[name] = field.annotation
    return sections


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every field with its dotted path, in recipe order; sections, and tables inside of them, are not fields."""
    yield from _fields_of(Settings, "")


def _fields_of(section: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _fields_of(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def paths() -> list[str]:
    """The dotted paths of all fields, in recipe order."""
    return [path for path, _ in fields()]


def is_text_field(path: str) -> bool:
    """Whether the values of a field are texts and nothing else, so that an override of it needs no quotes."""
    annotation = dict(fields())[path].annotation if path in paths() else None
    branches = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return (
        all(branch is str or branch is NoneType or _is_text(branch) for branch in branches) and annotation is not None
    )


def _is_text(annotation: object) -> bool:
    """Annotated text, or a choice of texts."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return all(isinstance(argument, str) for argument in arguments)
    return get_origin(annotation) is Annotated and arguments[0] is str


def nearest(unknown: str) -> list[str]:
    """Right names for an unknown dotted path, the likeliest first; empty where none is near.

    First the same key in another section, then what other trainers call by this name, then similar spelling.
    """
    field_paths = paths()
    key = unknown.rpartition(".")[2]
    same_key = [path for path in field_paths if path.rpartition(".")[2] == key]
    if same_key:
        return same_key
    if key.lower() in OTHER_TOOLS_NAMES:
        return [OTHER_TOOLS_NAMES[key.lower()]]
    similar = difflib.get_close_matches(unknown, field_paths, n=1, cutoff=0.75)
    if similar:
        return similar
    keys = {path.rpartition(".")[2]: path for path in field_paths}
    similar = difflib.get_close_matches(key, keys, n=1, cutoff=0.6)
    if similar:
        return [keys[similar[0]]]
    return difflib.get_close_matches(unknown, field_paths, n=1, cutoff=0.6)


def did_you_mean(unknown: str) -> str:
    """A closing half-sentence that names the nearest right fields, or says where the list is."""
    near = nearest(unknown)
    if not near:
        return "see `tutelage train --explain all` for all names"
    return f"did you mean {' or '.join(near)}?"

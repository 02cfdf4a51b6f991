"""What `model.name` names -> the folder a run starts from. An adapter, or a run that trained one, is a start as well.

`model.adapter` says how: "merge" folds it into its base, whose weights are then a model like any other, and "continue"
trains the same adapter on. Imports without torch until something is merged.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.config import Settings
from tutelage.config.sections import ModelSettings
from tutelage.errors import ConfigError, DataError, SaveError, SourceNotFoundError, cause_of, command, remedy
from tutelage.model.embedded import accept_license
from tutelage.model.locate import model_folder
from tutelage.model.safetensors_header import stored_tensors
from tutelage.runs import folder as run_files
from tutelage.system.files import cache_folder, new_folder
from tutelage.system.seals import file_sha256

PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the name of each module whose weights it saves."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
OWN_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "additional_chat_templates",
)
"""What an adapter's folder may hold of its own: it was trained with these, not with its base's."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class StartAdapter:
    """An adapter that a run starts from: its folder, PEFT's configuration of it, and the settings of its base."""

    folder: Path
    config: dict[str, Any]
    base: ModelSettings

    @property
    def kind(self) -> str:
        """PEFT's name for what it is, such as LORA."""
        return str(self.config.get("peft_type", ""))


def start_folder(model_settings: ModelSettings, *, weights: bool = True, log: Say = print) -> Path:
    """The folder of model, tokenizer and template that a run with these settings starts from.

    Args:
        model_settings: `[model]`.
        weights: False leaves an adapter unmerged, for what looks at configuration, tokenizer and template alone.
        log: told what is slow.

    Raises:
        TutelageError: of the kind that fits; see `model.locate.model_folder` and `start_adapter`.
    """
    _accept_license(model_settings)
    if model_settings.add_tokens:
        return _with_tokens(model_settings, weights=weights, log=log)
    path = Path(model_settings.name).expanduser()
    adapter = start_adapter(model_settings)
    if adapter is None:
        trained = path / run_files.MODEL
        return model_folder(str(trained if names_a_run(path) else model_settings.name), weights=weights, log=log)
    base = start_folder(adapter.base, weights=weights, log=log)
    if model_settings.adapter == "continue" or not weights:
        return _beside(base, adapter.folder, label="start", fill=None)
    if adapter.kind != "LORA":
        raise ConfigError(
            "Only a LoRA adapter can be folded into its base",
            where="model.adapter",
            found=f'model.adapter = "merge", and {adapter.folder} is of the kind {adapter.kind}',
            expected='model.adapter = "continue", which trains it on',
            fix='set model.adapter = "continue"',
        )

    def merge(folder: Path) -> None:
        from tutelage.model.adapters.merge import merge_adapter

        log(f"Merging {adapter.folder} into its base, once ...")
        if adapter.base.method == "qlora":
            log(
                "note: the adapter was trained beside 4 bits, and is merged into the weights that they were made of: a "
                "model that nobody measured. To start from the one that was measured, write it with tutelage export "
                "RUN --to hf, and name that folder"
            )
        merge_adapter(base, adapter.folder, folder, trust_remote_code=model_settings.trust_remote_code)

    return _beside(base, adapter.folder, label="merged", fill=merge)


def _with_tokens(model_settings: ModelSettings, *, weights: bool, log: Say) -> Path:
    """The start with the tokens that are to be added; without weights the tokenizer alone has them.

    Raises:
        ConfigError: the start is an adapter that is trained on; or one of them is a token already.
    """
    if model_settings.adapter == "continue" and (adapter := start_adapter(model_settings)) is not None:
        raise ConfigError(
            "An adapter that is trained on cannot learn new tokens, as what it trains is settled",
            where="model.add_tokens",
            found=f'model.adapter = "continue", and {", ".join(model_settings.add_tokens)}',
            expected='model.adapter = "merge", or no new tokens',
            fix='set model.adapter = "merge"' if adapter.kind == "LORA" else "leave model.add_tokens out",
        )
    base = start_folder(model_settings.model_copy(update={"add_tokens": []}), weights=weights, log=log)

    def grow(folder: Path) -> None:
        from tutelage.model.new_tokens import add_rows, add_to_tokenizer

        if not weights:
            add_to_tokenizer(base, folder, model_settings.add_tokens)
            return
        log(f"Adding {len(model_settings.add_tokens)} tokens to the model, once ...")
        start, trust = model_settings.add_tokens_start, model_settings.trust_remote_code
        add_rows(base, folder, model_settings.add_tokens, start=start, trust_remote_code=trust)

    facts = json.dumps([weights, model_settings.add_tokens, model_settings.add_tokens_start])
    return _beside(base, None, label="grown", fill=grow, links_weights=not weights, facts=facts)


def _accept_license(model_settings: ModelSettings) -> None:
    if model_settings.accept_license is not None:
        accept_license(model_settings.name, model_settings.accept_license, by="model.accept_license")


def start_name(model_settings: ModelSettings, *, log: Say = print) -> str:
    """`model.name`, or, where that is an adapter or a run, a folder that a plan of it can be read from."""
    _accept_license(model_settings)
    path = Path(model_settings.name).expanduser()
    plain = start_adapter(model_settings) is None and not names_a_run(path) and not model_settings.add_tokens
    return model_settings.name if plain else str(start_folder(model_settings, weights=False, log=log))


def start_adapter(model_settings: ModelSettings) -> StartAdapter | None:
    """The adapter that `model.name` is, or that the run it names trained; None for a whole model.

    Raises:
        SourceNotFoundError: the run has not trained anything yet.
        DataError: the adapter's configuration cannot be read, or names no base.
    """
    path = Path(model_settings.name).expanduser()
    if not names_a_run(path):
        if not (path / ADAPTER_FILES[0]).is_file():
            return None
        run = path.parent if path.name == run_files.ADAPTER and names_a_run(path.parent) else None
        return _adapter_in(path, None if run is None else run_files.read_settings(run).model, model_settings)
    settings = run_files.read_settings(path)
    trained = path / run_files.trained_name(settings)
    if not trained.is_dir():
        raise SourceNotFoundError(
            f"The run '{model_settings.name}' has no trained weights yet, so nothing can start from it",
            where=str(trained),
            fix=f"let it finish: {command('train', '--resume', path)}",
        )
    return None if settings.model.method == "full" else _adapter_in(trained, settings.model, model_settings)


def continued(settings: Settings) -> StartAdapter | None:
    """The adapter that this run trains on.

    Raises:
        ConfigError: `model.method` does not train an adapter of its kind.
    """
    adapter = start_adapter(settings.model) if settings.model.adapter == "continue" else None
    if adapter is None:
        return None
    methods = {"LORA": ("lora", "qlora"), "PROMPT_TUNING": ("prompt",)}.get(adapter.kind, ())
    if settings.model.method not in methods:
        raise ConfigError(
            f'model.method = "{settings.model.method}" does not train this adapter on',
            where="model.method",
            found=f"an adapter of the kind {adapter.kind} in {adapter.folder}",
            expected=" or ".join(methods) or "an adapter of LoRA or prompt tuning",
            fix=f'set model.method = "{methods[0]}"' if methods else "start from its base instead",
        )
    return adapter


def with_adapters_own(settings: Settings) -> Settings:
    """The settings with what an adapter that is trained on has settled: its rank, alpha, targets, kind; or its tokens.

    Raises:
        TutelageError: see `continued`.
    """
    adapter = continued(settings)
    if adapter is None:
        return settings
    adapter_config = adapter.config
    if adapter.kind == "PROMPT_TUNING":
        prompt = settings.prompt.model_copy(update={"tokens": adapter_config["num_virtual_tokens"], "text": None})
        return settings.model_copy(update={"prompt": prompt})
    lora = settings.lora.model_copy(
        update={
            "rank": adapter_config["r"],
            "alpha": adapter_config["lora_alpha"],
            "dropout": float(adapter_config.get("lora_dropout") or 0.0),
            "rslora": bool(adapter_config.get("use_rslora")),
            "dora": bool(adapter_config.get("use_dora")),
            "target_modules": _targets_of(adapter),
            "init": "default",
            "modules_to_save": _shortest(adapter_config.get("modules_to_save") or []),
        }
    )
    return settings.model_copy(update={"lora": lora})


def _targets_of(adapter: StartAdapter) -> str | list[str]:
    """What an adapter of LoRA has its pairs at; where its configuration has a pattern, the layers that it met."""
    target_modules = adapter.config.get("target_modules") or []
    parameters = adapter.config.get("target_parameters") or []
    if target_modules == "all-linear" and not parameters:
        return str(target_modules)
    if isinstance(target_modules, str):
        stored = [name.removeprefix(PEFT_PREFIX) for name in stored_tensors(adapter.folder)]
        pairs = {name.partition(".lora_")[0] for name in stored if ".lora_" in name}
        holders = [parameter.rpartition(".")[0] for parameter in parameters]
        target_modules = [
            pair for pair in pairs if not any(pair.removesuffix(".base_layer").endswith(each) for each in holders)
        ]
    return sorted({*target_modules, *parameters})


def _shortest(names: list[str]) -> list[str]:
    """Without those that end in another: PEFT adds the whole name of a tied embedding to the one that it was given."""
    return sorted(name for name in names if not any(name.endswith(f".{suffix}") for suffix in names))


def names_a_run(path: Path) -> bool:
    """Whether a model's name is that of a run's folder."""
    try:
        return run_files.is_run(path)
    except OSError:  # what looks for a model there says what is wrong
        return False


def _adapter_in(folder: Path, base: ModelSettings | None, model_settings: ModelSettings) -> StartAdapter:
    try:
        adapter_config = json.loads((folder / ADAPTER_FILES[0]).read_text(encoding="utf-8"))
        base_name = adapter_config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise _unreadable(folder, cause_of(error)) from error
    if not (folder / ADAPTER_FILES[1]).is_file():
        raise _unreadable(folder, f"no {ADAPTER_FILES[1]}")
    if base is None and not base_name:
        raise DataError(
            "The adapter does not say which model it belongs to",
            where=str(folder / ADAPTER_FILES[0]),
            found="no base_model_name_or_path",
            expected="the folder or hub id of its base",
            fix="write it into that file",
        )
    base_settings = base or ModelSettings(name=str(base_name), trust_remote_code=model_settings.trust_remote_code)
    return StartAdapter(folder, adapter_config, base_settings)


def _unreadable(folder: Path, cause: str) -> DataError:
    return DataError(
        "The adapter cannot be read",
        where=str(folder),
        found=cause,
        expected=" and ".join(ADAPTER_FILES),
        fix="save it again with PEFT: model.save_pretrained(folder)",
    )


def _beside(
    base: Path,
    adapter: Path | None,
    *,
    label: str,
    fill: Callable[[Path], None] | None,
    links_weights: bool = False,
    facts: str = "",
) -> Path:
    """A folder in the cache with the files of `base` and, in their place, what the adapter's folder holds of its own.

    Args:
        base: a model's folder; its files are linked.
        adapter: an adapter's folder; its files are copied. None where there is none.
        label: begins the folder's name.
        fill: writes the weights, and the configuration that belongs to them; None links the base's.
        links_weights: those of the base are linked although `fill` writes something.
        facts: what else decides the folder's files.

    Raises:
        SaveError: the disk is full or refuses.
    """
    folder = cache_folder() / "models" / f"{label}-{_key(base, adapter, facts)}"
    if folder.is_dir():
        return folder
    try:
        with new_folder(folder) as scratch:
            if fill is not None:
                fill(scratch)
            for model_file in _own_files(base):
                written = fill is not None and not links_weights and "safetensors" in model_file.name
                if not (scratch / model_file.name).exists() and not written:
                    (scratch / model_file.name).symlink_to(model_file.resolve())
            if adapter is not None:
                for name in OWN_FILES:
                    _copy_over(adapter / name, scratch / name)
    except OSError as error:
        if folder.is_dir():  # another process made the same folder first; its bytes are ours
            return folder
        raise SaveError(
            "The model that a run starts from could not be put together",
            where=str(folder),
            found=cause_of(error),
            fix=remedy(error, elsewhere="set TUTELAGE_CACHE to another disk"),
        ) from error
    return folder


def _own_files(folder: Path) -> Iterator[Path]:
    """Files and folders of a model; those that begin with a dot are of tools that fetched it."""
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def _copy_over(source: Path, target: Path) -> None:
    if not source.exists():
        return
    if target.is_symlink():
        target.unlink()
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def _key(base: Path, adapter: Path | None, facts: str) -> str:
    """Of the adapter's bytes, and of the base's files by name, size and time of change."""
    digest = hashlib.sha256(f"{base.resolve()} {facts}".encode())
    for name in (*ADAPTER_FILES, *OWN_FILES):
        if adapter is None:
            break
        for file in sorted((adapter / name).rglob("*")) if (adapter / name).is_dir() else [adapter / name]:
            if file.is_file():
                digest.update(f"{name} {file_sha256(file)}".encode())
    for model_file in _own_files(base):
        state = model_file.stat()
        digest.update(f"{model_file.name} {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]

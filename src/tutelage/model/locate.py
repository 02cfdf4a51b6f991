"""Turns the name of a model into a local folder of safetensors, tokenizer and template.

No torch, unless a GGUF file has to be converted.

A name is one of: a short name of `embedded.toml`, a local folder, a local GGUF file, a Hugging Face id.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tutelage.errors import DataError, DependencyError, SourceNotFoundError
from tutelage.model.embedded import (
    embedded_digest,
    embedded_gguf,
    embedded_models,
    is_installed,
    license_accepted,
    put_terms_beside,
    require_license,
)
from tutelage.render.tokenizer import read_object
from tutelage.system import hub
from tutelage.system.files import cache_folder
from tutelage.system.seals import file_sha256

CONVERTER_VERSION = 2
"""Part of the cache key: raise it when the conversion would write other bytes."""
CONVERTER_KEY = f"converter {CONVERTER_VERSION}".encode()

TOKENIZER_PATTERNS = ("tokenizer*", "*.jinja", "special_tokens_map.json", "added_tokens.json", "config.json",
                      "generation_config.json", "vocab*", "merges.txt")  # fmt: skip
INDEX_FILE = "model.safetensors.index.json"
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json")

Log = Callable[[str], None]


def model_folder(name: str, *, weights: bool = True, log: Log = print) -> Path:
    """Find, fetch or convert the model `name`; return a folder that transformers loads.

    Args:
        name: short name, local folder, local .gguf file or Hugging Face id.
        weights: False fetches only configuration, tokenizer and template from the hub.
        log: receives one line when something slow or lasting happens.

    Raises:
        SourceNotFoundError: nothing of that name is here or reachable.
        DependencyError: the package that carries or converts it is not installed.
        DataError: a folder without the files a model needs.
        ConfigError: an embedded model whose license was not accepted.
    """
    if name in embedded_models():
        return _embedded_folder(name, log=log)
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked_folder(path, weights=weights)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise DataError(
                f"'{name}' is a file, but not a model",
                where=name,
                expected="a folder with safetensors, or a .gguf file",
                fix="give the folder that holds config.json",
            )
        return _converted(path, label=path.stem, log=log)
    if not hub.looks_like_repository(name):
        raise SourceNotFoundError(
            f"There is no model at '{name}'",
            where=name,
            expected=f"a folder, a .gguf file, a Hugging Face id, or one of: {', '.join(embedded_models())}",
            fix="check the path",
        )
    patterns = TOKENIZER_PATTERNS + (WEIGHT_PATTERNS if weights else ())
    return _checked_folder(hub.snapshot(name, kind="model", patterns=patterns), weights=weights)


def _checked_folder(path: Path, *, weights: bool) -> Path:
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise DataError(
            f"The folder '{path}' holds an adapter, not a whole model",
            where=str(path),
            found="adapter_config.json and no config.json",
            expected="a model; a recipe's model.name may be an adapter, too, and tutelage chat RUN --adapter asks one",
            fix="give the adapter's base model here",
        )
    if not (path / "tokenizer.json").is_file():
        raise DataError(
            f"The folder '{path}' holds no tokenizer",
            where=str(path),
            found=", ".join(sorted(p.name for p in path.iterdir())[:8]) or "an empty folder",
            expected="tokenizer.json (and config.json with *.safetensors to train)",
            fix="save the tokenizer beside the model: tokenizer.save_pretrained(folder)",
        )
    if weights and not any(path.glob("*.safetensors")):
        raise DataError(
            f"The folder '{path}' holds no safetensors weights",
            where=str(path),
            found=", ".join(sorted(p.name for p in path.iterdir())[:8]),
            expected="model.safetensors; pickled .bin weights are not read, as they can run code",
            fix="convert them once: AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder)",
        )
    if weights:
        _check_index(path)
    return path


def _check_index(folder: Path) -> None:
    """Every file that the index names must be a safetensors file in this folder: transformers would read any other."""
    file = folder / INDEX_FILE
    if not file.is_file():
        return
    weight_map = read_object(file).get("weight_map")
    wrong_files = ["no weight_map from tensors to files"]
    if isinstance(weight_map, dict) and all(isinstance(file_name, str) for file_name in weight_map.values()):
        wrong_files = sorted(
            file_name for file_name in set(weight_map.values()) if not _is_weights_here(folder, file_name)
        )
    if wrong_files:
        raise DataError(
            "The index of the weights names what is not read",
            where=str(file),
            found=", ".join(wrong_files[:4]),
            expected="names of safetensors files in the same folder; pickled .bin weights can run code",
            fix="save it again: AutoModelForCausalLM.from_pretrained(...).save_pretrained(folder)",
        )


def _is_weights_here(folder: Path, name: str) -> bool:
    return Path(name).name == name and name.endswith(".safetensors") and (folder / name).is_file()


def _embedded_folder(name: str, *, log: Log) -> Path:
    require_license(name)
    folder = _folder_in_cache(name, embedded_digest(name, suffix=CONVERTER_KEY))
    if folder.is_dir():
        return folder
    with embedded_gguf(name) as gguf:
        return _convert(gguf, folder, label=name, log=log, beside=partial(put_terms_beside, name))


def embedded_state() -> dict[str, str]:
    """Of each embedded model what it is, and what stands between it and a run here, if anything."""
    states = {}
    for name, entry in embedded_models().items():
        if not is_installed(name):
            state = f"not installed: {entry['install']}"
        elif not license_accepted(name):
            state = f"its license is to be accepted: {entry['terms_address']}, model.accept_license={entry['accept']}"
        elif not _folder_in_cache(name, embedded_digest(name, suffix=CONVERTER_KEY)).is_dir():
            state = "ready, converted at its first use"
        else:
            state = "ready"
        states[name] = f"{state}; {entry['about']}; {entry['license']}"
    return states


def _converted(gguf: Path, *, label: str, log: Log) -> Path:
    folder = _folder_in_cache(label, file_sha256(gguf, suffix=CONVERTER_KEY))
    return folder if folder.is_dir() else _convert(gguf, folder, label=label, log=log)


def _folder_in_cache(label: str, digest: str) -> Path:
    return cache_folder() / "models" / f"{label}-{digest[:16]}"


def _convert(
    gguf: Path, folder: Path, *, label: str, log: Log, beside: Callable[[Path], None] = lambda _folder: None
) -> Path:
    if importlib.util.find_spec("torch") is None:
        raise DependencyError(
            f"'{label}' is a GGUF file and must be converted once, which needs torch",
            where=str(gguf),
            fix="pip install 'tutelage[train]', or point at a folder that holds tokenizer.json",
        )
    from tutelage.model.gguf import convert_gguf

    log(f"Converting {label} from GGUF to safetensors, once (20 s to some minutes) ...")
    convert_gguf(gguf, folder, beside=beside)
    log(f"Converted: {folder}")
    return folder

"""Turns the name of a model into a local folder of safetensors, tokenizer and template.

No torch, unless a GGUF file has to be converted.

A name is one of: a short name of `embedded.toml`, a local folder, a local GGUF file, a Hugging Face id.
"""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from tutelage.errors import DataError, DependencyError, SourceNotFoundError
from tutelage.render.tokenizer import read_object
from tutelage.system import hub
from tutelage.system.files import cache_folder
from tutelage.system.seals import file_sha256

CONVERTER_VERSION = 2
"""Part of the cache key: raise it when the conversion would write other bytes."""

TOKENIZER_PATTERNS = ("tokenizer*", "*.jinja", "special_tokens_map.json", "added_tokens.json", "config.json",
                      "generation_config.json", "vocab*", "merges.txt")  # fmt: skip
INDEX_FILE = "model.safetensors.index.json"
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json")

Log = Callable[[str], None]


def embedded_models() -> dict[str, dict[str, Any]]:
    """Short names and the packages that carry them."""
    return tomllib.loads(files("tutelage.model").joinpath("embedded.toml").read_text(encoding="utf-8"))


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
    """
    if name in embedded_models():
        return _converted(embedded_gguf(name), label=name, log=log)
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


def embedded_gguf(name: str) -> Path:
    """The GGUF file of an embedded model.

    Raises:
        DependencyError: its package is not installed, with the install line.
    """
    entry = embedded_models()[name]
    spec = importlib.util.find_spec(entry["package"])
    if spec is None or spec.origin is None:
        raise DependencyError(
            f"The embedded model '{name}' is not installed",
            where=f"package {entry['package']}",
            fix=entry["install"],
        )
    return Path(spec.origin).parent / str(entry["file"])


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


def _converted(gguf: Path, *, label: str, log: Log) -> Path:
    digest = file_sha256(gguf, suffix=f"converter {CONVERTER_VERSION}".encode())
    folder = cache_folder() / "models" / f"{label}-{digest[:16]}"
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("torch") is None:
        raise DependencyError(
            f"'{label}' is a GGUF file and must be converted once, which needs torch",
            where=str(gguf),
            fix="pip install 'tutelage[train]', or point at a folder that holds tokenizer.json",
        )
    from tutelage.model.gguf import convert_gguf

    log(f"Converting {label} from GGUF to safetensors, once (about 20 s) ...")
    convert_gguf(gguf, folder)
    log(f"Converted: {folder}")
    return folder

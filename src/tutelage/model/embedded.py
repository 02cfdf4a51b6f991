"""Models that arrive inside Python packages: where their GGUF is, and whether their license was accepted. No torch.

A license that is not an open-source one is accepted by name, by a setting or in the environment, before the model is
read. That is kept beside the cache of models, under the hash of the terms: other terms are asked about anew.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, DataError, DependencyError, SaveError, cause_of, remedy
from tutelage.system.files import cache_folder, new_folder, write_bytes
from tutelage.system.seals import file_sha256

ACCEPT_VARIABLE = "TUTELAGE_ACCEPT_LICENSE"
"""Of the environment: names of licenses that are accepted, with commas between."""
TERMS_FILE = "LICENSE_OF_THE_BASE.html"
NOTICE_FILE = "NOTICE"
BLOCK = 1 << 20


def embedded_models() -> dict[str, dict[str, Any]]:
    """Short names and the packages that carry them."""
    return tomllib.loads(files("tutelage.model").joinpath("embedded.toml").read_text(encoding="utf-8"))


def is_installed(name: str) -> bool:
    """Whether every file of an embedded model is here."""
    try:
        return all(path.is_file() for path in _stored_files(name))
    except DependencyError:
        return False


def accept_license(name: str, license_name: str, *, by: str) -> None:
    """Keep that the license of the embedded model `name` was accepted, if it is one that must be.

    Args:
        name: of the model; where it is no embedded one, or needs no such word, nothing is kept.
        license_name: what was accepted.
        by: the setting or variable that said so.

    Raises:
        ConfigError: it is the license of another model.
        DependencyError: the package with the terms is not installed.
        SaveError: it cannot be kept.
    """
    entry = embedded_models().get(name, {})
    if "accept" not in entry or license_accepted(name):
        return
    if license_name != entry["accept"]:
        raise ConfigError(
            f"The license that was accepted is not that of '{name}'",
            where=by,
            found=license_name,
            expected=str(entry["accept"]),
            fix=f"read {entry['terms_address']}, then accept {entry['accept']}",
        )
    terms = _in_package(name, entry["terms"])
    record = {
        "license": entry["license"],
        "terms": entry["terms_address"],
        "terms_sha256": file_sha256(terms),
        "accepted": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": by,
    }
    file = _acceptance(name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, (json.dumps(record, indent=1) + "\n").encode(), shared=True)
    except OSError as error:
        raise SaveError(
            "That a license was accepted could not be kept",
            where=str(file),
            found=cause_of(error),
            fix=remedy(error, elsewhere="set TUTELAGE_CACHE to another disk"),
        ) from error


def license_accepted(name: str) -> bool:
    """Whether the license of an embedded model needs no word, or has it.

    Raises:
        DependencyError: the package with the terms is not installed.
    """
    return "accept" not in embedded_models()[name] or _acceptance(name).is_file()


def require_license(name: str) -> None:
    """Refuse an embedded model whose license was not accepted, here or by the environment.

    Raises:
        ConfigError: it was not; the error says what it asks for, where it is and how it is accepted.
        DependencyError: the package with the terms is not installed.
    """
    entry = embedded_models()[name]
    named = [word.strip() for word in os.environ.get(ACCEPT_VARIABLE, "").split(",")]
    if entry.get("accept") in named:
        accept_license(name, entry["accept"], by=ACCEPT_VARIABLE)
    if license_accepted(name):
        return
    raise ConfigError(
        f"The model '{name}' comes under the {entry['license']}, which you have to accept first",
        where=f"{_in_package(name, entry['terms'])}, or {entry['terms_address']}",
        found=str(entry["conditions"]),
        expected="your word that you accept them, once on this machine",
        fix=f"read them, then give the setting model.accept_license={entry['accept']}, "
        f"or: export {ACCEPT_VARIABLE}={entry['accept']}",
    )


def embedded_digest(name: str, *, suffix: bytes) -> str:
    """What tells the bytes of an embedded model's GGUF file, and of `suffix`, from others: a SHA-256.

    A file in parts is not joined for it: the SHA-256 that the parts must make stands for its bytes.

    Raises:
        DependencyError: its package is not installed, with the install line.
    """
    paths, known = _stored_files(name), embedded_models()[name].get("sha256")
    return (
        file_sha256(paths[0], suffix=suffix) if known is None else hashlib.sha256(known.encode() + suffix).hexdigest()
    )


@contextmanager
def embedded_gguf(name: str) -> Iterator[Path]:
    """The GGUF file of an embedded model; one that lies in parts is joined for as long as the block lasts.

    Raises:
        DependencyError: a package of it is not installed, with the install line.
        DataError: the parts do not make the file that is known.
        SaveError: there is no room to join them.
    """
    paths, entry = _stored_files(name), embedded_models()[name]
    if len(paths) == 1:
        yield paths[0]
        return
    folder = cache_folder() / "joined" / f"{name}-{os.getpid()}"
    try:
        with new_folder(folder) as scratch:
            digest = _join(paths, scratch / entry["file"])
    except OSError as error:
        raise SaveError(
            f"The parts of '{name}' could not be joined",
            where=str(folder),
            found=cause_of(error),
            fix=remedy(error, elsewhere="set TUTELAGE_CACHE to another disk"),
        ) from error
    try:
        if digest != entry["sha256"]:
            raise DataError(
                f"The parts of '{name}' do not make the file that is known",
                where=", ".join(str(path) for path in paths),
                found=f"SHA-256 {digest}",
                expected=str(entry["sha256"]),
                fix=f"install it again: {entry['install'].replace('install', 'install --force-reinstall', 1)}",
            )
        yield folder / entry["file"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_terms_beside(name: str, folder: Path) -> None:
    """Copy the terms of an embedded model, and the notice that they ask for, into the folder of what is made of it."""
    entry = embedded_models()[name]
    if "terms" in entry:
        shutil.copyfile(_in_package(name, entry["terms"]), folder / TERMS_FILE)
        (folder / NOTICE_FILE).write_text(f"{entry['notice']}\n", encoding="utf-8")


def _join(paths: list[Path], target: Path) -> str:
    digest = hashlib.sha256()
    with target.open("wb") as joined:
        for path in paths:
            with path.open("rb") as part:
                while block := part.read(BLOCK):
                    digest.update(block)
                    joined.write(block)
    return digest.hexdigest()


def _acceptance(name: str) -> Path:
    entry = embedded_models()[name]
    terms_sha256 = file_sha256(_in_package(name, entry["terms"]))
    return cache_folder() / "licenses" / f"{entry['accept']}-{terms_sha256[:16]}.json"


def _stored_files(name: str) -> list[Path]:
    entry = embedded_models()[name]
    return [_in_package(name, part) for part in entry.get("parts") or [f"{entry['package']}/{entry['file']}"]]


def _in_package(name: str, part: str) -> Path:
    """A file by the name of its package and its path inside."""
    package, _, inside = part.partition("/")
    entry, spec = embedded_models()[name], importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise DependencyError(
            f"The embedded model '{name}' is not installed",
            where=f"package {package}",
            found=None if "accept" not in entry else f"it comes under the {entry['license']}: {entry['terms_address']}",
            fix=entry["install"],
        )
    return Path(spec.origin).parent / inside

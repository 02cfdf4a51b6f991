"""What leads to a stage, as a name: another input, setting, library or line of code makes another name."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import tutelage.curate
import tutelage.formats
from tutelage.config.sections import Section
from tutelage.curate.request import CurationRequest
from tutelage.curate.step import CorpusStep, RowStep
from tutelage.formats.sources import SourceFile
from tutelage.system.seals import file_sha256
from tutelage.system.source_code import source_code_sha256

DECIDING_ROOMS = (tutelage.formats, tutelage.curate)
DECIDING_PACKAGES = ("tutelage.formats", "tutelage.curate", "tutelage.system", "tutelage")
DECIDING_LIBRARIES = ("msgspec", "numpy", "pyarrow", "ftfy", "py3langid", "rapidfuzz", "glin-profanity")
KEY_DIGITS = 16


def stage_keys(
    request: CurationRequest,
    passes: Sequence[Sequence[RowStep | CorpusStep]],
    files: Sequence[SourceFile],
    sha256: Mapping[str, str],
) -> list[str]:
    """The key of reading, then of each pass over the rows, each of which holds all before it.

    Args:
        request: what is asked for.
        passes: steps that are taken together.
        files: of the sources.
        sha256: hash of each by its name.
    """
    keys = [
        _key(
            files=[[file.display_name, sha256[file.display_name]] for file in files],
            reading=request.reading_facts,
            code=deciding_code(),
            libraries=_libraries(),
        )
    ]
    for group in passes:
        steps = [[step.name, _settings_of(step.name, request), getattr(step, "facts", None)] for step in group]
        keys.append(
            _key(before=keys[-1], steps=steps, seed=request.seed, held_out=request.held_out, sources=request.sources)
        )
    return keys


def behind(key: str, outside: str) -> str:
    """The key of a stage or of the output, behind stages that learned something which no key before them can know.

    Args:
        key: as it would be without.
        outside: what they learned (`Decisions.outside`); empty where they learned nothing.
    """
    return _key(before=key, outside=outside) if outside else key


def output_key(request: CurationRequest, last: str) -> str:
    """The key of the output, of which the last stage has the key `last`."""
    tokenizer = None if request.tokenizer is None else file_sha256(request.tokenizer)
    return _key(
        before=last, format=request.file_format, tokenizer=tokenizer, licenses=request.settings.licenses,
        sources=request.sources,
    )  # fmt: skip


def _settings_of(name: str, request: CurationRequest) -> dict[str, Any]:
    section = getattr(request.settings, name, None)
    return section.model_dump() if isinstance(section, Section) else {}


def _key(**facts: Any) -> str:
    text = json.dumps(facts, sort_keys=True, default=_json_default)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:KEY_DIGITS]


@cache
def deciding_code() -> str:
    """The hash of the code that decides what becomes of a row."""
    inner = [
        package.name
        for room in DECIDING_ROOMS
        for package in walk_packages(room.__path__, f"{room.__name__}.")
        if package.ispkg
    ]
    return source_code_sha256([*DECIDING_PACKAGES, *sorted(inner)])


def _libraries() -> dict[str, str]:
    versions = {}
    for name in DECIDING_LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _json_default(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no spelling that a key could be made of")

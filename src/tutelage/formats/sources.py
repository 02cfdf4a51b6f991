"""Finds the files behind what the user named: paths, globs, folders, or a data set on the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from glob import glob
from pathlib import Path

from tutelage import hub
from tutelage.errors import DataError, SourceNotFoundError
from tutelage.formats.names import ENDINGS, HUB_ENDINGS, NOT_DATA, NOT_DATA_STEMS, SPLIT_WORDS
from tutelage.formats.sniff import ending

CONVERTED_REVISION = "refs/convert/parquet"
"""Where the hub keeps its own Parquet copy of data sets whose files are in another form."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read, and the name that addresses show for it."""

    path: Path
    shown: str


def find_files(sources: Sequence[str], note: Callable[[str], None]) -> list[SourceFile]:
    """The files of all sources, in the order named; those of a folder or glob sorted by name.

    Raises:
        SourceNotFoundError: nothing there, with the nearest names that are.
        DataError: a folder without readable files, or a hub data set of which no one part is meant.
    """
    if not sources:
        raise SourceNotFoundError("No data was named", expected="a file, folder, glob or hub id", fix="name one")
    found: list[SourceFile] = []
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            found += _of_folder(path)
        elif path.exists():
            found.append(SourceFile(path, str(path)))
        elif any(letter in source for letter in "*?["):
            found += _of_glob(source)
        else:
            found += _of_hub_or_missing(source, path, note)
    return found


def _is_data(relative: Path) -> bool:
    name = relative.name.lower()
    hidden = any(part.startswith(".") for part in relative.parts)
    return ending(relative) in ENDINGS and not hidden and name not in NOT_DATA and not name.startswith(NOT_DATA_STEMS)


def _of_folder(folder: Path) -> list[SourceFile]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and _is_data(path.relative_to(folder)))
    if not paths:
        raise DataError(
            "The folder holds no data files",
            where=str(folder),
            expected="files ending in " + " ".join(ENDINGS) + ", plain or .gz",
            fix="name the folder that holds them, or the files themselves",
        )
    return [SourceFile(path, str(path)) for path in paths]


def _of_glob(pattern: str) -> list[SourceFile]:
    paths = sorted(Path(name) for name in glob(str(Path(pattern).expanduser()), recursive=True))
    files = [path for path in paths if path.is_file()]
    if not files:
        raise SourceNotFoundError("No file matches", where=pattern, fix="check the pattern, quoted as it reached here")
    return [SourceFile(path, str(path)) for path in files]


def _of_hub_or_missing(source: str, path: Path, note: Callable[[str], None]) -> list[SourceFile]:
    repository, _, selection = source.partition(":")
    near = _near(path)
    if repository.count("/") == 1 and hub.looks_like_repository(repository):
        try:
            return _of_hub(repository, selection, note)
        except SourceNotFoundError:
            if not near:
                raise
    raise SourceNotFoundError(
        "There is no such file",
        where=source,
        found=("near it: " + ", ".join(near)) if near else f"nothing of a like name in {path.parent}",
        expected="a file, folder or glob here, or a hub id owner/name or owner/name:split",
        fix=f"write {near[0]}" if near else "check the path",
    )


def _near(path: Path) -> list[str]:
    if not path.parent.is_dir():
        return []
    names = [one.name for one in path.parent.iterdir()]
    return [str(path.parent / name) for name in get_close_matches(path.name, names, n=3)]


def _of_hub(repository: str, selection: str, note: Callable[[str], None]) -> list[SourceFile]:
    patterns = [f"*{kind}{packed}" for kind in HUB_ENDINGS for packed in ("", ".gz")]
    folder = hub.snapshot(repository, kind="dataset", patterns=patterns)
    names = _data_names(folder)
    if not names:
        folder = hub.snapshot(repository, kind="dataset", patterns=patterns, revision=CONVERTED_REVISION)
        names = _data_names(folder)
    if not names:
        raise SourceNotFoundError(
            f"The data set '{repository}' holds no files that can be read",
            where=repository,
            expected="files ending in " + " ".join(HUB_ENDINGS),
            fix="download it and convert it to JSON lines",
        )
    chosen = _one_form(_one_part(repository, selection, names), repository, note)
    return [SourceFile(folder / name, f"{repository}/{name.as_posix()}") for name in chosen]


def _data_names(folder: Path) -> list[Path]:
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in inside if ending(name) in HUB_ENDINGS and _is_data(name))


def _carries(name: Path, word: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(word.lower())}(?![a-z])", name.as_posix().lower()) is not None


def _one_part(repository: str, selection: str, names: list[Path]) -> list[Path]:
    """The files of one split of one configuration; `selection` is `split`, `configuration/split` or nothing."""
    part, _, split = selection.rpartition("/")
    inside = [name for name in names if not part or name.as_posix().startswith(part + "/")]
    chosen = [name for name in inside if _carries(name, split or "train")]
    if not chosen and not split:
        chosen = [name for name in inside if not any(_carries(name, word) for word in SPLIT_WORDS)]
    if not chosen:
        raise SourceNotFoundError(
            f"The data set '{repository}' has no files for '{selection or 'train'}'",
            where=repository,
            found=", ".join(name.as_posix() for name in names[:12]),
            expected="a split that stands in a file's name or folder",
            fix=f"write {repository}:SPLIT or {repository}:FOLDER/SPLIT",
        )
    parts = sorted({_configuration(name, split or "train") for name in chosen})
    if len(parts) > 1:
        raise DataError(
            f"The data set '{repository}' has several parts, and none was named",
            where=repository,
            found=", ".join(parts),
            expected="one of them",
            fix=f"write {repository}:{parts[0] if parts[0] != '.' else parts[1]}/{split or 'train'}",
        )
    return chosen


def _configuration(name: Path, split: str) -> str:
    kept = [part for part in name.parent.parts if not _carries(Path(part), split)]
    return "/".join(kept) or "."


def _one_form(names: list[Path], repository: str, note: Callable[[str], None]) -> list[Path]:
    """The files of the preferred ending, as several endings are copies of the same rows."""
    present = [kind for kind in HUB_ENDINGS if any(ending(name) == kind for name in names)]
    if len(present) > 1:
        note(f"{repository} holds {' and '.join(present)} files; the {present[0]} files were read")
    return [name for name in names if ending(name) == present[0]]

"""Finds the files behind what the user named: paths, globs, folders, or a data set on the hub."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from glob import escape, glob
from pathlib import Path
from typing import Literal

from tutelage.errors import DataError, SourceNotFoundError, cause_of
from tutelage.formats.names import ENDINGS, HUB_ENDINGS, NOT_DATA, NOT_DATA_STEMS, SPLIT_WORDS
from tutelage.formats.sniff import ending
from tutelage.system import hub

CONVERTED_REVISION = "refs/convert/parquet"
"""Where the hub keeps its own Parquet copy of data sets whose files are in another form."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read, and the name that addresses show for it."""

    path: Path
    shown: str


def shown_path(path: Path | str) -> str:
    r"""A path as text that any file can hold: a byte of it that is no UTF-8 is named, as `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def find_files(sources: Sequence[str], note: Callable[[str], None]) -> list[SourceFile]:
    """The files of all sources, in the order named; those of a folder or glob sorted by name.

    Raises:
        SourceNotFoundError: nothing there, with the nearest names that are.
        DataError: a folder without data files, a file that may not be read or can be read once alone (a pipe), or a hub
            data set of which no one part is meant.
    """
    if not sources:
        raise SourceNotFoundError("No data was named", expected="a file, folder, glob or hub id", fix="name one")
    found: list[SourceFile] = []
    for source in sources:
        path = Path(source).expanduser()
        kind = _kind_of(path, source)
        if kind == "folder":
            found += _of_folder(path, note)
        elif kind == "file":
            found.append(SourceFile(path, shown_path(path)))
        elif any(letter in source for letter in "*?["):
            found += _of_glob(source, note)
        else:
            found += _of_hub_or_missing(source, path, note)
    for file in found:
        if not os.access(file.path, os.R_OK):
            raise _forbidden(file.path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return found


def _kind_of(path: Path, source: str) -> Literal["folder", "file", "nothing"]:
    """What stands at a path.

    Raises:
        SourceNotFoundError: a link to nothing, or a path that no system can have.
        DataError: something that is no file, such as a pipe, or a place that may not be looked at.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise _dangling(path) from None
        return "nothing"
    except PermissionError as error:
        raise _forbidden(path, error) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        raise SourceNotFoundError(
            "No file can have this path",
            where=shown_path(source)[:200],
            found=cause_of(error),
            expected="a file, folder or glob here, or a hub id owner/name or owner/name:split",
            fix="check the path",
        ) from error
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    raise DataError(
        "This is no file that can be read twice",
        where=shown_path(path),
        found="a pipe or a device",
        expected="a file: its rows are counted before they are read",
        fix="write it to a file first: cat PIPE > rows.jsonl",
    )


def _dangling(path: Path) -> SourceNotFoundError:
    return SourceNotFoundError(
        "The link leads to nothing",
        where=shown_path(path),
        found=f"a link to {shown_path(os.readlink(path))}",
        fix="make the link again, or name the file itself",
    )


def _forbidden(path: Path, error: OSError) -> DataError:
    return DataError(
        "The data cannot be opened", where=shown_path(path), found=cause_of(error),
        fix="give yourself the right to read it: chmod -R u+rX PATH",
    )  # fmt: skip


def _is_data(relative: Path) -> bool:
    name = relative.name.lower()
    hidden = any(part.startswith(".") for part in relative.parts)
    return ending(relative) in ENDINGS and not hidden and name not in NOT_DATA and not name.startswith(NOT_DATA_STEMS)


def _of_folder(folder: Path, note: Callable[[str], None]) -> list[SourceFile]:
    def cannot(error: OSError) -> None:
        place = Path(error.filename)
        if place == folder:
            raise _forbidden(place, error) from error
        note(f"{shown_path(place)} is passed over: {cause_of(error)}")

    paths = []
    for above, inner, names in os.walk(folder, onerror=cannot):
        for name in inner:
            place = Path(above) / name
            if place.is_symlink() and not name.startswith("."):
                note(f"{shown_path(place)} is passed over: a link to a folder; name it to read it")
        for path in (Path(above) / name for name in names):
            if _is_data(path.relative_to(folder)) and _is_file(path, note):
                paths.append(path)
    if not paths:
        raise DataError(
            "The folder holds no data files",
            where=shown_path(folder),
            expected="files ending in " + " ".join(ENDINGS) + ", plain or .gz",
            fix="name the folder that holds them, or the files themselves",
        )
    return [SourceFile(path, shown_path(path)) for path in sorted(paths)]


def _is_file(path: Path, note: Callable[[str], None]) -> bool:
    """Whether a path that was met on the way is a file; what is none is named in a note."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return True
        cause = "no file"
    except OSError as error:
        cause = "a link to nothing" if path.is_symlink() else cause_of(error)
    note(f"{shown_path(path)} is passed over: {cause}")
    return False


def _of_glob(pattern: str, note: Callable[[str], None]) -> list[SourceFile]:
    try:
        names = glob(_with_literal_folder(str(Path(pattern).expanduser())), recursive=True)
    except (re.error, ValueError, OSError) as error:
        raise SourceNotFoundError(
            "The pattern cannot be read", where=shown_path(pattern)[:200], found=cause_of(error), fix="check it"
        ) from error
    files = [path for path in sorted(map(Path, names)) if not os.path.isdir(path) and _is_file(path, note)]
    if not files:
        raise SourceNotFoundError(
            "No file matches", where=shown_path(pattern), fix="check the pattern, quoted as it reached here"
        )
    return [SourceFile(path, shown_path(path)) for path in files]


def _with_literal_folder(pattern: str) -> str:
    """The pattern with the folders that are there by that very name taken as they stand, brackets and all."""
    parts = Path(pattern).parts
    for end in range(len(parts) - 1, 0, -1):
        folder = Path(*parts[:end])
        if any(letter in str(folder) for letter in "*?[") and os.path.isdir(folder):
            return str(Path(escape(str(folder)), *parts[end:]))
    return pattern


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
        where=shown_path(source),
        found=("near it: " + ", ".join(near)) if near else f"nothing of a like name in {shown_path(path.parent)}",
        expected="a file, folder or glob here, or a hub id owner/name or owner/name:split",
        fix=f"write {near[0]}" if near else "check the path",
    )


def _near(path: Path) -> list[str]:
    try:
        names = [beside.name for beside in path.parent.iterdir() if beside.exists()]
    except OSError:  # no folder, or none that may be listed: then nothing is near
        return []
    return [shown_path(path.parent / name) for name in get_close_matches(path.name, names, n=3)]


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

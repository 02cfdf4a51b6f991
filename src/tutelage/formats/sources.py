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
from tutelage.formats.dataset_card import CARD, DatasetCard, card_of, files_of_folder
from tutelage.formats.dataset_folders import saved_files
from tutelage.formats.memory import kept_rows
from tutelage.formats.names import COMPRESSIONS, ENDINGS, HUB_ENDINGS, NOT_DATA, NOT_DATA_STEMS, SPLIT_WORDS
from tutelage.formats.sniff import ending
from tutelage.system import hub
from tutelage.types import Unit

CONVERTED_REVISION = "refs/convert/parquet"
"""Where the hub keeps its own Parquet copy of data sets whose files are in another form."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read, the name that addresses show for it, and what they count: `item` for rows handed in."""

    path: Path
    display_name: str
    unit: Unit = "line"


def path_text(path: Path | str) -> str:
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
    files: list[SourceFile] = []
    for source in sources:
        if (memory_rows := rows_in_memory(source)) is not None:
            files.append(memory_rows)
            continue
        path = Path(source).expanduser()
        kind = _kind_of(path, source)
        if kind == "folder":
            files += _folder_files(path, note)
        elif kind == "file":
            files.append(SourceFile(path, path_text(path)))
        elif any(character in source for character in "*?["):
            files += _glob_files(source, note)
        else:
            files += _hub_files_or_error(source, path, note)
    for file in files:
        if not os.access(file.path, os.R_OK):
            raise _permission_error(file.path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    return files


def rows_in_memory(source: str) -> SourceFile | None:
    """The file of rows that a program handed in, by the name that stands in its settings; None for another source.

    Raises:
        SourceNotFoundError: it is not in the cache any more.
    """
    memory_rows = kept_rows(source)
    return None if memory_rows is None else SourceFile(*memory_rows, unit="item")


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
            raise _dangling_link_error(path) from None
        return "nothing"
    except PermissionError as error:
        raise _permission_error(path, error) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        raise SourceNotFoundError(
            "No file can have this path",
            where=path_text(source)[:200],
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
        where=path_text(path),
        found="a pipe or a device",
        expected="a file: its rows are counted before they are read",
        fix="write it to a file first: cat PIPE > rows.jsonl",
    )


def _dangling_link_error(path: Path) -> SourceNotFoundError:
    return SourceNotFoundError(
        "The link leads to nothing",
        where=path_text(path),
        found=f"a link to {path_text(os.readlink(path))}",
        fix="make the link again, or name the file itself",
    )


def _permission_error(path: Path, error: OSError) -> DataError:
    return DataError(
        "The data cannot be opened", where=path_text(path), found=cause_of(error),
        fix="give yourself the right to read it: chmod -R u+rX PATH",
    )  # fmt: skip


def _is_data(relative: Path) -> bool:
    name = relative.name.lower()
    hidden = any(path_component.startswith(".") for path_component in relative.parts)
    return ending(relative) in ENDINGS and not hidden and name not in NOT_DATA and not name.startswith(NOT_DATA_STEMS)


def _folder_files(folder: Path, note: Callable[[str], None]) -> list[SourceFile]:
    saved = saved_files(folder, note)
    if saved is not None:
        return [SourceFile(path, path_text(path)) for path in saved]

    def on_walk_error(error: OSError) -> None:
        subfolder = Path(error.filename)
        if subfolder == folder:
            raise _permission_error(subfolder, error) from error
        note(f"{path_text(subfolder)} is passed over: {cause_of(error)}")

    paths = []
    for parent, folder_names, names in os.walk(folder, onerror=on_walk_error):
        for name in folder_names:
            subfolder = Path(parent) / name
            if subfolder.is_symlink() and not name.startswith("."):
                note(f"{path_text(subfolder)} is passed over: a link to a folder; name it to read it")
        for path in (Path(parent) / name for name in names):
            if _is_data(path.relative_to(folder)) and _is_file(path, note):
                paths.append(path)
    if not paths:
        raise DataError(
            "The folder holds no data files",
            where=path_text(folder),
            expected="files ending in " + " ".join(ENDINGS) + ", plain or " + ", ".join(COMPRESSIONS),
            fix="name the folder that holds them, or the files themselves",
        )
    return [SourceFile(path, path_text(path)) for path in files_of_folder(folder, sorted(paths), note)]


def _is_file(path: Path, note: Callable[[str], None]) -> bool:
    """Whether a path that was met on the way is a file; what is none is named in a note."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return True
        cause = "no file"
    except OSError as error:
        cause = "a link to nothing" if path.is_symlink() else cause_of(error)
    note(f"{path_text(path)} is passed over: {cause}")
    return False


def _glob_files(pattern: str, note: Callable[[str], None]) -> list[SourceFile]:
    try:
        names = glob(_with_literal_folder(str(Path(pattern).expanduser())), recursive=True)
    except (re.error, ValueError, OSError) as error:
        raise SourceNotFoundError(
            "The pattern cannot be read", where=path_text(pattern)[:200], found=cause_of(error), fix="check it"
        ) from error
    files = [path for path in sorted(map(Path, names)) if not os.path.isdir(path) and _is_file(path, note)]
    if not files:
        raise SourceNotFoundError(
            "No file matches", where=path_text(pattern), fix="check the pattern, quoted as it reached here"
        )
    return [SourceFile(path, path_text(path)) for path in files]


def _with_literal_folder(pattern: str) -> str:
    """The pattern with the folders that are there by that very name taken as they stand, brackets and all."""
    parts = Path(pattern).parts
    for end in range(len(parts) - 1, 0, -1):
        folder = Path(*parts[:end])
        if any(character in str(folder) for character in "*?[") and os.path.isdir(folder):
            return str(Path(escape(str(folder)), *parts[end:]))
    return pattern


def _hub_files_or_error(source: str, path: Path, note: Callable[[str], None]) -> list[SourceFile]:
    repository, _, selection = source.partition(":")
    similar_paths = _similar_paths(path)
    if repository.count("/") == 1 and hub.looks_like_repository(repository):
        try:
            return _hub_files(repository, selection, note)
        except SourceNotFoundError:
            if not similar_paths:
                raise
    raise SourceNotFoundError(
        "There is no such file",
        where=path_text(source),
        found=("near it: " + ", ".join(similar_paths))
        if similar_paths
        else f"nothing of a like name in {path_text(path.parent)}",
        expected="a file, folder or glob here, or a hub id owner/name or owner/name:split",
        fix=f"write {similar_paths[0]}" if similar_paths else "check the path",
    )


def _similar_paths(path: Path) -> list[str]:
    try:
        names = [sibling.name for sibling in path.parent.iterdir() if sibling.exists()]
    except OSError:  # no folder, or none that may be listed: then nothing is near
        return []
    return [path_text(path.parent / name) for name in get_close_matches(path.name, names, n=3)]


def _hub_files(repository: str, selection: str, note: Callable[[str], None]) -> list[SourceFile]:
    patterns = [CARD, *(f"*{ending_}{compression}" for ending_ in HUB_ENDINGS for compression in ("", *COMPRESSIONS))]
    folder = hub.snapshot(repository, kind="dataset", patterns=patterns)
    names = _data_paths(folder)
    if not names:
        folder = hub.snapshot(repository, kind="dataset", patterns=patterns, revision=CONVERTED_REVISION)
        names = _data_paths(folder)
    if not names:
        raise SourceNotFoundError(
            f"The data set '{repository}' holds no files that can be read",
            where=repository,
            expected="files ending in " + " ".join(HUB_ENDINGS),
            fix="download it and convert it to JSON lines",
        )
    card = card_of(folder)
    stated = None if card is None else _stated_files(card, repository, selection, names, note)
    chosen = _files_of_best_format(stated or _split_files(repository, selection, names), repository, note)
    return [SourceFile(folder / name, f"{repository}/{name.as_posix()}") for name in chosen]


def _stated_files(
    card: DatasetCard, repository: str, selection: str, names: list[Path], note: Callable[[str], None]
) -> list[Path] | None:
    """The files that the data set's card states for the selection; None where it states none."""
    if card.license:
        note(f"{repository}: its card states the license {card.license}")
    configuration, _, split = selection.rpartition("/")
    if not card.parts or (configuration and configuration not in card.parts):
        return None
    stated = card.files(names, configuration, split or "train", repository)
    return None if stated is None else [Path(name) for name in stated]


def _data_paths(folder: Path) -> list[Path]:
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in inside if ending(name) in HUB_ENDINGS and _is_data(name))


def _names_split(name: Path, word: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(word.lower())}(?![a-z])", name.as_posix().lower()) is not None


def _split_files(repository: str, selection: str, names: list[Path]) -> list[Path]:
    """The files of one split of one configuration; `selection` is `split`, `configuration/split` or nothing."""
    configuration, _, split = selection.rpartition("/")
    configuration_names = [
        name for name in names if not configuration or name.as_posix().startswith(configuration + "/")
    ]
    chosen = [name for name in configuration_names if _names_split(name, split or "train")]
    if not chosen and not split:
        chosen = [name for name in configuration_names if not any(_names_split(name, word) for word in SPLIT_WORDS)]
    if not chosen:
        raise SourceNotFoundError(
            f"The data set '{repository}' has no files for '{selection or 'train'}'",
            where=repository,
            found=", ".join(name.as_posix() for name in names[:12]),
            expected="a split that stands in a file's name or folder",
            fix=f"write {repository}:SPLIT or {repository}:FOLDER/SPLIT",
        )
    configurations = sorted({_configuration(name, split or "train") for name in chosen})
    if len(configurations) > 1:
        raise DataError(
            f"The data set '{repository}' has several parts, and none was named",
            where=repository,
            found=", ".join(configurations),
            expected="one of them",
            fix=f"write {repository}:"
            f"{configurations[0] if configurations[0] != '.' else configurations[1]}/{split or 'train'}",
        )
    return chosen


def _configuration(name: Path, split: str) -> str:
    folder_names = [folder_name for folder_name in name.parent.parts if not _names_split(Path(folder_name), split)]
    return "/".join(folder_names) or "."


def _files_of_best_format(names: list[Path], repository: str, note: Callable[[str], None]) -> list[Path]:
    """The files of the preferred ending, as several endings are copies of the same rows."""
    present = [ending_ for ending_ in HUB_ENDINGS if any(ending(name) == ending_ for name in names)]
    if len(present) > 1:
        note(f"{repository} holds {' and '.join(present)} files; the {present[0]} files were read")
    return [name for name in names if ending(name) == present[0]]

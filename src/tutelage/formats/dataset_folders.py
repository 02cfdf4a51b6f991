"""Folders that tools wrote as a whole: which of their files hold the rows, in which order.

Those of the `datasets` library (`save_to_disk`) and of data-designer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tutelage.errors import DataError

_STATE: Final = "state.json"
_SPLITS: Final = "dataset_dict.json"
_DESIGN: Final = "builder_config.json"
"""Beside the rows of data-designer: how they were made."""
_BATCHES: Final = "parquet-files"


def saved_files(folder: Path, note: Callable[[str], None]) -> list[Path] | None:
    """The files of a data set that was saved to disk, of several splits those of `train`; None for other folders.

    What else lies there, such as caches of earlier steps, holds rows of other states of the data.

    Raises:
        DataError: it has several splits and no `train`, or its own list of files cannot be read or names none there.
    """
    if (folder / _SPLITS).is_file():
        splits = _member(folder / _SPLITS, "splits")
        split = splits[0] if len(splits) == 1 else "train"
        if split not in splits:
            raise DataError(
                "The folder holds several splits, and none was named",
                where=str(folder),
                found=", ".join(splits),
                expected="one of them",
                fix=f"name its folder: {folder / splits[0]}" if splits else "save the data again",
            )
        if len(splits) > 1:
            others = ", ".join(name for name in splits if name != split)
            note(f"{folder} holds the splits {', '.join(splits)}; {split} is read, and not {others}")
        return saved_files(folder / split, note)
    if not (folder / _STATE).is_file():
        return _designed_files(folder)
    names = [
        entry.get("filename") if isinstance(entry, dict) else None for entry in _member(folder / _STATE, "_data_files")
    ]
    files = [folder / name for name in names if isinstance(name, str)]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise DataError(
            "The saved data set is not whole",
            where=str(folder / _STATE),
            found="no files" if not files else "missing: " + ", ".join(missing),
            expected="the files that it names",
            fix="copy the folder again",
        )
    return files


def _designed_files(folder: Path) -> list[Path] | None:
    """The batches of a data set of data-designer; what a step behind it made of them lies in folders of its own."""
    if not (folder / _DESIGN).is_file():
        return None
    return sorted((folder / _BATCHES).glob("*.parquet")) or None


def _member(path: Path, name: str) -> list[Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError, TypeError):
        value = None
    if isinstance(value, list):
        return value
    raise DataError(
        "The description of a saved data set cannot be read",
        where=str(path),
        expected=f"an object with a list `{name}`",
        fix="copy the folder again, or name the data files themselves",
    )

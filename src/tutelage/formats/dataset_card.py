"""The card of a data set: what the head of its README says of its parts, their splits and its license."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any, Final

from tutelage.errors import DataError
from tutelage.system import hub

CARD: Final = "README.md"


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """What a card states.

    Attributes:
        parts: configuration -> split -> patterns of its files.
        default: the configuration that is meant where none is named; None where that is not stated.
        license: as it stands there; empty where it does not.
    """

    parts: Mapping[str, Mapping[str, Sequence[str]]]
    default: str | None
    license: str

    def files(self, names: Sequence[PurePath], configuration: str, split: str, where: str) -> list[PurePath] | None:
        """Those of the files that are of the split; None where the card does not say which are.

        Raises:
            DataError: the card has several configurations, and none was named.
        """
        chosen = configuration or self.default
        if chosen is None and len(self.parts) > 1:
            raise DataError(
                f"The data set '{where}' has several parts, and none was named",
                where=where,
                found=", ".join(self.parts),
                expected="one of them",
                fix=f"write {where}:{next(iter(self.parts))}/{split}",
            )
        splits = self.parts.get(chosen or "")
        if not splits or split not in splits:
            return None
        return [
            name for name in names if any(fnmatchcase(name.as_posix(), pattern) for pattern in splits[split])
        ] or None


def card_of(folder: Path) -> DatasetCard | None:
    """The card of a data set in a folder; None where there is none, or it has no head that can be read."""
    path = folder / CARD
    if not path.is_file():
        return None
    head = hub.card_head(path)
    if head is None:
        return None
    configurations = head.get("configs")
    parts: dict[str, dict[str, list[str]]] = {}
    default: str | None = None
    for item in configurations if isinstance(configurations, list) else ():
        name = item.get("config_name", "default") if isinstance(item, dict) else None
        if not isinstance(name, str) or not (splits := _splits(item.get("data_files"))):
            continue
        parts[name] = splits
        if item.get("default") is True or (name == "default" and default is None):
            default = name
    if default is None and len(parts) == 1:
        default = next(iter(parts))
    license_name = head.get("license")
    names = license_name if isinstance(license_name, list) else [license_name]
    return DatasetCard(parts, default, ", ".join(name for name in names if isinstance(name, str)))


def _splits(data_files: Any) -> dict[str, list[str]]:
    """Split -> patterns, of the ways in which a card writes them; patterns alone are the split `train`."""
    if isinstance(data_files, str):
        data_files = [data_files]
    if isinstance(data_files, dict):
        data_files = [{"split": split, "path": path} for split, path in data_files.items()]
    splits: dict[str, list[str]] = {}
    for item in data_files if isinstance(data_files, list) else ():
        entry = {"split": "train", "path": item} if isinstance(item, str) else item
        if not isinstance(entry, dict):
            continue
        split, paths = entry.get("split"), entry.get("path")
        patterns = [paths] if isinstance(paths, str) else paths
        if isinstance(split, str) and isinstance(patterns, list):
            splits.setdefault(split, []).extend(pattern for pattern in patterns if isinstance(pattern, str))
    return splits


def files_of_folder(folder: Path, paths: Sequence[Path], note: Callable[[str], None]) -> list[Path]:
    """Of the data files below a folder those that its card names as the split `train`; all where it names none."""
    card = card_of(folder)
    if card is None:
        return list(paths)
    if card.license:
        note(f"{folder}: its card states the license {card.license}")
    by_name = {PurePath(path.relative_to(folder)): path for path in paths}
    if card.default is None:
        return list(paths)
    chosen = card.files(list(by_name), "", "train", str(folder))
    if chosen is None or len(chosen) == len(paths):
        return list(paths)
    note(
        f"{folder}: the files of the split train are read, as its card says; {len(paths) - len(chosen)} others are not"
    )
    return [by_name[name] for name in chosen]

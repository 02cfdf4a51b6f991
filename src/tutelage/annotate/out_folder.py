"""Which folder people's work may be kept in: one that is new or empty, or that holds such work already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tutelage.errors import ConfigError, SaveError, cause_of, remedy
from tutelage.runs.folder import LOCK

ADDRESS = ".address.json"
"""Where the address of the page is kept; hidden, so that no reader of data takes it for rows."""


def make_out_folder(out: Path, own: Sequence[str]) -> None:
    """Make the folder where it is not there yet.

    Args:
        out: the folder.
        own: names of files of which one tells that the folder is of this command.

    Raises:
        ConfigError: a file is there, or a folder with something else in it.
        SaveError: it cannot be made.
    """
    try:
        names = {path.name for path in out.iterdir()} - {LOCK, ADDRESS} if out.exists() else set()
        if names and names.isdisjoint(own):
            raise _refusal(out, ", ".join(sorted(names)[:5]))
        out.mkdir(parents=True, exist_ok=True)
    except NotADirectoryError as error:
        raise _refusal(out, "a file") from error
    except OSError as error:
        raise SaveError(
            "The folder cannot be made",
            where=str(out),
            found=cause_of(error),
            fix=remedy(error, elsewhere="choose another folder with -o"),
        ) from error


def _refusal(out: Path, found: str) -> ConfigError:
    return ConfigError(
        "The output folder holds something else",
        where=str(out),
        found=found,
        expected="a new or empty folder, or one of the same command",
        fix="choose another with -o",
    )

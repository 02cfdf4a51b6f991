"""The books of a run on disk: `ledger.json` with the hashes of `ledger.jsonl` and `rows.json` beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import cause_of
from tutelage.ledger import Ledger
from tutelage.train import folder as run_files

HASHED = (run_files.DROPS, run_files.ROWS)


def write_books(folder: Path, ledger: Ledger, rows: Sequence[Any]) -> None:
    """Write counts and samples, and the rows that are shown; `ledger.jsonl` has its name already.

    Raises:
        SaveError: the disk is full or refuses.
    """
    run_files.write_json(folder / run_files.ROWS, list(rows))
    hashes = {name: _sha256(folder / name) for name in HASHED if (folder / name).is_file()}
    run_files.write_json(folder / run_files.LEDGER, ledger.as_dict() | {"sha256": hashes})


def damage_of_books(folder: Path) -> list[str]:
    """Each file of the books that is not as it was written, and what is wrong with it."""
    try:
        hashes = run_files.read_json(folder / run_files.LEDGER)["sha256"]
    except (OSError, ValueError, KeyError) as error:
        return [f"{run_files.LEDGER}: {cause_of(error)}"]
    found = []
    for name in HASHED:
        try:
            here = _sha256(folder / name) if (folder / name).exists() else None
        except OSError as error:
            found.append(f"{name}: {cause_of(error)}")
            continue
        if here != hashes.get(name):
            found.append(f"{name}: {'no such file' if here is None else 'other bytes than were written'}")
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

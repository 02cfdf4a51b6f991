"""The row ledger of a run on disk: `ledger.json` with the hashes of `ledger.jsonl` and `rows.json` beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.errors import cause_of
from tutelage.ledger import Ledger
from tutelage.runs import folder as run_files
from tutelage.runs.reading import LEDGER_HASHED_FILES
from tutelage.system.seals import differing_files, file_sha256


def write_row_ledger(folder: Path, ledger: Ledger, rows: Sequence[Any]) -> None:
    """Write counts and samples, and the rows that are shown; `ledger.jsonl` has its name already.

    Raises:
        SaveError: the disk is full or refuses.
    """
    run_files.write_json(folder / run_files.ROWS, list(rows))
    hashes = {name: file_sha256(folder / name) for name in LEDGER_HASHED_FILES if (folder / name).is_file()}
    run_files.write_json(folder / run_files.LEDGER, ledger.as_dict() | {"sha256": hashes})


def row_ledger_damage(folder: Path) -> list[str]:
    """Each file of the row ledger that is not as it was written, and what is wrong with it."""
    try:
        hashes = run_files.read_json(folder / run_files.LEDGER)["sha256"]
    except (OSError, ValueError, KeyError) as error:
        return [f"{run_files.LEDGER}: {cause_of(error)}"]
    damages = differing_files(folder, {name: hashes.get(name) for name in LEDGER_HASHED_FILES})
    return [f"{name}: {damage}" for name, damage in damages.items()]

"""The folder of a curation: the names in it, whether it is ours, and what was finished there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from tutelage.errors import ConfigError, SaveError
from tutelage.system.files import write_bytes
from tutelage.system.seals import OTHER_BYTES, differing_files, file_sha256

FORMATS: Final = ("jsonl", "parquet")
WHOLE, TRAIN, VALIDATION, TEST = "data", "train", "validation", "test"
SPLITS: Final = (TRAIN, VALIDATION, TEST)
"""What the files of rows are called, without their endings: one of all that are kept, or those of a split."""
LEDGER, DROPPED, FUNNEL, CARD, HASHES = "ledger.jsonl", "dropped.jsonl", "funnel.json", "card.md", "hashes.json"
PAGE = "report.html"
RESTORED = "restored"
"""What marks rows that were put back, in the books, and the key of an output that has such."""
REPORTS: Final = frozenset(
    f"{step}.json" for step in ("consistency", "decontaminate", "judge", "mix", "model_scores", "select", "split")
)
"""Files of what corpus steps found, by the names of these steps."""
MANIFEST, EVALUATION, HELD_OUT = "tasks.json", "evaluation.jsonl", "held_out.jsonl"
"""What `tutelage.synthesize.tasks` puts beside the rows that it made, under the same seal."""
WORK = ".work"
ROW_FILES: Final = {f"{name}.{ending}": name for name in (WHOLE, *SPLITS) for ending in FORMATS}
"""Names of files of rows, and what they are called without their endings."""
OURS = frozenset(
    {*ROW_FILES, LEDGER, DROPPED, FUNNEL, CARD, HASHES, PAGE, WORK, *REPORTS, MANIFEST, EVALUATION, HELD_OUT}
)
_STAGE = re.compile(r"\d\d-[a-z0-9_]+-[0-9a-f]{16}")


def require_ours(out: Path) -> None:
    """Refuse a folder that holds what a curation did not write, or that somebody has changed since.

    Raises:
        ConfigError: it does, or is no folder.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise _refusal(out, "a file", "a folder that is not there, is empty, or is of an earlier curation")
    names = {path.name for path in out.iterdir()}
    if foreign := sorted(name for name in names - OURS if not name.startswith(tuple(f".{ours}" for ours in OURS))):
        raise _refusal(out, ", ".join(foreign[:5]), "nothing but what a curation writes")
    if names and not names & {HASHES, WORK}:
        raise _refusal(out, f"{', '.join(sorted(names))} without {HASHES}", "what a curation has finished or begun")
    if HASHES in names:
        differing = differing_files(out, read_hashes(out)["files"])
        if changed := sorted(name for name, problem in differing.items() if problem == OTHER_BYTES):
            raise _refusal(out, f"{', '.join(changed)} with {OTHER_BYTES}", "the files as the curation wrote them")


def read_hashes(out: Path) -> dict[str, Any]:
    """The content of `hashes.json`: `key`, and `files` with the SHA-256 of each.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        content = json.loads((out / HASHES).read_text(encoding="utf-8"))
        if isinstance(content["files"], dict) and isinstance(content["key"], str):
            return dict(content)
        problem = "another content"
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise _refusal(out, f"{HASHES}: {problem}", "the file as a curation wrote it")


def finished_key(out: Path) -> str | None:
    """The key of the output that stands there whole; None where there is none."""
    if not (out / HASHES).is_file():
        return None
    hashes = read_hashes(out)
    return None if differing_files(out, hashes["files"]) else str(hashes["key"])


def row_files(out: Path) -> dict[str, Path]:
    """The files of rows that are there, by their names without endings."""
    return {name: out / file for file, name in ROW_FILES.items() if (out / file).is_file()}


def restored_rows(out: Path, key: str) -> int:
    """How many rows were put back into the output that stands there whole; 0 where none was, or nothing stands there.

    Raises:
        ConfigError: rows were, and what is asked for now is another curation, which would write the data without them.
    """
    finished = finished_key(out)
    if finished is None or not finished.endswith(f"+{RESTORED}"):
        return 0
    rows = int(json.loads((out / FUNNEL).read_text(encoding="utf-8"))[RESTORED])
    if finished.removesuffix(f"+{RESTORED}") != key:
        raise ConfigError(
            "Rows were restored in this folder, and other settings or data would write it without them",
            where=str(out),
            found=f"{rows:,} restored rows",
            expected="the curation that they were restored in, or another folder",
            fix="name another folder with -o, and restore there what you want; or move what is there away",
        )
    return rows


def begin_output(out: Path) -> None:
    """Take the seal off an older output, which is replaced file by file from here on."""
    (out / HASHES).unlink(missing_ok=True)


def write_hashes(out: Path, key: str, *, page: str | None = None) -> None:
    """Seal the output: from here on it is whole.

    Args:
        out: the folder.
        key: of the output.
        page: key of the page that is in it; None where there is none.
    """
    names = sorted(path.name for path in out.iterdir() if path.name in OURS - {WORK, HASHES})
    content = {"key": key, "page": page, "files": {name: file_sha256(out / name) for name in names}}
    write_bytes(out / HASHES, (json.dumps(content, indent=1) + "\n").encode())


def remove_stages(out: Path, *, but: Collection[str]) -> None:
    """Delete what earlier curations left to go on with, but for the stages named.

    Raises:
        SaveError: the system refuses.
    """
    for folder in (out / WORK).iterdir():
        if folder.name not in but and _STAGE.fullmatch(folder.name):
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise SaveError("A folder cannot be deleted", where=str(folder), found=str(error)) from error


def _refusal(out: Path, found: str, expected: str) -> ConfigError:
    return ConfigError(
        "This folder holds something that no curation wrote, and nothing is overwritten",
        where=str(out),
        found=found,
        expected=expected,
        fix="name another folder with -o, or move what is there away",
    )

"""SHA-256 of a model's files, so that a run can tell whether it goes on from the model that it began with.

A file is hashed once and remembered in the cache by its path, place on the disk, size and times, the last change of
its inode among them, which no program can set back. So the second run of a large model reads none of its weights twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tutelage.errors import DataError, cause_of
from tutelage.pack.example_store import read_sealed
from tutelage.system.files import write_bytes
from tutelage.system.seals import file_sha256, sealed

DECIDING = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "*.py",
)
"""What decides the numbers of a model in a folder; its tokenizer and template have hashes of their own."""
HASHED_AT_ONCE = 4
"""Files; hashing leaves Python's lock."""
SLOW_BYTES = 4 << 30
"""From here on it is said that hashing takes time."""
SETTLED_SECONDS = 2.0
"""A file changed later than this before it was hashed is not remembered: its times may be too coarse to show that it
changed again. Source: "racy Git", technical documentation of Git."""


def model_sha256(folder: Path, *, cache: Path | None, log: Callable[[str], None]) -> dict[str, str]:
    """The hash of each file of a model's folder that decides its numbers, by name.

    Args:
        folder: of the model, or of an adapter.
        cache: where hashes are remembered; None remembers none.
        log: told where it takes time.

    Raises:
        DataError: a file cannot be read, or is being written to.
    """
    paths = sorted({path for pattern in DECIDING for path in folder.glob(pattern) if path.is_file()})
    digests = {path: _remembered(path, cache) for path in paths}
    unhashed = [path for path, digest in digests.items() if digest is None]
    size = sum(path.stat().st_size for path in unhashed)
    if size > SLOW_BYTES:
        log(f"Hashing {size / 1e9:.1f} GB of {folder}, once: a resume must find the same model ...")
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        hashed = dict(zip(unhashed, pool.map(lambda path: _hashed(path, cache), unhashed), strict=True))
    return {path.name: digest or hashed[path] for path, digest in digests.items()}


def _hashed(path: Path, cache: Path | None) -> str:
    try:
        state, began = _file_state(path), time.time()
        digest = file_sha256(path)
        changed = state != _file_state(path)
    except OSError as error:
        raise DataError(
            "A file of the model cannot be read",
            where=str(path),
            found=cause_of(error),
            expected="a file that this user may read",
            fix="check its permissions, or fetch the model again",
        ) from error
    if changed:
        raise DataError(
            "A file of the model changed while it was read",
            where=str(path),
            expected="the same bytes until the model is loaded",
            fix="start again once nothing writes there",
        )
    newest = max(path.stat().st_mtime, path.stat().st_ctime)
    if cache is not None and began - newest > SETTLED_SECONDS:
        _remember(path, cache, state, digest)
    return digest


def _remembered(path: Path, cache: Path | None) -> str | None:
    if cache is None:
        return None
    with suppress(OSError, DataError, KeyError):
        entry = read_sealed(_entry_path(path, cache))
        if entry["state"] == _file_state(path):
            return str(entry["sha256"])
    return None


def _remember(path: Path, cache: Path, state: list[int], digest: str) -> None:
    """Written aside and renamed; where the cache cannot be written the file is hashed again the next time."""
    entry_path = _entry_path(path, cache)
    entry = sealed({"path": str(path.resolve()), "state": state, "sha256": digest})
    with suppress(OSError):
        entry_path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(entry_path, entry.encode("utf-8"), shared=True)


def _entry_path(path: Path, cache: Path) -> Path:
    return cache / (hashlib.sha256(json.dumps(str(path.resolve())).encode()).hexdigest()[:32] + ".json")


def _file_state(path: Path) -> list[int]:
    """What another content cannot have as well: device, inode, size, and the times of content and inode."""
    status = path.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]

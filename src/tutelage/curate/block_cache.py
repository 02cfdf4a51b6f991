"""Answers of a model about rows, kept by what decides them, so that nothing is computed twice.

Rows are computed in blocks, and a block begins where the content of the row before it says so. A row that is gone or
new changes its own block and no other, and which rows are computed together does not depend on what is kept: the
numbers of a second run are those of the first, to the bit.

Shape legend: N = rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.curate.store import Rows, StoredRow
from tutelage.system.files import cache_folder, write_bytes

USUAL_ROWS, MOST_ROWS = 32, 128
"""Of a block. A process that is killed loses the work of one."""
VERSION = 1
"""Part of every key: raise it when another number would come of the same rows and model."""


@dataclass(frozen=True, slots=True)
class BlockCache:
    """A folder with a file for each block of rows.

    Attributes:
        folder: of all that one model answers to one question.
    """

    folder: Path

    @classmethod
    def of(cls, kind: str, facts: Mapping[str, Any]) -> BlockCache:
        """That of a question to a model.

        Args:
            kind: the question.
            facts: all that the answers depend on beside the rows.
        """
        text = json.dumps([VERSION, kind, facts], sort_keys=True)
        return cls(cache_folder() / "scores" / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}")

    def get(self, key: str) -> bytes | None:
        """What is kept of a block."""
        with suppress(OSError):
            return self._path(key).read_bytes()
        return None

    def put(self, key: str, content: bytes) -> None:
        """Keep it. A disk that refuses costs only that it is computed again."""
        path = self._path(key)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content, shared=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key


@dataclass(slots=True)
class _Block:
    rows: list[StoredRow] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, row: StoredRow) -> bool:
        """Take a row; whether it is the last one."""
        own = hashlib.sha256(row.text.encode("utf-8", "surrogatepass")).digest()
        self.rows.append(row)
        self.digest.update(own)
        return own[0] % USUAL_ROWS == 0 or len(self.rows) == MOST_ROWS


def blocks_of(rows: Rows) -> Iterator[tuple[str, list[StoredRow]]]:
    """The rows in blocks, each with a hash of all that its rows say."""
    block = _Block()
    for row in rows:
        if block.add(row):
            yield block.digest.hexdigest(), block.rows
            block = _Block()
    if block.rows:
        yield block.digest.hexdigest(), block.rows


def answers_of(
    rows: Rows,
    cache: BlockCache,
    compute: Callable[[Sequence[StoredRow]], bytes],
    *,
    progress: Callable[[int, int], None],
) -> Iterator[tuple[list[StoredRow], bytes]]:
    """The rows of each block with what is said of them, computed where it is not kept.

    Args:
        rows: all of them.
        cache: what is known.
        compute: answers for the rows of a block.
        progress: told how many rows are done, of how many.
    """
    done = 0
    progress(done, len(rows))
    for key, block in blocks_of(rows):
        content = cache.get(key)
        if content is None:
            content = compute(block)
            cache.put(key, content)
        yield block, content
        done += len(block)
        progress(done, len(rows))

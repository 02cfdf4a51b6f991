"""Pages of files are let go and nothing in them is lost; memory that no file holds is left alone."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tutelage.curate.store import read_batch, write_batch
from tutelage.system.heap import release_pages

NUMBERS = 1 << 21


def file_pages() -> int:
    """Pages of files that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[2])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no map of a process to look at")
def test_pages_of_a_file_are_let_go_and_hold_what_was_written(tmp_path: Path) -> None:
    values = np.memmap(tmp_path / "values", dtype=np.uint64, mode="w+", shape=(NUMBERS,))
    values[:] = np.arange(NUMBERS, dtype=np.uint64)
    held = file_pages()
    release_pages(values[5:])
    assert held - file_pages() > 0.9 * values.nbytes / mmap.PAGESIZE
    assert int(values.sum()) == NUMBERS * (NUMBERS - 1) // 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no map of a process to look at")
def test_pages_of_a_file_that_arrow_maps_are_let_go(tmp_path: Path) -> None:
    write_batch(tmp_path / "batch", pa.record_batch({"n": pa.array(np.arange(NUMBERS))}))
    values = read_batch(tmp_path / "batch").column("n").to_numpy()
    total, held = int(values.sum()), file_pages()
    release_pages(values)
    assert held - file_pages() > 0.9 * values.nbytes / mmap.PAGESIZE
    assert int(values.sum()) == total == NUMBERS * (NUMBERS - 1) // 2


@pytest.mark.parametrize("mode", ["memory", "own copy of a file"])
def test_what_no_file_holds_is_left_alone(mode: str, tmp_path: Path) -> None:
    values = np.zeros(NUMBERS, dtype=np.uint64)
    if mode != "memory":
        values.tofile(tmp_path / "values")
        values = np.memmap(tmp_path / "values", dtype=np.uint64, mode="c")
    values[:] = 7
    release_pages(values)
    release_pages(values[:0])
    assert (values == 7).all()

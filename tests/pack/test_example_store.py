"""Examples in files: the same as in memory, at the memory of one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest

from tests.support.chunks import chunk_of, row_of
from tutelage.errors import DataError
from tutelage.pack import ExampleStore, Sampler, batches
from tutelage.pack.example_store import EXAMPLES, SUMMARY, SYSTEMS, StoreWriter, Totals
from tutelage.types import Address, Example, Turn, Unit

UNITS: tuple[Unit, ...] = ("line", "row", "item")


def example(number: int, part: int = 0) -> Example:
    size = 5 + number % 7
    weights = np.zeros(size, dtype=np.float32)
    weights[3:] = 1.0 if number % 2 else 0.5
    address = Address(f"file{number % 3}.jsonl", number * 10, UNITS[number % 3])
    ids = np.arange(number, number + size, dtype=np.int32)
    return Example(address, part, ids, weights, (Turn(1, 3, size),))


ROWS = [[example(number, part) for part in range(1 + number % 3)] for number in range(20)]
EXAMPLES_OF_ROWS = [one for row in ROWS for one in row]


def system_of(row: int) -> str | None:
    return None if row % 4 == 0 else "be \ud83d brief\n" if row % 4 == 1 else f"system {row}"


def append_rows(writer: StoreWriter, *, chunk_rows: int = 6) -> None:
    rows = [row_of(row, system_of(number)) for number, row in enumerate(ROWS)]
    for first in range(0, len(rows), chunk_rows):
        writer.append(chunk_of(rows[first : first + chunk_rows]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = StoreWriter(tmp_path / "store", vocabulary_size=1000)
    append_rows(writer)
    writer.finish()
    return tmp_path / "store"


def plain(examples: Sequence[Example]) -> list[object]:
    return [(one.address, one.part, one.turns, one.ids.tolist(), one.weights.tolist()) for one in examples]


def test_it_is_a_sequence_of_what_was_written(folder: Path) -> None:
    store = ExampleStore(folder, verify=True)
    assert len(store) == len(EXAMPLES_OF_ROWS)
    assert store.rows == len(ROWS)
    assert plain(store) == plain(EXAMPLES_OF_ROWS)
    assert plain(list(reversed(store))) == plain(EXAMPLES_OF_ROWS[::-1])


@pytest.mark.parametrize("place", [0, 7, -1, -len(EXAMPLES_OF_ROWS)])
def test_places_are_those_of_a_list(folder: Path, place: int) -> None:
    assert plain([ExampleStore(folder)[place]]) == plain([EXAMPLES_OF_ROWS[place]])


@pytest.mark.parametrize("place", [len(EXAMPLES_OF_ROWS), -len(EXAMPLES_OF_ROWS) - 1])
def test_a_place_beyond_the_end_is_an_index_error(folder: Path, place: int) -> None:
    with pytest.raises(IndexError):
        ExampleStore(folder)[place]


@pytest.mark.parametrize("cut", [slice(3), slice(-4, None), slice(2, 20, 3), slice(None, None, -1), slice(5, 5)])
def test_slices_are_those_of_a_list_and_slices_of_slices_too(folder: Path, cut: slice) -> None:
    part = ExampleStore(folder)[cut]
    assert plain(part) == plain(EXAMPLES_OF_ROWS[cut])
    assert plain(part[1:-1]) == plain(EXAMPLES_OF_ROWS[cut][1:-1])


def test_a_selection_keeps_its_order_and_counts_its_own(folder: Path) -> None:
    places = [5, 0, 17]
    part = ExampleStore(folder).select(np.asarray(places))
    chosen = [EXAMPLES_OF_ROWS[place] for place in places]
    assert plain(part) == plain(chosen)
    assert part.totals() == Totals(
        len(chosen), sum(len(one.ids) for one in chosen), sum(one.trained_tokens for one in chosen)
    )
    assert part.column("row").tolist() == [
        next(row for row, made in enumerate(ROWS) if one in made) for one in [EXAMPLES_OF_ROWS[p] for p in places]
    ]


def test_system_prompts_are_found_by_their_numbers(folder: Path) -> None:
    store = ExampleStore(folder)
    found = [None if number < 0 else store.system_prompt(number) for number in store.column("system_prompt").tolist()]
    assert found == [system_of(row) for row, made in enumerate(ROWS) for _ in made]
    assert len((folder / SYSTEMS).read_text(encoding="utf-8").splitlines()) == len({*found} - {None})


def test_batches_are_those_of_examples_in_memory(folder: Path) -> None:
    order = Sampler(len(EXAMPLES_OF_ROWS), batch_size=8, epochs=2.0, seed=3)
    made = [list(batches(of, order, row_tokens=32)) for of in (ExampleStore(folder), EXAMPLES_OF_ROWS)]
    assert [[row.addresses for row in one.rows] for one in made[0]] == [
        [row.addresses for row in one.rows] for one in made[1]
    ]
    for stored, held in zip(*made, strict=True):
        assert stored.trained_tokens == held.trained_tokens
        assert all(np.array_equal(a.ids, b.ids) for a, b in zip(stored.rows, held.rows, strict=True))
        assert all(np.array_equal(a.weights, b.weights) for a, b in zip(stored.rows, held.rows, strict=True))


def test_an_empty_store_can_be_opened(tmp_path: Path) -> None:
    StoreWriter(tmp_path, vocabulary_size=10).finish()
    store = ExampleStore(tmp_path, verify=True)
    assert (len(store), list(store), store.totals()) == (0, [], Totals(0, 0, 0))


def test_an_unfinished_store_cannot_be_opened(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, vocabulary_size=10)
    writer.append(chunk_of([row_of(ROWS[0])]))
    with pytest.raises(DataError, match="damaged"):
        ExampleStore(tmp_path)
    writer.abandon()
    with pytest.raises(DataError, match="damaged"):
        ExampleStore(tmp_path)


@pytest.mark.parametrize("name", [EXAMPLES, SYSTEMS, SUMMARY])
def test_a_cut_file_is_found_when_the_store_is_opened(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(DataError, match=name):
        ExampleStore(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=name):
        ExampleStore(folder)


@pytest.mark.parametrize("name", [EXAMPLES, SYSTEMS, SUMMARY])
def test_an_altered_byte_is_found_when_asked(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(DataError, match="other bytes"):
        ExampleStore(folder, verify=True)


def test_the_folder_may_go_while_the_store_is_read(folder: Path) -> None:
    store = ExampleStore(folder)
    folder.rename(folder.with_name("elsewhere"))
    assert plain(store) == plain(EXAMPLES_OF_ROWS)


def test_written_bytes_do_not_depend_on_when_they_were_written(tmp_path: Path, folder: Path) -> None:
    again = StoreWriter(tmp_path / "again", vocabulary_size=1000)
    append_rows(again)
    again.finish()
    for name in (EXAMPLES, SYSTEMS, SUMMARY):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


GROWTH = """\
import json, random, sys
from pathlib import Path
from tutelage.pack import ExampleStore

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024

store = ExampleStore(Path(sys.argv[1]), verify=True)
store[0], store.totals()
before = resident()
places = random.Random(0).sample(range(len(store)), len(store))
total = sum(len(store[place].ids) for place in places)
print(json.dumps({"grown": resident() - before, "total": total}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from the system files of Linux")
def test_reading_all_at_random_does_not_bring_the_file_into_memory(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, vocabulary_size=100_000)
    ids = np.arange(2000, dtype=np.int32)
    weights = np.ones(2000, dtype=np.float32)
    for first in range(0, 6000, 200):
        rows = [[Example(Address("f", first + row), 0, ids, weights, (Turn(0, 1, 2000),))] for row in range(200)]
        writer.append(chunk_of([row_of(row) for row in rows], vocabulary_size=100_000))
    writer.finish()
    size = (tmp_path / EXAMPLES).stat().st_size
    done = subprocess.run([sys.executable, "-c", GROWTH, str(tmp_path)], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["total"] == 6000 * 2000
    assert found["grown"] < size / 10


def test_other_tools_open_the_file(folder: Path) -> None:
    with pa.ipc.open_file(folder / EXAMPLES) as reader:
        table = reader.read_all()
    assert table.equals(pyarrow.dataset.dataset(folder / EXAMPLES, format="ipc").to_table())
    assert table.num_rows == len(EXAMPLES_OF_ROWS)
    for row, example in zip(table.to_pylist(), EXAMPLES_OF_ROWS, strict=True):
        weights = np.zeros(len(example.ids), dtype=np.float32)
        for run in row["weights"]:
            weights[run["start"] : run["end"]] = run["weight"]
        (turn,) = row["turns"]
        assert (row["input_ids"], weights.tolist()) == (example.ids.tolist(), example.weights.tolist())
        assert Turn(**turn) == example.turns[0]
        assert Address(row["file"], row["number"], row["unit"]) == example.address
        assert (row["part"], row["tokens"], row["trained_tokens"]) == (
            example.part,
            len(example.ids),
            example.trained_tokens,
        )


def test_a_chunk_is_written_as_the_worker_made_it(folder: Path) -> None:
    with pa.ipc.open_file(folder / EXAMPLES) as reader:
        sizes = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
    assert sizes == [sum(len(row) for row in ROWS[first : first + 6]) for first in range(0, len(ROWS), 6)]


def test_the_hash_of_the_examples_does_not_depend_on_the_chunks(tmp_path: Path, folder: Path) -> None:
    writer = StoreWriter(tmp_path / "one", vocabulary_size=1000)
    append_rows(writer, chunk_rows=len(ROWS))
    writer.finish()
    assert ExampleStore(tmp_path / "one").sha256() == ExampleStore(folder).sha256()

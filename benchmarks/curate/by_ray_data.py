"""One stage of a curation by our actors and by a Dataset of Ray, on the same cluster of this machine: time and memory.

    pip install 'tutelage[ray,curate]' pandas
    python benchmarks/curate/by_ray_data.py ROWS.jsonl --times 10

Normalizes and judges the rows of ROWS (`rows.py` makes them) in stretches of 1,000, as often over as --times says, on
two processors. In both, rows go out as bytes and what is made of them comes back; the actors' files are written, too.
Prints on stderr, for each pass, seconds, processor seconds of the process that asks, and the most shared memory that
was in use at a look.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tutelage import formats
from tutelage.config.curation import CurateSettings
from tutelage.curate.ray_engine import RayEngine
from tutelage.curate.row_json import row_json
from tutelage.curate.stage_work import Question, RowWork, Work, work_on
from tutelage.curate.step import CorpusStep, StepContext
from tutelage.curate.steps import build_steps
from tutelage.curate.store import Rows, StoredRow, file_bytes, rows_batch, write_batch
from tutelage.ledger import Ledger
from tutelage.system.ray_cluster import ray_cluster

WORKERS = 2
STRETCH = 1_000


def questions(path: Path, folder: Path, times: int) -> list[Question]:
    """The stretches of the file, `times` over."""
    stored = [
        StoredRow(row_json(row), row.address.file, row.address.number, row.address.unit, number)
        for number, row in enumerate(formats.read([str(path)], ledger=Ledger()))
    ]
    write_batch(folder / "rows.arrow", rows_batch(stored))
    rows = Rows([folder / "rows.arrow"])
    stretches = [rows.stretch(start, stop) for start, stop in rows.blocks(rows=STRETCH)] * times
    return [Question(part.chunks, part.places, part.labels, folder, number) for number, part in enumerate(stretches)]


def by_dataset(ray: Any, work: Work, asked: Sequence[Question]) -> Iterator[int]:
    """Have a Dataset map the rows; numbers of stretches as they are done."""
    import pyarrow as pa
    import ray.data as ray_data

    held = ray.put(work)

    class Worker:
        def __init__(self, held: list[Any]) -> None:
            self.work = ray.get(held[0])

        def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
            result = work_on(self.work, pa.ipc.open_file(item["rows"]).get_batch(0))
            return {"number": item["number"], "files": [file_bytes(made).to_pybytes() for _, made in result.files]}

    items = [{"number": question.number, "rows": file_bytes(question.batch()).to_pybytes()} for question in asked]
    dataset = ray_data.from_items(items, override_num_blocks=len(items))
    pool = ray_data.ActorPoolStrategy(size=WORKERS)
    for item in dataset.map(Worker, fn_constructor_args=[[held]], compute=pool).iter_rows():
        yield item["number"]


def by_actors(engine: RayEngine, work: Work, asked: Sequence[Question]) -> Iterator[int]:
    """Have the engine of curation do it, which also writes the files."""
    for number, _ in enumerate(engine.answers(work, asked)):
        yield number


def measure(name: str, done: Iterator[int]) -> None:
    """Print what a pass took."""
    started, processor = time.perf_counter(), time.process_time()
    shared = count = 0
    for _ in done:
        room = os.statvfs("/dev/shm")
        shared, count = max(shared, (room.f_blocks - room.f_bfree) * room.f_frsize), count + 1
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    print(f"{name}: {count} stretches, {seconds:.2f} s, {processor:.2f} s of its processor, {shared >> 20} MiB shared")


def main() -> None:
    """Read the arguments, and measure both by turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    steps = build_steps(CurateSettings(steps=["normalize", "quality"]), StepContext())
    work = RowWork(tuple(step for step in steps if not isinstance(step, CorpusStep)))
    with tempfile.TemporaryDirectory() as folder, ray_cluster("local", 2 * WORKERS) as ray:
        import ray.data

        ray.data.DataContext.get_current().enable_progress_bars = False
        asked = questions(options.rows, Path(folder), options.times)
        engine = RayEngine(ray, WORKERS, print)  # its actors keep their processors, beside those of a Dataset
        for _ in range(options.passes):
            measure("actors ", by_actors(engine, work, asked))
            measure("dataset", by_dataset(ray, work, asked))


if __name__ == "__main__":
    main()

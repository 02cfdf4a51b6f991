"""datatrove's MinHash on the rows of the benchmark, with its own defaults (14 buckets of 8 hashes, runs of 5 words).

    PYTHON_WITH_DATATROVE benchmarks/curate/by_datatrove.py FOLDER OUT [--workers 2]

A row's text is its turns, one below the other. Four stages, as datatrove's own example has them. The last line printed
is JSON: rows, seconds (all stages, and writing the rows as datatrove reads them left out), what was dropped by row.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter


def write_texts(folder: Path, out: Path, parts: int) -> int:
    """Write the rows as datatrove reads them, in as many files as there are tasks; how many there are."""
    lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    size = -(-len(lines) // parts)
    out.mkdir(parents=True)
    for part in range(parts):
        with (out / f"{part:05}.jsonl").open("w", encoding="utf-8") as stream:
            for number, line in enumerate(lines[part * size : (part + 1) * size], start=part * size):
                text = "\n\n".join(turn["content"] for turn in json.loads(line)["messages"])
                stream.write(json.dumps({"text": text, "id": str(number)}, ensure_ascii=False) + "\n")
    return len(lines)


def main() -> None:
    """Run the four stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    out, config, workers = asked.out, MinhashConfig(), asked.workers
    rows = write_texts(asked.folder, out / "texts", workers)
    reader, removed = JsonlReader(str(out / "texts")), JsonlWriter(str(out / "removed"))
    start = time.perf_counter()
    stages = [
        ([reader, MinhashDedupSignature(str(out / "signatures"), config=config)], workers),
        ([MinhashDedupBuckets(str(out / "signatures"), str(out / "buckets"), config=config)], config.num_buckets),
        ([MinhashDedupCluster(str(out / "buckets"), str(out / "remove"), config=config)], 1),
        ([reader, MinhashDedupFilter(str(out / "remove"), removed), JsonlWriter(str(out / "kept"))], workers),
    ]
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=workers, logging_dir=str(out / f"logs{number}")).run()
    seconds = time.perf_counter() - start
    dropped = {}
    for path in (out / "removed").glob("*.jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            dropped |= {int(json.loads(line)["id"]): "minhash" for line in stream}
    print(json.dumps({"rows": rows, "seconds": seconds, "dropped": dropped}))


if __name__ == "__main__":
    main()

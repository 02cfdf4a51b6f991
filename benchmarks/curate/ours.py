"""The steps of our own curation that find copies and contamination, on the rows of the benchmark.

    python benchmarks/curate/ours.py FOLDER OUT --evaluations FILE ... [--workers 2]

The last line printed is JSON: rows, seconds (the whole command but the start of Python), what was dropped by row, and
the seconds of each stage.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from tutelage.config.curation import CurateSettings
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest


def main() -> None:
    """Curate once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--evaluations", nargs="*", default=[])
    parser.add_argument("--steps", nargs="+", default=["exact_duplicates", "decontaminate", "near_duplicates"])
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    settings = CurateSettings.model_validate(
        {"steps": asked.steps, "decontaminate": {"evaluations": asked.evaluations}}
    )
    request = CurationRequest((str(asked.folder / "rows.jsonl"),), asked.out, settings, workers=asked.workers)
    start = time.perf_counter()
    curated = curate(request)
    seconds = time.perf_counter() - start
    entries = map(json.loads, (asked.out / "ledger.jsonl").read_text(encoding="utf-8").splitlines())
    dropped = {entry["row"]: entry["step"] for entry in entries if "dropped" in entry or "merged" in entry}
    stages = {name: round(spent, 2) for name, spent in curated.seconds.items()}
    print(json.dumps({"rows": curated.funnel.rows_in, "seconds": seconds, "dropped": dropped, "stages": stages}))


if __name__ == "__main__":
    main()

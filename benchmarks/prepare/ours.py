"""One preparation by tutelage, from file to proven Examples in files; prints one JSON line.

python benchmarks/prepare/ours.py ROWS.jsonl MODEL_FOLDER [--workers N] [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from tutelage import config
from tutelage.builders.dataset import prepare

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows")
    parser.add_argument("model_folder", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--cache", type=Path)
    asked = parser.parse_args()
    data = {"train": [asked.rows]} | ({} if asked.workers is None else {"workers": asked.workers})
    settings = config.from_mapping({"model": {"name": str(asked.model_folder)}, "data": data}, [], where="benchmark")
    started = time.perf_counter()
    prepared = prepare(settings, asked.model_folder, cache=asked.cache)
    seconds = time.perf_counter() - started
    ledger, totals = prepared.ledger, prepared.train_totals
    assert ledger.rows_in == ledger.rows_kept + ledger.rows_dropped
    print(
        json.dumps(
            {
                "rows": ledger.rows_in,
                "seconds": seconds,
                "tokens": totals.tokens,
                "trained_tokens": totals.trained_tokens,
                "dropped": dict(ledger.dropped),
            }
        )
    )

"""Predicted peak beside measured peak: real runs of the engine, each in a process of its own.

    python benchmarks/plan/run.py --methods full,lora --lengths 512,1024,2048 --batches 1,4

Needs Linux (/proc) and about 8 GB; a quarter of an hour for each method on 2 quiet cores. Prints a line for each run as
it ends, then the table: prediction over measurement, and whether all lie within 10 %. `--allocator` is the one
that a run would have here, glibc's with a fixed threshold, or as it comes; docs/plan.md says what that does. Exits with
1 where a run is off by more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tutelage.model.precision import resolve_precision
from tutelage.plan.devices import FIXED_THRESHOLD, TUNABLES, overheads
from tutelage.plan.fit import Traces
from tutelage.plan.model_shape import read_model_shape
from tutelage.plan.workload import METHODS, Method, single_document
from tutelage.system.allocator import INSTALL, better_allocator, preload_environment

MEASURE = Path(__file__).with_name("measure.py")
WITHIN = 0.10


def environment_with(allocator: str) -> dict[str, str]:
    """The environment of a run with that allocator.

    Raises:
        SystemExit: tcmalloc is not installed here.
    """
    environment = {name: value for name, value in os.environ.items() if name != TUNABLES}
    if allocator == "fixed":
        environment[TUNABLES] = f"{FIXED_THRESHOLD}=131072"
    elif allocator == "tcmalloc":
        library = better_allocator(environment)
        if library is None:
            raise SystemExit(f"There is no tcmalloc here: {INSTALL}; or --allocator fixed")
        environment = preload_environment(library, environment)
    return environment


def measured(
    method: Method, tokens: int, batch: int, *, steps: int, environment: dict[str, str], model: str
) -> dict[str, object]:
    """What one run took, as `measure.py` prints it."""
    asked = ["--method", method, "--tokens", tokens, "--batch", batch, "--steps", steps, "--model", model]
    done = subprocess.run(
        [sys.executable, str(MEASURE), *map(str, asked)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{method}, {tokens} tokens, batch {batch}: {done.stderr[-2000:]}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Run all, print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--lengths", default="512,1024,2048")
    parser.add_argument("--batches", default="1,4", help="rows of a step")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--allocator", choices=("tcmalloc", "fixed", "plain"), default="tcmalloc")
    asked = parser.parse_args()
    environment = environment_with(asked.allocator)
    overhead = overheads()["cpu" if asked.allocator == "plain" else f"cpu_{asked.allocator}"]
    traces = Traces(read_model_shape(asked.model))
    lines, off = [], 0
    for name in asked.methods.split(","):
        method = next(method for method in METHODS if method == name)
        for tokens in map(int, asked.lengths.split(",")):
            needed = traces.memory(single_document(method, resolve_precision("auto"), tokens), overhead)
            for batch in map(int, asked.batches.split(",")):
                found = measured(method, tokens, batch, steps=asked.steps, environment=environment, model=asked.model)
                peak = found["peak_bytes"]
                assert isinstance(peak, int)
                ratio = needed.peak_bytes / peak
                off += abs(ratio - 1) > WITHIN
                row = (method, tokens, batch, f"{needed.peak_bytes / 1e9:.2f}", f"{peak / 1e9:.2f}", f"{ratio:.3f}")
                lines.append("| " + " | ".join(map(str, row)) + " |")
                print(json.dumps(found | {"predicted_bytes": needed.peak_bytes, "ratio": ratio}), flush=True)
    print(
        f"\nPeak memory, {asked.model}, {asked.steps} steps, allocator {asked.allocator}, {resolve_precision('auto')}\n"
    )
    print("| method | tokens of a row | rows of a step | predicted GB | measured GB | ratio |")
    print("|---|---|---|---|---|---|")
    print("\n".join(lines))
    print(f"\n{len(lines) - off} of {len(lines)} within {WITHIN:.0%}")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())

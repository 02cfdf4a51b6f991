"""One real run of the engine in a process of its own, with its peak memory: what `run.py` compares predictions with.

    python benchmarks/plan/measure.py --method lora --tokens 1024 --batch 4 --steps 3

Prints one JSON line. Peak memory is VmHWM of /proc/self/status: `ru_maxrss` would also hold what the parent used
before it started this process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")  # as tutelage.cli does


def status_bytes(field: str) -> int:
    """VmHWM (peak) or VmRSS (now) of this process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def rows_of_exactly(folder: Path, model: Path, *, tokens: int, rows: int) -> Path:
    """A file of plain texts, each `tokens` tokens long once the engine has rendered it, and all different."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    words = [" the", " river", " lamp", " order", " seven", " slowly", " north", " paper", " green", " under"]
    assert all(len(tokenizer.encode(word).ids) == 1 for word in words), "one token a word"
    path = folder / f"rows-{tokens}.jsonl"
    texts = [
        "".join(words[(row * 7 + place * (row + 3)) % len(words)] for place in range(tokens - 1)) for row in range(rows)
    ]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def train_once(method: str, *, tokens: int, batch: int, steps: int, extra: dict[str, Any], name: str) -> dict[str, Any]:
    """Train `steps` steps of `batch` rows of `tokens` tokens, without evaluations; peak and speed."""
    from rich.console import Console

    from tutelage import config
    from tutelage.model.locate import model_folder
    from tutelage.report.console.progress import Screen
    from tutelage.train.run import run

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = rows_of_exactly(folder, model_folder(name), tokens=tokens, rows=batch * steps)
        recipe = {
            "name": "measured",
            "folder": str(folder / "runs"),
            "model": {"name": name, "method": method},
            "data": {"train": [str(data)], "format": "text"},
            "pack": {"max_seq_length": tokens, "row_tokens": tokens},
            "train": {"epochs": 1.0, "batch_size": batch},
            "evaluate": {"before": False},
        }
        for path, value in extra.items():
            section, key = path.split(".")
            recipe.setdefault(section, {})[key] = value
        settings = config.from_mapping(recipe, where="benchmark")
        base_bytes = status_bytes("VmRSS")
        cpu_before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        finished = run(settings, Screen(Console(file=io.StringIO())))
        lines = (finished.folder / "record.jsonl").read_text(encoding="utf-8").splitlines()
        recorded = [json.loads(line) for line in lines]
    done = [line for line in recorded if "loss" in line]
    assert {line["tokens"] for line in done} == {batch * tokens}, "every step sees what it was meant to see"
    return {
        "method": method,
        "tokens": tokens,
        "batch": batch,
        "steps": len(done),
        "base_bytes": base_bytes,
        "peak_bytes": status_bytes("VmHWM"),
        "peak_by_step": [line["peak_bytes"] for line in done],
        "tokens_per_second": done[-1]["tokens_per_second"],
        "cpu_seconds": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - cpu_before,
        "minor_faults": resource.getrusage(resource.RUSAGE_SELF).ru_minflt,
    }


def main() -> None:
    """Read the command line, train, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--method", default="full")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=JSON")
    asked = parser.parse_args()
    extra = {one.partition("=")[0]: json.loads(one.partition("=")[2]) for one in asked.set}
    found = train_once(
        asked.method, tokens=asked.tokens, batch=asked.batch, steps=asked.steps, extra=extra, name=asked.model
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()

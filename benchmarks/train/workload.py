"""The rows of the comparison, and the same rows as ids and labels in the order in which ours trains on them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.prepare import rows as row_maker
from benchmarks.train.by_tutelage import settings_for
from benchmarks.train.measured import Task

from tutelage.builders.dataset import prepare
from tutelage.pack import Sampler


@dataclass(frozen=True, slots=True)
class Workload:
    """What is trained on: tokens of each step, how many of all are trained, and one sentence about the rows."""

    step_tokens: list[int]
    trained_tokens: int
    about: str


def write_rows(source: Path | None, material: Path | None, count: int, out: Path) -> str:
    """Write `count` rows as JSON lines: the first of an Alpaca file, or made of published files.

    Raises:
        SystemExit: neither is named, or the file holds fewer rows.
    """
    if source is None:
        if material is None:
            raise SystemExit("Name the rows: --rows ALPACA_FILE, or --material FOLDER with the published files.")
        return row_maker.write(material, count, out)
    text = source.read_text(encoding="utf-8")
    all_rows = json.loads(text) if text.lstrip().startswith("[") else (json.loads(line) for line in text.splitlines())
    rows: list[dict[str, Any]] = list(islice(all_rows, count))
    if len(rows) < count:
        raise SystemExit(f"{source} holds {len(rows)} rows, {count} are needed")
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return f"the first {count} rows of {source.name}"


def write_examples(task: Task, about: str) -> Workload:
    """Prove the rows of `task` as ours does and write `task.examples`.

    Raises:
        SystemExit: fewer rows are kept than the steps need.
    """
    model_folder = Path(task.model_folder)
    settings = settings_for(task, model_folder)
    train = prepare(settings, model_folder).train
    needed = task.steps * task.batch_size
    if len(train) < needed:
        raise SystemExit(f"{len(train)} examples are kept of the rows, {needed} are needed")
    order = Sampler(len(train), task.batch_size, settings.train.epochs, settings.seed, task.steps)
    step_tokens, trained_tokens = [], 0
    with Path(task.examples).open("w", encoding="utf-8") as stream:
        for _, _, chosen in order.indices():
            tokens = 0
            for index in chosen:
                example = train[index]
                ids = example.ids.tolist()
                pairs = zip(ids, example.weights.tolist(), strict=True)
                labels = [token if weight else -100 for token, weight in pairs]
                stream.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
                tokens += len(ids)
                trained_tokens += sum(label != -100 for label in labels)
            step_tokens.append(tokens)
    return Workload(step_tokens, trained_tokens, about)

"""Judge tutelage's masks: every template x every trap conversation x three vocabularies, by an independent oracle.

    python -m benchmarks.masks.run                          # the templates of ../shared/material/templates
    python -m benchmarks.masks.run --templates DIR --conversations FILE.jsonl

Writes report.md, results.jsonl and what a comparison needs into --out (see benchmarks/masks/trl_masks.py).
The exit status is 1 when an Example is wrong.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.masks.checkpoints import BaseTokenizer
from benchmarks.masks.pairs import Case, TemplateResult, Workload, pairs_of
from benchmarks.masks.report import report
from benchmarks.masks.trl_compare import comparison

from tutelage import formats
from tutelage.config import RenderSettings
from tutelage.ledger import Ledger
from tutelage.model.locate import model_folder
from tutelage.system.files import cache_folder
from tutelage.types import Change, Drop

ROOT = Path(__file__).resolve().parents[2]
MATERIAL = ROOT.parent / "shared/material"
TRAPS = Path(__file__).with_name("conversations.jsonl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the table; the exit status."""
    options = _options(arguments)
    began = time.monotonic()
    templates = sorted(options.templates.glob("*.jinja")) if options.templates.is_dir() else []
    templates = [template for template in templates if options.only in template.stem]
    if not templates:
        print(f"skipped: {options.templates} holds no *.jinja files")
        return 0
    cases, refused = read_cases(options.conversations)
    chosen = [one for one in cases if options.case in one.name]
    tokenizers = [
        base_tokenizer for base_tokenizer in base_tokenizers() if base_tokenizer.name in options.tokenizers.split(",")
    ]
    today = datetime.date.today().isoformat()  # transformers has no other clock
    settings = (
        ("default", RenderSettings(date=today)),
        ("close", RenderSettings(date=today, empty_reasoning="close")),
        ("open", RenderSettings(date=today, empty_reasoning="close", closed_reasoning="open")),
        ("escape", RenderSettings(date=today, empty_reasoning="close", control_tokens="escape")),
    )
    works = [Workload(template, tuple(chosen), tuple(tokenizers), settings) for template in templates]
    results: list[TemplateResult] = []
    with get_context("spawn").Pool(options.processes) as pool:
        for result in pool.imap_unordered(pairs_of, works):
            results.append(result)
            if (done := len(results)) % 20 == 0:
                print(f"{done} of {len(works)} templates, {time.monotonic() - began:.0f} s", file=sys.stderr)
    results.sort(key=lambda result: result.template)
    pairs = [pair for result in results for pair in result.pairs]
    write_results(options.out, results)
    text = report(pairs, refused, elapsed_seconds=time.monotonic() - began)
    if options.trl is not None:
        text += comparison(options.out / "kept.jsonl", options.trl)
    (options.out / "report.md").write_text(text, encoding="utf-8")
    print(text)
    return int(any(pair.verdict == "wrong" for pair in pairs))


def write_results(folder: Path, results: Sequence[TemplateResult]) -> None:
    """results.jsonl: every pair; kept.jsonl and templates.jsonl: what a comparison with another tool needs."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = {
        "results.jsonl": [pair.as_json() for result in results for pair in result.pairs],
        "kept.jsonl": [asdict(one) for result in results for one in result.kept],
        "templates.jsonl": [
            {"path": str(result.template.resolve()), "control": result.control, "stops": result.stops}
            for result in results
        ],
    }
    for name, values in lines.items():
        with (folder / name).open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=Path, default=MATERIAL / "templates", help="a folder of *.jinja files")
    parser.add_argument("--conversations", type=Path, default=TRAPS, help="a JSONL file of conversations")
    parser.add_argument("--tokenizers", default="smollm2,gpt-neox,phi-3", help="which of smollm2, gpt-neox, phi-3")
    parser.add_argument("--only", default="", help="templates whose name holds this")
    parser.add_argument("--case", default="", help="conversations whose name holds this")
    parser.add_argument("--out", type=Path, default=Path("runs/masks"), help="where the results go")
    parser.add_argument("--trl", type=Path, help="what benchmarks.masks.trl_masks wrote, to be compared")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args(arguments)


def read_cases(path: Path) -> tuple[list[Case], list[tuple[str, Drop]]]:
    """The conversations as tutelage.formats reads them, and the rows that it drops before any template.

    A row is called by its `case`, `id` or `name`, or by its line.
    """
    lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines: texts may hold other line separators
    names = {number: _name(line, number) for number, line in enumerate(lines, 1) if line.strip()}
    drops: list[Drop] = []

    def hear(event: Drop | Change) -> None:
        if isinstance(event, Drop):
            drops.append(event)

    read = list(formats.read([str(path)], ledger=Ledger(listener=hear)))
    cases = [Case(names[one.address.number], one) for one in read]
    return cases, [(names[drop.address.number], drop) for drop in drops]


def _name(line: str, number: int) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        return f"line {number}"
    named = next((value[key] for key in ("case", "id", "name") if isinstance(value.get(key), str)), None)
    return str(named) if named else f"line {number}"


def base_tokenizers() -> list[BaseTokenizer]:
    """The vocabularies that are here: byte-level, byte-level with NFC, and leading-space with byte fallback."""
    found = [BaseTokenizer("smollm2", model_folder("smollm2-135m", log=_quiet) / "tokenizer.json")]
    neox = MATERIAL / "tokenizers/gpt-neox-20b.tokenizer.json"
    if neox.is_file():
        found.append(BaseTokenizer("gpt-neox", neox, tags_are_tokens=True))
    phi = MATERIAL / "tokenizers/ggml-vocab-phi-3.gguf"
    if phi.is_file():
        found.append(BaseTokenizer("phi-3", _from_gguf(phi)))
    return found


def _from_gguf(path: Path) -> Path:
    """The vocabulary of a GGUF file as tokenizer.json, made once and kept in the cache."""
    made = cache_folder() / "benchmarks" / f"{path.stem}.tokenizer.json"
    if not made.is_file():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        made.parent.mkdir(parents=True, exist_ok=True)
        tokenizer.backend_tokenizer.save(str(made))
    return made


def _quiet(_: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    raise SystemExit(main())

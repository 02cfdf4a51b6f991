"""`export`: writes what a run trained in a form that other tools load, and proves that it is what was trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from tutelage.builders.export.request import PROMPTS, DtypeName, Exported, ExportRequest
from tutelage.builders.export.targets import TARGETS, export_run, require_target
from tutelage.cli.run_options import AsJson, Run
from tutelage.errors import ConfigError
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.report.numbers import byte_size
from tutelage.runs import folder as run_files

FORMS = "; ".join(f"{name}: {target.summary}" for name, target in TARGETS.items())
Kind = Annotated[
    str | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        help="Of a GGUF file: f32, f16, bf16, q8_0, q6_k, q5_1, q4_k_m (if left out) or q4_0; f32 for an adapter.",
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        "--preferences",
        metavar="FILE",
        help="With dpo-start: rows of tutelage prefer, in place of the run's own, which wait for a rejected reply.",
    ),
]
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)


def export(
    run: Run,
    *,
    to: Annotated[str, typer.Option("--to", metavar="|".join(TARGETS), help=f"The form. {FORMS}.")] = "hf",
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Made; refused where it holds something.")],
    dial: Annotated[
        float | None,
        typer.Option("--dial", metavar="VALUE", help="Between the base (0) and what was trained (1), untrained."),
    ] = None,
    kind: Kind = None,
    dtype: Annotated[
        DtypeName | None, typer.Option("--dtype", help="Of the weights; as the base stores them unless given.")
    ] = None,
    shard_size: Annotated[
        str, typer.Option("--shard-size", metavar="SIZE", help="Most bytes of a file of weights, such as 500MB.")
    ] = "5GB",
    prompts: Annotated[
        int, typer.Option("--prompts", min=0, help="Compare on at most so many; 0 writes without a proof.")
    ] = PROMPTS,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="OWNER/NAME", help="Upload to the hub, too, with the token in HF_TOKEN."),
    ] = None,
    preferences: Pairs = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and stop.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write what a run trained in a form that other tools load, and prove that it is what was trained.

    The folder is loaded in a process of its own, by the tools that will load it later, and compared with the run's
    model on 64 held-out prompts: logits, likeliest replies, every tensor, template and stops. What differs by more than
    the measured noise is named, and nothing is left behind. proof.json and the card, README.md, say what was found.

    Try: tutelage export runs/quickstart --to hf -o exported/quickstart
    or, for llama.cpp: tutelage export runs/quickstart --to gguf --type q8_0 -o quickstart.gguf
    or, for TRL: tutelage export runs/quickstart --to dpo-start --preferences preferences.jsonl -o dpo
    """
    folder, screen = run_files.existing_run_folder(run), Screen(Terminal(stderr=True))
    require_target(to)
    request = ExportRequest(
        folder,
        run_files.read_settings(folder),
        out,
        screen,
        dial=dial,
        kind=kind,
        dtype=dtype,
        shard_bytes=_bytes(shard_size),
        prompts=prompts,
        push=push,
        preferences=preferences,
    )
    if dry_run:
        _say_plan(to, request, as_json=as_json)
        return
    _say_exported(export_run(to, request), push, as_json=as_json)


def _say_exported(exported: Exported, push: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"exported": str(exported.path), **exported.facts})
        return
    terminal = Terminal()
    for table in exported.tables:
        terminal.print(table)
    terminal.write_line(f"Exported: {exported.path}")
    if push is not None:
        terminal.write_line(f"Uploaded: {push}")


def _say_plan(target: str, request: ExportRequest, *, as_json: bool) -> None:
    """What would be written, how many bytes, and how much room the disk has."""
    from tutelage.builders.export.planned import planned

    plan = planned(target, request)
    if as_json:
        print_json(plan)
        return
    terminal = Terminal()
    terminal.write_line(f"Would write {plan['form']} to {request.out}: {', '.join(plan['files'])}")
    terminal.write_line(f"Weights: {byte_size(plan['bytes'])}; free there: {byte_size(plan['free_bytes'])}")


def _bytes(size: str) -> int:
    """`5GB` -> 5000000000, `1GiB` -> 1073741824.

    Raises:
        ConfigError: it is no size.
    """
    match = SIZE.fullmatch(size.strip())
    unit = (match[2] or "").lower() if match else ""
    factor = (1024 if unit.endswith("i") else 1000) ** ("kmgt".index(unit[0]) + 1 if unit else 0)
    number = float(match[1]) * factor if match else 0
    if number < 1:
        raise ConfigError(
            "A size of files is a number with a unit",
            where="--shard-size",
            found=size,
            expected="KB, MB, GB or TB, or KiB, MiB, GiB or TiB",
            fix="write --shard-size 5GB",
        )
    return int(number)

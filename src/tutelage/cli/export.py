"""`export`: writes what a run trained in a form that other tools load."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

import typer

from tutelage.builders.export.request import ExportRequest
from tutelage.builders.export.targets import TARGETS
from tutelage.cli.run_options import AsJson, Run
from tutelage.errors import ConfigError
from tutelage.report.console.progress import Screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.runs import folder as run_files

FORMS = "; ".join(f"{name}: {target.summary}" for name, target in TARGETS.items())


def export(
    run: Run,
    *,
    to: Annotated[str, typer.Option("--to", metavar="|".join(TARGETS), help=f"The form. {FORMS}.")] = "hf",
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Made; refused where it holds something.")],
    dial: Annotated[
        float | None,
        typer.Option("--dial", metavar="VALUE", help="Between the base (0) and what was trained (1), untrained."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Of a GGUF file: f32, f16, bf16, q8_0, q6_k, q5_1, q4_k_m (if left out) or q4_0; f32 for an adapter.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what a run trained in a form that other tools load.

    Try: tutelage export runs/quickstart --to hf -o exported/quickstart
    or, for llama.cpp: tutelage export runs/quickstart --to gguf --type q8_0 -o quickstart.gguf
    """
    folder, screen = run_files.existing_run_folder(run), Screen(Terminal(stderr=True))
    if to not in TARGETS:
        near = difflib.get_close_matches(to, TARGETS, n=1, cutoff=0.4)
        raise ConfigError(
            f"There is no form '{to}' to export to",
            where="--to",
            found=to,
            expected=", ".join(TARGETS),
            fix=f"write --to {(near or list(TARGETS))[0]}",
        )
    settings = run_files.read_settings(folder)
    exported = TARGETS[to].write(ExportRequest(folder, settings, out, screen, dial=dial, kind=kind))
    if as_json:
        print_json({"exported": str(exported.path), **exported.facts})
        return
    terminal = Terminal()
    for table in exported.tables:
        terminal.print(table)
    terminal.write_line(f"Exported: {exported.path}")

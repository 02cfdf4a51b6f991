"""`doctor`: what this machine has, which path will run on it, and one thing to do for each problem."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tutelage.report.console.terminal import Terminal, print_json
from tutelage.report.numbers import byte_size
from tutelage.system.hardware import Machine, Route, machine, problems, route_on
from tutelage.system.openmp_wait import waiting_here


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Say what this machine has, which path a run takes on it, and what to do about each problem."""
    found = machine()
    route, listed = route_on(found), problems(found)
    if as_json:
        shown = {
            "machine": asdict(found),
            "route": asdict(route) if route else None,
            "problems": [asdict(one) for one in listed],
        }
        print_json(shown)
        return
    out = Terminal()
    out.print(_table("This machine", _facts(found)))
    out.print(_table("A run here", _steps(route)))
    for one in listed:
        out.print(Text.assemble(("warning: ", "yellow"), one.what))
        out.print(Text(f"  do: {one.fix}"))
    if not listed:
        out.print(Text("No problem found."))


def _facts(found: Machine) -> dict[str, str]:
    torch = found.torch
    cores = f"{found.cores} cores" + (f", {found.quota_cores:g} granted" if found.quota_cores is not None else "")
    bf16 = "bf16 in hardware" if found.cpu_bf16 else "no bf16 in hardware"
    gpus = [f"{gpu.name}, {byte_size(gpu.memory_bytes)}" for gpu in torch.gpus] if torch else []
    built = "" if torch is None else f", CUDA {torch.cuda}" if torch.cuda else ", CPU build"
    return {
        "system": f"{found.system}, Python {found.python}",
        "processor": f"{found.cpu or 'unknown'}, {cores}, {bf16}",
        "memory": f"{byte_size(found.memory_bytes)}, {byte_size(found.available_bytes)} free",
        "disk": f"{byte_size(found.disk_free_bytes)} free",
        "torch": f"{torch.version}{built}, {torch.threads} threads" if torch else "not installed",
        "GPUs": "; ".join(gpus) or "none",
        "allocator": f"{found.allocator}, in training",
        "threads that wait": waiting_here(os.environ),
        "compiler": found.compiler or "none, so torch.compile cannot run on the CPU",
    } | {name: version or "not installed" for name, version in found.packages.items() if name != "torch"}


def _steps(route: Route | None) -> dict[str, str]:
    if route is None:
        return {"training": "not without torch; see, check and train --dry-run work"}
    return {key: str(value) for key, value in asdict(route).items()}


def _table(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))
    return table

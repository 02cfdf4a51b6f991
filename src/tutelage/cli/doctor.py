"""`doctor`: what this machine has, which path will run on it, and one thing to do for each problem."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tutelage.model.locate import embedded_state
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.report.numbers import byte_size
from tutelage.system.hardware import Machine, Route, machine, problems, route_on
from tutelage.system.openmp_wait import waiting_here


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False) -> None:
    """Say what this machine has, which path a run takes on it, and what to do about each problem."""
    hardware = machine()
    route, found_problems = route_on(hardware), problems(hardware)
    if as_json:
        record = {
            "machine": asdict(hardware),
            "route": asdict(route) if route else None,
            "problems": [asdict(problem) for problem in found_problems],
            "models": embedded_state(),
        }
        print_json(record)
        return
    out = Terminal()
    out.print(_table("This machine", _facts(hardware)))
    out.print(_table("A run here", _steps(route)))
    out.print(_table("Models in packages", embedded_state()))
    for problem in found_problems:
        out.print(Text.assemble(("warning: ", "yellow"), problem.what))
        out.print(Text(f"  do: {problem.fix}"))
    if not found_problems:
        out.print(Text("No problem found."))


def _facts(hardware: Machine) -> dict[str, str]:
    torch = hardware.torch
    cores = f"{hardware.cores} cores" + (
        f", {hardware.quota_cores:g} granted" if hardware.quota_cores is not None else ""
    )
    bf16 = "bf16 in hardware" if hardware.cpu_bf16 else "no bf16 in hardware"
    gpus = [f"{gpu.name}, {byte_size(gpu.memory_bytes)}" for gpu in torch.gpus] if torch else []
    built = "" if torch is None else f", CUDA {torch.cuda}" if torch.cuda else ", CPU build"
    return {
        "system": f"{hardware.system}, Python {hardware.python}",
        "processor": f"{hardware.cpu or 'unknown'}, {cores}, {bf16}",
        "memory": f"{byte_size(hardware.memory_bytes)}, {byte_size(hardware.available_bytes)} free",
        "disk": f"{byte_size(hardware.disk_free_bytes)} free",
        "torch": f"{torch.version}{built}, {torch.threads} threads" if torch else "not installed",
        "GPUs": "; ".join(gpus) or "none",
        "allocator": f"{hardware.allocator}, in training",
        "threads that wait": waiting_here(os.environ),
        "compiler": hardware.compiler or "none, so torch.compile cannot run on the CPU",
    } | {name: version or "not installed" for name, version in hardware.packages.items() if name != "torch"}


def _steps(route: Route | None) -> dict[str, str]:
    if route is None:
        return {"training": "not without torch; see, check and train --dry-run work"}
    return {key: str(value) for key, value in asdict(route).items()}


def _table(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))
    return table

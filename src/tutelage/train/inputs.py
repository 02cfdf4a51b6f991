"""`inputs.json`: what decided a run's numbers, and what it means that something of it is another now."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tutelage.errors import CheckpointError
from tutelage.train import folder as run_files

DECIDING = ("versions", "machine")
"""Entries that may differ from one session of a run to the next, and then change the last bits of its numbers."""


def machine(threads: int | None, *, processes: int, row_tokens: int) -> dict[str, Any]:
    """The hardware that computes here, and how: what the last bits of a sum depend on.

    Args:
        threads: what the settings ask for; None leaves it to torch.
        processes: how many share each step.
        row_tokens: most tokens of a row.
    """
    facts = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": threads or torch.get_num_threads(),
        "processes": processes,
        "row_tokens": row_tokens,
    }
    return facts | ({"cuda": torch.version.cuda} if torch.cuda.is_available() else {})


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").split("\n") if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def read_inputs(folder: Path) -> dict[str, Any]:
    """What a run recorded; empty where it recorded nothing yet."""
    path = folder / run_files.INPUTS
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return dict(found)


def held_against(
    earlier: Mapping[str, Any], now: Mapping[str, Any], *, resume: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Check that data files and template have the bytes they had, and say which other facts are others.

    Args:
        earlier: what was recorded.
        now: the same entries as they are.
        resume: the run goes on, rather than being repeated.
        say: told of each fact that is another.

    Returns:
        Entries that `now` lacks: for a resumed run `earlier_sessions`, the facts of earlier parts of it.

    Raises:
        CheckpointError: data or template have other bytes.
    """
    then, here = earlier["data_sha256"], now["data_sha256"]
    other = sorted(name for name in {*then, *here} if then.get(name) != here.get(name))
    if other or earlier["template_sha256"] != now["template_sha256"]:
        raise CheckpointError(
            "The data or template is not the one this run began with, so this would not be a "
            + ("resume" if resume else "replay"),
            where=", ".join(other) or "the chat template",
            expected="the same bytes",
            fix="restore the files, or start a new run",
        )
    differing = changes(earlier, now)
    for change in differing:
        say(f"  note: the last bits of a number may differ from here on, as {change}")
    if not resume:
        return {}
    sessions: list[dict[str, Any]] = list(earlier.get("earlier_sessions", []))
    if differing:
        sessions.append({key: earlier.get(key) for key in DECIDING})
    return {"earlier_sessions": sessions}


def process_counts(inputs: Mapping[str, Any]) -> set[int]:
    """How many processes each session of a run had."""
    sessions = [inputs, *inputs.get("earlier_sessions", [])]
    return {(one.get("machine") or {}).get("processes", 1) for one in sessions}


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each of the `DECIDING` facts that is another now, as a few words."""
    then, here = _flat(earlier), _flat(now)
    return [
        f"{name}: {then.get(name, 'not recorded')} then, {here.get(name, 'none')} now"
        for name in sorted({*then, *here})
        if then.get(name) != here.get(name)
    ]


def _flat(inputs: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key in DECIDING:
        flat |= inputs.get(key, {})
    return {"processes": 1} | flat


def skipped_steps(folder: Path, *, leave_out: bool) -> list[int]:
    """Steps of a run, counted from 1, that are left out; with `leave_out`, the one it was stopped before among them.

    Raises:
        CheckpointError: there is no such step.
    """
    known: list[int] = read_inputs(folder).get("skipped_steps", [])
    if not leave_out:
        return known
    path = folder / run_files.STOPPED
    if not path.is_file():
        raise CheckpointError(
            "There is no step to leave out",
            where=str(path),
            found="no such file",
            expected="a run that was stopped before a step that was not finite, or a loss spike",
            fix="resume without --skip-step",
        )
    return sorted({*known, int(json.loads(path.read_text(encoding="utf-8"))["step"])})

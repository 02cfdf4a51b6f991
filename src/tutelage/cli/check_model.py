"""`check` without data: what a checkpoint's template, tokenizer and weights do to training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import typer

from tutelage.builders.checkpoint_report import checkpoint_report
from tutelage.config import RenderSettings
from tutelage.report.console.findings import findings_screen
from tutelage.report.console.terminal import Terminal, print_json
from tutelage.types import Finding

Say = Callable[[str], None]


def check_checkpoint(
    model: str, settings: RenderSettings, *, tokenizer: str | None, measure_loss: bool, as_json: bool, log: Say
) -> None:
    """Print all findings about `model` (`builders.checkpoint_report`); status 1 if one of them is an error."""
    report = checkpoint_report(model, settings, tokenizer=tokenizer, measure_loss=measure_loss, log=log)
    renderer, findings = report.renderer, report.findings
    stops = [renderer.tokenizer.decode([stop_token_id]) for stop_token_id in sorted(renderer.tokenizer.stop_ids)]
    if as_json:
        facts = {"model": model, "template": renderer.template.name, "date": settings.date, "stop_tokens": stops}
        print_json({**facts, "findings": findings_as_json(findings)})
    else:
        subject = f"{model}, with {renderer.template.name}; replies end in {', '.join(stops)}"
        Terminal().show(findings_screen(findings, about=subject))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def findings_as_json(findings: tuple[Finding, ...] | list[Finding]) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [dataclasses.asdict(finding) for finding in findings]

"""Findings about a checkpoint on a terminal screen: all of them, or what should be seen beside other things."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from tutelage.report.numbers import count
from tutelage.types import Finding

STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


def findings_screen(findings: Sequence[Finding], *, about: str) -> RenderableType:
    """Every finding: what it does to training, what was seen, and one thing to do.

    Args:
        findings: in the order to show them.
        about: what they are about, for the first line.
    """
    parts: list[RenderableType] = [Text(about, style="bold")]
    for finding in findings:
        parts.append(
            Text.assemble(
                (f"{finding.severity}: ", STYLES[finding.severity]), finding.sentence, (f" ({finding.key})", "dim")
            )
        )
        parts.append(Text(f"    seen: {finding.evidence}", style="dim"))
        if finding.fix is not None:
            parts.append(Text(f"    do: {finding.fix}"))
    parts.append(Text(_totals(findings), style="bold"))
    return Group(*parts)


def brief_findings(findings: Sequence[Finding]) -> RenderableType:
    """One line for each warning and error."""
    serious = [finding for finding in findings if finding.severity != "info"]
    return Group(
        *(Text.assemble((f"{seriou.severity}: ", STYLES[seriou.severity]), seriou.sentence, (f" ({seriou.key})", "dim"))
          for seriou in serious)
    )  # fmt: skip


def _totals(findings: Sequence[Finding]) -> str:
    numbers = {name: sum(finding.severity == name for finding in findings) for name in STYLES}
    return ", ".join(f"{count(number)} {name}{'s' if number != 1 and name != 'info' else ''}"
                     for name, number in numbers.items())  # fmt: skip

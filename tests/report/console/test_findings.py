"""Findings on a screen: all with their evidence, or the serious ones in a line each."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from tutelage.report.console.findings import brief_findings, findings_screen
from tutelage.types import Finding

FOUND = (
    Finding("no_stop", "error", "Replies never end.", "no [stop] after the reply", "name one"),
    Finding("dated", "warning", "Today is in the prompt.", "a day"),
    Finding("kept", "info", "System turns are kept.", "it stands there"),
    Finding("trims", "info", "White space goes.", "padding"),
)


def printed(screen: RenderableType) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=120, highlight=False, color_system=None).print(screen)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_every_finding_with_what_was_seen_and_what_to_do() -> None:
    assert printed(findings_screen(FOUND, about="tiny")) == [
        "tiny",
        "error: Replies never end. (no_stop)",
        "    seen: no [stop] after the reply",
        "    do: name one",
        "warning: Today is in the prompt. (dated)",
        "    seen: a day",
        "info: System turns are kept. (kept)",
        "    seen: it stands there",
        "info: White space goes. (trims)",
        "    seen: padding",
        "1 error, 1 warning, 2 info",
    ]


def test_the_short_form_has_no_infos() -> None:
    assert printed(brief_findings(FOUND)) == [
        "error: Replies never end. (no_stop)",
        "warning: Today is in the prompt. (dated)",
    ]

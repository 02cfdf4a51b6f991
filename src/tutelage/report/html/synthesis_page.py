"""The page of rows that a model wrote: what came, what was not taken and why, and which verbs ask for what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tutelage.report import numbers as figures
from tutelage.report.html.chart_library import library_scripts
from tutelage.report.html.offline import own_parts, script_json, template

INSTALL = "pip install 'tutelage[curate]'"
SAMPLE_CHARACTERS = 300


def render_synthesis(report: Mapping[str, Any]) -> str:
    """The page as text; the same report gives the same text.

    Args:
        report: what `report.json` of a synthesis holds.
    """
    ledger = report["ledger"]
    library = library_scripts() if report["root_verbs"] else ()
    samples = {
        reason: [sample["detail"][:SAMPLE_CHARACTERS] for sample in found]
        for reason, found in ledger["samples"].items()
    }
    return template("synthesis_page.html").render(
        report=report,
        dropped=ledger["dropped"],
        written=ledger["rows_in"],
        samples=samples,
        figures=figures,
        has_charts=bool(library_scripts()),
        install=INSTALL,
        library=[Markup(text) for text in library],  # noqa: S704 - scripts of the library, held against what ends a block
        verbs=script_json(report["root_verbs"]),
        **own_parts(
            style=("page.css", "curation_page.css", "synthesis_page.css"),
            script=("synthesis_page.js",),
            library=library,
        ),
    )

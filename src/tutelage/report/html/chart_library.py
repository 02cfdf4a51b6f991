"""The scripts of Bokeh, which draw charts on a page without a network; of the package nothing else is used.

A page's own script builds the charts: documents that Python builds name their parts by counting through the process.
"""

from __future__ import annotations

import importlib.metadata
from importlib.util import find_spec
from pathlib import Path

SCRIPTS = ("bokeh.min.js", "bokeh-api.min.js")
"""Without `bokeh-gl`, which compiles code from text, as a page's policy forbids; a canvas draws 20,000 points well."""
_FOLDER = "server/static/js"


def library_version() -> str | None:
    """The version of Bokeh whose scripts can stand on a page; None where there is none."""
    return importlib.metadata.version("bokeh") if _files() else None


def library_scripts() -> tuple[str, ...]:
    """The scripts, in the order they run; none where Bokeh is not installed."""
    scripts = tuple(path.read_text(encoding="utf-8") for path in _files())
    for script in scripts:
        assert "</script" not in script.lower(), "a script of Bokeh would end its block"
        assert "<!--" not in script, "a script of Bokeh would open a comment"
    return scripts


def _files() -> tuple[Path, ...]:
    package = find_spec("bokeh")
    if package is None or package.origin is None:
        return ()
    files = tuple(Path(package.origin).parent / _FOLDER / name for name in SCRIPTS)
    return files if all(file.is_file() for file in files) else ()

"""The license of each source, as far as the user or a README beside it says, and whether it forbids commercial use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

README_BYTES = 1 << 16
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_LICENSE = re.compile(r"^licen[sc]e:[ \t]*([^\n#]+)", re.MULTILINE)
_NON_COMMERCIAL = re.compile(r"(?i)\bnc\b|non-?\s?commercial|research[- ]only|academic")


def licenses_of(sources: Sequence[str], stated: Mapping[str, str]) -> dict[str, str | None]:
    """The license of each source; None where nothing says one.

    Args:
        sources: as the user named them.
        stated: what the user said, by source.
    """
    return {source: stated.get(source) or _beside(source) for source in sources}


def is_non_commercial(license_name: str | None) -> bool:
    """Whether the name of a license says that commercial use is forbidden, such as CC-BY-NC-4.0."""
    return license_name is not None and _NON_COMMERCIAL.search(license_name.replace("_", "-")) is not None


def _beside(source: str) -> str | None:
    """What the front matter of a README.md says, in the source's folder. Source: the hub's dataset cards."""
    path = Path(source).expanduser()
    readme = (path if path.is_dir() else path.parent) / "README.md"
    try:
        with readme.open("rb") as stream:
            text = stream.read(README_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return None
    front_matter = _FRONT_MATTER.match(text)
    found = _LICENSE.search(front_matter[1]) if front_matter else None
    return found[1].strip().strip("'\"") or None if found else None

"""Every pinned package installs on the oldest Python that the project promises."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements/train.lock", "requirements/dev.lock")


def pinned(lock: str) -> dict[str, str]:
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    return dict(re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([^;\s]+)", "\n".join(lines), flags=re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_pins_take_the_oldest_python(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".99"  # its last patch, as some ask for one
    refusing, looked_at = [], 0
    for name, version in pinned(lock).items():
        try:
            package = metadata.metadata(name)
        except metadata.PackageNotFoundError:  # another platform's
            continue
        looked_at += 1
        if package["Version"] == version and oldest not in SpecifierSet(package.get("Requires-Python") or ""):
            refusing.append(f"{name}=={version} asks for Python {package['Requires-Python']}")
    assert looked_at > 20
    assert refusing == []

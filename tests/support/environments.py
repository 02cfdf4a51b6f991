"""Environments of their own, for witnesses whose packages cannot stand beside ours; `nightly` tests make them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "TUTELAGE_TEST_ENVIRONMENTS"
"""Names a folder in which environments are kept from night to night; without it they are made anew."""


def environment(name: str, packages: Sequence[str], *, folder: Path, without_needs: Sequence[str] = ()) -> Path:
    """The `bin` folder of an environment with these packages, from the package index.

    Args:
        name: of its folder.
        packages: pinned requirements.
        folder: it is made here, unless `VARIABLE` names another.
        without_needs: requirements that are installed without what they ask for.
    """
    made = Path(os.environ.get(VARIABLE) or folder) / name
    ready = made / "ready"
    wanted = "\n".join((*packages, *without_needs))
    if not (ready.is_file() and ready.read_text(encoding="utf-8") == wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(made)], check=True)
        pip = [str(made / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True)
        for package in without_needs:
            subprocess.run([*pip, "--no-deps", package], check=True)
        ready.write_text(wanted, encoding="utf-8")
    return made / "bin"


def alone() -> dict[str, str]:
    """The variables of this process, but for those that would lead another environment to our packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

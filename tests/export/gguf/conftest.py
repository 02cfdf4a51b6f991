"""Tiny models of each family, written once a session, and short prompts to compare on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.gguf_families import write_family


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny model by its name; not to be changed."""
    root, made = tmp_path_factory.mktemp("families"), dict[str, Path]()

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = write_family(root / name, name)
        return made[name]

    return folder


PROMPTS = ([3, 300, 41, 800, 120, 2000, 64], [3, 700, 701, 7, 1500])

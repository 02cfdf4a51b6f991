from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from served import FAMILIES


@pytest.fixture(scope="session")
def family_folder(
    tmp_path_factory: pytest.TempPathFactory, write_model_folder: Callable[..., Path]
) -> Callable[[str], Path]:
    """The folder of a checkpoint that is served with one of FAMILIES."""
    root, folders = tmp_path_factory.mktemp("families"), {}

    def folder_of(name: str) -> Path:
        if name not in folders:
            family = FAMILIES[name]
            folders[name] = write_model_folder(
                root / name,
                template=family.template,
                control_tokens=family.control_tokens,
                stop=family.stop,
                bos=family.bos,
            )
        return folders[name]

    return folder_of


@pytest.fixture(scope="session")
def chatml_folder(family_folder: Callable[[str], Path]) -> Path:
    return family_folder("chatml")

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving_oracle import FAMILIES, Build
from tutelage.render import ChatTemplate, Renderer, Tokenizer


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


@pytest.fixture
def with_template(chatml_folder: Path) -> Build:
    """Makes a renderer for a template and settings, with ChatML's tokens."""
    tokenizer = Tokenizer.load(chatml_folder)

    def build(template: str, **options: Any) -> Renderer:
        return Renderer(tokenizer, ChatTemplate(template, named_tokens=tokenizer.named_tokens), **options)

    return build

"""One server of the tiny model for the tests of this folder that change nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.served import Running, running

NAME = "tiny"


@pytest.fixture(scope="session")
def server(tiny_model_folder: Path) -> Iterator[Running]:
    with running([f"{NAME}={tiny_model_folder}"]) as started:
        yield started


@pytest.fixture
def client(server: Running) -> Any:
    return server.client()

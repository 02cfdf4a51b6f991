from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.formats.conftest import load

ROWS = Path(__file__).parent / "rows"


@pytest.fixture
def shape_rows(put: Callable[..., Path]) -> Callable[..., SimpleNamespace]:
    """Reads the rows of a shape, or those given, and checks that they were recognized as that shape."""

    def read(name: str, *rows: Any, **options: Any) -> SimpleNamespace:
        path = ROWS / f"{name}.jsonl"
        if rows:
            path = put(f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        result = load(path, **options)
        assert any(f"is read as {name} (" in note for note in result.ledger.notes), result.ledger.notes
        return result

    return read

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


@pytest.fixture
def base_rows() -> Callable[..., SimpleNamespace]:
    """Reads the rows of a shape that is a base shape, and checks that they were taken for no other."""

    def read(name: str, **options: Any) -> SimpleNamespace:
        result = load(ROWS / f"{name}.jsonl", **options)
        assert not any("is read as" in note for note in result.ledger.notes), result.ledger.notes
        return result

    return read


@pytest.fixture
def rows_path() -> Callable[[str], Path]:
    """The file of the rows of a shape."""
    return lambda name: ROWS / f"{name}.jsonl"


@pytest.fixture
def is_base_shape(base_rows: Callable[..., SimpleNamespace]) -> Callable[[str, Any], None]:
    """Asserts that the rows of a base shape become these messages, and none is dropped."""

    def check(name: str, expected: Any) -> None:
        outcome = base_rows(name)
        assert [conversation.messages for conversation in outcome.conversations] == expected
        assert not outcome.ledger.dropped

    return check


@pytest.fixture
def becomes(shape_rows: Callable[..., SimpleNamespace]) -> Callable[[str, Any, dict[str, int]], None]:
    """Asserts that the rows of a shape with a reader become these messages, and these drops by reason."""

    def check(name: str, expected: Any, dropped: dict[str, int]) -> None:
        outcome = shape_rows(name)
        assert [conversation.messages for conversation in outcome.conversations] == expected
        assert dict(outcome.ledger.dropped) == dropped

    return check

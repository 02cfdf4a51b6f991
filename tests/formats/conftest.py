from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.formats import read
from tutelage.ledger import Ledger


def load(*sources: Path | str, **options: Any) -> SimpleNamespace:
    """Everything one reading gives: `conversations` and the `ledger`, whose books are balanced here."""
    ledger = Ledger()
    conversations = list(read([str(source) for source in sources], ledger=ledger, **options))
    assert ledger.rows_in == len(conversations) + ledger.rows_dropped
    return SimpleNamespace(
        conversations=conversations, ledger=ledger, texts=[texts(conversation) for conversation in conversations]
    )


def texts(conversation: Any) -> list[tuple[str, str | None]]:
    return [(message.role, message.content) for message in conversation.messages]


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes | str], Path]:
    """Writes a file and gives its path; text is written as UTF-8 with no line-end translation."""

    def write(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


@pytest.fixture(name="load")
def load_fixture() -> Callable[..., SimpleNamespace]:
    return load

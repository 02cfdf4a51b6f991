from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Ran
from tutelage.cli import main


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny_tokenizer_folder: Path
) -> Callable[..., Ran]:
    """Runs the program in this process, with the tiny model unless another is named."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")

    def run(*words: str | Path, model: Path | None = tiny_tokenizer_folder) -> Ran:
        extra = [] if model is None else ["--model", str(model)]
        monkeypatch.setattr(sys, "argv", ["tutelage", *map(str, words), *extra])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return Ran(int(caught.value.code or 0), out, err)

    return run


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    def write(*values: dict[str, Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), "utf-8")
        return path

    return write

"""`tutelage export` as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tutelage.cli.app import app
from tutelage.errors import ConfigError, SourceNotFoundError


def export(*words: object) -> None:
    CliRunner().invoke(app, ["export", *map(str, words)], catch_exceptions=False)


def test_an_unknown_form_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").touch()
    with pytest.raises(ConfigError) as caught:
        export(tmp_path, "--to", "hff", "-o", tmp_path / "out")
    assert "do:       write --to hf" in str(caught.value)


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="is not a run"):
        export(tmp_path, "-o", tmp_path / "out")

"""`tutelage export` as a person types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def test_a_run_leaves_as_gguf_and_its_adapter_alone(
    train_tiny: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp in a wheel is the witness: pip install xllamacpp")
    finished = train_tiny("model.method=lora", "train.max_steps=2", "evaluate.task=", "evaluate.general=")
    run = finished.folder
    for form, kind in (("gguf", "q8_0"), ("gguf-adapter", "f32")):
        result = CliRunner().invoke(
            app, ["export", str(run), "--to", form, "--type", kind, "-o", str(tmp_path / form), "--json"],
            catch_exceptions=False,
        )  # fmt: skip
        facts = json.loads(result.stdout)
        assert facts["output"]["flips"] == 0
        assert facts["output"]["mean_kl"] <= facts["output"]["mean_kl_limit"]
        assert (tmp_path / form).read_bytes()[:4] == b"GGUF"

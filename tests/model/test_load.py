"""Loading: the stored precision, casting that leaves buffers alone, and errors that name the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tutelage.errors import DataError, TutelageError
from tutelage.model.convert import convert_gguf
from tutelage.model.load import compute_in, load


def test_parameters_are_cast_and_buffers_are_not(tiny_model_folder: Path) -> None:
    model, _ = load(tiny_model_folder)
    assert {one.dtype for one in model.parameters()} == {torch.float32}
    before = {name: one.clone() for name, one in model.named_buffers()}
    assert before, "a Llama keeps its rotary frequencies in a buffer"

    compute_in(model, "bf16")

    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    for name, one in model.named_buffers():
        assert torch.equal(one, before[name]), name


def test_tied_weights_stay_tied_after_the_cast(tiny_model_folder: Path) -> None:
    model, _ = load(tiny_model_folder)
    compute_in(model, "bf16")

    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_folder_of_something_else_is_a_data_error(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-model"}), encoding="utf-8")

    with pytest.raises(DataError, match="cannot be loaded") as caught:
        load(folder)

    assert str(folder) in str(caught.value)


def test_damaged_weights_are_a_data_error(tiny_model_folder: Path, tmp_path: Path) -> None:
    """A download that was cut off."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(DataError, match="cannot be loaded"):
        load(folder)


def test_a_damaged_gguf_leaves_no_folder(tmp_path: Path) -> None:
    gguf = tmp_path / "broken.gguf"
    gguf.write_bytes(b"GGUF" + bytes(64))

    with pytest.raises(TutelageError):
        convert_gguf(gguf, tmp_path / "converted")

    assert [one.name for one in tmp_path.iterdir()] == ["broken.gguf"]

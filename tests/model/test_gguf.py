"""Converting a GGUF file where nothing can be written, or where transformers does not read all of it."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import DataError, SaveError
from tutelage.model.gguf import convert_gguf

CACHE = "set TUTELAGE_CACHE to another disk"


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.EACCES, f"make the folder writable for this user, or {CACHE}"),
        (errno.EROFS, f"make the folder writable for this user, or {CACHE}"),
        (errno.ENOSPC, f"free some space, or {CACHE}"),
        (errno.ENAMETOOLONG, CACHE),
    ],
)
def test_b12_a_conversion_that_cannot_be_written_says_what_helps_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fix: str
) -> None:
    def refuses(**_: Any) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkdtemp", refuses)

    with pytest.raises(SaveError) as caught:
        convert_gguf(tmp_path / "model.gguf", tmp_path / "cache" / "model")

    assert (caught.value.found, caught.value.fix) == (os.strerror(number), fix)


@pytest.mark.parametrize(
    ("family", "found"),
    [
        ("llama", "scaled positions, which it reads as plain ones (rope_freqs.weight)"),
        ("llama-pieces", " weights in the file, "),
        ("gemma2", "queries scaled for heads of 256, which are 64 wide in the file"),
        ("gemma3", "queries scaled for heads of 256, which are 64 wide in the file"),
    ],
)
def test_a_file_that_transformers_reads_as_another_model_is_refused(tmp_path: Path, family: str, found: str) -> None:
    from tests.support.gguf_families import write_family
    from tutelage.export.gguf.export import export_gguf

    folder = write_family(tmp_path / "model", family, num_hidden_layers=2)
    export_gguf(folder, tmp_path / "model.gguf", kind="f32", prove=False, log=lambda _: None)

    with pytest.raises(DataError, match="as another model") as caught:
        convert_gguf(tmp_path / "model.gguf", tmp_path / "converted")

    assert found in caught.value.found
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize(
    ("family", "settings"), [("smollm2", {}), ("gemma3", {"head_dim": 256, "query_pre_attn_scalar": 256})]
)
def test_a_file_that_is_read_whole_is_converted(tmp_path: Path, family: str, settings: dict[str, int]) -> None:
    from tests.support.gguf_families import write_family
    from tutelage.export.gguf.export import export_gguf

    folder = write_family(tmp_path / "model", family, num_hidden_layers=2, **settings)
    export_gguf(folder, tmp_path / "model.gguf", kind="f32", prove=False, log=lambda _: None)

    convert_gguf(tmp_path / "model.gguf", tmp_path / "converted")

    assert (tmp_path / "converted" / "model.safetensors").is_file()

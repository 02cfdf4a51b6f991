"""Converting a GGUF file where nothing can be written."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import SaveError
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

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tutelage.model.modes import give_usual_modes


@pytest.mark.parametrize(
    ("umask", "of_files", "of_folders"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o027, 0o640, 0o750)]
)
def test_r29_private_files_get_the_modes_of_their_neighbours(
    tmp_path: Path, umask: int, of_files: int, of_folders: int
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    elsewhere.chmod(0o400)
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True, mode=0o700)
    weights = folder / "inner" / "model.safetensors"
    weights.touch(mode=0o600)
    (folder / "link").symlink_to(elsewhere)
    before = os.umask(umask)
    try:
        give_usual_modes(folder)
    finally:
        os.umask(before)
    assert weights.stat().st_mode & 0o777 == of_files
    assert {one.stat().st_mode & 0o777 for one in (folder, folder / "inner")} == {of_folders}
    assert elsewhere.stat().st_mode & 0o777 == 0o400
    assert sorted(one.name for one in folder.iterdir()) == ["inner", "link"]

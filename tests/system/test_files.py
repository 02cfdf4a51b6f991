from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tutelage.system import files
from tutelage.system.files import apply_default_modes, new_folder, write_bytes


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
        apply_default_modes(folder)
    finally:
        os.umask(before)
    assert weights.stat().st_mode & 0o777 == of_files
    assert {one.stat().st_mode & 0o777 for one in (folder, folder / "inner")} == {of_folders}
    assert elsewhere.stat().st_mode & 0o777 == 0o400
    assert sorted(path.name for path in folder.iterdir()) == ["inner", "link"]


def test_a_folder_gets_its_name_when_it_is_whole_and_is_gone_where_it_fails(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a" / "one") as scratch:
        (scratch / "file").write_text("x")
        (scratch / "link").symlink_to(tmp_path / "nothing")
        assert not (tmp_path / "a" / "one").exists()
    assert (tmp_path / "a" / "one" / "file").read_text() == "x"

    def fails() -> None:
        with new_folder(tmp_path / "two") as scratch:
            (scratch / "file").write_text("x")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        fails()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("replace", [False, True])
def test_an_older_folder_stands_unless_it_is_to_be_replaced(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "older").write_text("")

    def put() -> None:
        with new_folder(tmp_path / "one", replace=replace) as scratch:
            (scratch / "newer").write_text("")

    if replace:
        put()
    else:
        with pytest.raises(OSError, match="not empty"):
            put()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["newer" if replace else "older"]
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"first", shared=shared)
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync", synced.append)
    write_bytes(path, b"second", shared=shared)
    assert path.read_bytes() == b"second"
    assert [one == tmp_path for one in synced] == [False, True]

    def full(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"third", shared=shared)
    assert path.read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_else_renames_what_it_wrote() -> None:
    """A rename by hand is where the sync before it and the one after it are forgotten."""
    source = Path(files.__file__).parents[1]
    renames = {
        str(path.relative_to(source)): len(re.findall(r"os\.(?:replace|rename)\(|\.rename\(", path.read_text("utf-8")))
        for path in source.rglob("*.py")
    }
    assert {name: count for name, count in renames.items() if count} == {
        "system/files.py": 1,
        "runs/lock.py": 1,  # an older run is moved aside, not written
        "runs/folder.py": 1,  # what a finished run ended with is moved aside
        "pack/prepared_cache.py": 2,  # an entry gets its name where another process may be first; an old one leaves
    }

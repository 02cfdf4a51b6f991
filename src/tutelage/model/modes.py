"""Modes of what is written: a model beside files of 0644 is of use to nobody else while it is 0600 itself."""

from __future__ import annotations

import os
from pathlib import Path


def give_usual_modes(folder: Path) -> None:
    """Give a folder, and all in it, the modes that new files and folders of this process get.

    safetensors makes its files 0600 and `tempfile.mkdtemp` its folders 0700, whatever the umask says.

    Raises:
        OSError: a mode cannot be changed.
    """
    of_files = _mode_of_new_files(folder)
    of_folders = of_files | (of_files & 0o444) >> 2  # who may read may enter
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink():  # it would change what the link leads to
            path.chmod(of_folders if path.is_dir() else of_files)


def _mode_of_new_files(folder: Path) -> int:
    """Tried, as asking for the umask means changing it for every thread."""
    sample = folder / f".mode-{os.getpid()}"
    os.close(os.open(sample, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        return sample.stat().st_mode & 0o666
    finally:
        sample.unlink()

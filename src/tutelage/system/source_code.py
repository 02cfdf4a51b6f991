"""What of our own code decides something that is kept, so that a change of the code cannot forget to make it anew."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable


def source_code_sha256(packages: Sequence[str]) -> str:
    """SHA-256 of the source and data files of these packages, not of packages inside of them."""
    digest = hashlib.sha256()
    for package in packages:
        for file in sorted(files(package).iterdir(), key=_file_name):
            if file.name.endswith((".py", ".json", ".toml", ".html", ".css", ".js")) and file.is_file():
                data = file.read_bytes()
                digest.update(f"{package}/{file.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def _file_name(file: Traversable) -> str:
    return file.name

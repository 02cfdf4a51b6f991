"""Uploads an exported folder to a model repository on the hub: only when asked, with a token from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from tutelage.errors import ConfigError, EndpointError, cause_of

TOKEN = "HF_TOKEN"  # noqa: S105 the name of the variable
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")
"""Nothing of ours writes them; a folder that someone put one into uploads none."""


def require_uploadable(repository: str, *, is_hub_folder: bool, form: str) -> None:
    """Refuse before anything is written what could not be uploaded.

    Raises:
        ConfigError: the form is none that the hub holds, the name is no owner/name, or there is no token.
    """
    if not is_hub_folder:
        raise ConfigError(
            "This form is not uploaded", where="--push", found=f"--to {form}", fix="upload the file yourself"
        )
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repository):
        raise ConfigError(
            "The name of a repository is owner/name",
            where="--push",
            found=repository,
            expected="letters, digits, ., - and _ around one /",
            fix="write --push you/your-model",
        )
    if not os.environ.get(TOKEN):
        raise ConfigError(
            "An upload needs a token, and it is taken from the environment alone",
            where=TOKEN,
            found="not set",
            expected="a token of the hub that may write",
            fix=f"set {TOKEN}, or leave --push out: the folder is complete without",
        )


def upload(folder: Path, repository: str, *, log: Callable[[str], None]) -> str:
    """Make the repository, private where it is new, and upload the folder; returns its address.

    Raises:
        EndpointError: the hub refuses or cannot be reached; the folder stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined] # there, but not listed

    token = os.environ[TOKEN]
    hub = HfApi(token=token)
    log(f"Uploading {folder} to {repository} ...")
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=list(PICKLES))
    except (HfHubHTTPError, TransportError, OSError, ValueError) as error:
        raise EndpointError(
            "The folder is written, and the hub did not take it",
            where=repository,
            found=cause_of(error).replace(token, "***"),
            expected="a repository that this token may write to",
            fix=f"upload it yourself: hf upload {repository} {folder}",
        ) from error
    return repository

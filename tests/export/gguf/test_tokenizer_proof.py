"""What becomes ids in llama.cpp is what was trained, or nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, TokenType

from tests.export.gguf.test_families import quietly
from tutelage.errors import DataError
from tutelage.export.gguf import export as module
from tutelage.export.gguf import vocabulary as vocabulary_module
from tutelage.export.gguf.special_tokens import special_tokens_of
from tutelage.export.gguf.vocabulary import vocabulary_of
from tutelage.render import Tokenizer

pytest.importorskip("xllamacpp", reason="llama.cpp in a wheel is the witness: pip install xllamacpp")


@pytest.fixture
def llama(family_folder: Callable[[str], Path]) -> Path:
    return family_folder("llama")


def test_an_unknown_way_to_cut_is_refused_and_not_guessed(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(llama, folder)
    description = json.loads((folder / "tokenizer.json").read_text())
    description["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+|\P{L}+"
    (folder / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(DataError, match="no name for how this tokenizer cuts a text") as caught:
        quietly(folder, tmp_path / "model.gguf")
    assert "P{L}" in str(caught.value.found)
    assert "smollm" in str(caught.value.expected)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_wrong_way_to_cut_is_seen_by_its_ids(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_module, "pre_tokenizer_name", lambda *_: "gpt-2")
    with pytest.raises(DataError, match="reads a text otherwise than the trained tokenizer"):
        quietly(llama, tmp_path / "model.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_lost_added_token_is_seen(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(tokenizer: Tokenizer, rows: int) -> Any:
        made = vocabulary_of(tokenizer, rows)
        lost = made.tokens.index("<tool_call>")
        types = [TokenType.NORMAL if index == lost else kind for index, kind in enumerate(made.types)]
        return replace(made, types=types)

    monkeypatch.setattr(module, "vocabulary_of", without)
    with pytest.raises(DataError, match="reads an added token otherwise") as caught:
        quietly(llama, tmp_path / "model.gguf")
    assert "<tool_call>" in str(caught.value.where)


def test_a_doubled_bos_is_seen(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that writes no BOS, trained so, and a file that says to add one."""
    folder = tmp_path / "folder"
    shutil.copytree(llama, folder)
    template = (folder / "chat_template.jinja").read_text().removeprefix("{{ bos_token }}")
    (folder / "chat_template.jinja").write_text(template)
    assert quietly(folder, tmp_path / "right.gguf").tokenizer is not None

    monkeypatch.setattr(module, "special_tokens_of", lambda *given: replace(special_tokens_of(*given), add_bos=True))
    with pytest.raises(DataError, match="does not feed what the model was trained on"):
        quietly(folder, tmp_path / "doubled.gguf")
    assert not (tmp_path / "doubled.gguf").exists()


def test_all_trained_stops_end_a_reply_and_one_that_does_not_is_refused(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(llama, folder)
    tokenizer = Tokenizer.load(folder)
    tool_call, end = tokenizer.fast.token_to_id("<tool_call>"), tokenizer.fast.token_to_id("<|im_end|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, tool_call]}))
    result = quietly(folder, tmp_path / "right.gguf")
    assert result.tokenizer is not None
    assert set(result.tokenizer.stops) == {"<tool_call>", "<|im_end|>"}

    monkeypatch.setattr(module, "special_tokens_of", lambda *given: replace(special_tokens_of(*given), stops=(end,)))
    with pytest.raises(DataError, match="does not stop where the model was trained to stop") as caught:
        quietly(folder, tmp_path / "wrong.gguf")
    assert "<tool_call>" in str(caught.value.where)


def test_template_stops_and_padding_are_in_the_file(llama: Path, tmp_path: Path) -> None:
    result = quietly(llama, tmp_path / "model.gguf", prove=False)
    fields = GGUFReader(result.path).fields
    assert fields["tokenizer.chat_template"].contents() == (llama / "chat_template.jinja").read_text()
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    rows = json.loads((llama / "config.json").read_text())["vocab_size"]
    assert len(tokens) == len(types) == rows
    assert (tokens[-1], types[-1]) == (f"[PAD{rows - 1}]", TokenType.UNUSED)
    assert types[tokens.index("<|im_end|>")] == TokenType.CONTROL
    assert types[tokens.index("<tool_call>")] == TokenType.USER_DEFINED
    assert tokens[fields["tokenizer.ggml.eos_token_id"].contents()] == "<|im_end|>"
    assert result.notes[-1] == "nothing was compared, as was asked"


def test_without_llama_cpp_the_file_is_written_and_the_gap_is_said(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_available", lambda: False)
    result = quietly(llama, tmp_path / "model.gguf")
    assert result.tokenizer is None
    assert "pip install 'tutelage[gguf]'" in result.notes[-1]

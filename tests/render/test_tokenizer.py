from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as FastTokenizer

from tests.support.serving_oracle import CHATML, assert_served, pair, proven, renderer_of, talk
from tutelage.builders.renderer import renderer_for
from tutelage.config import RenderSettings
from tutelage.errors import DataError, TemplateError
from tutelage.render import Tokenizer


@pytest.fixture
def folder(tmp_path: Path, write_model_folder: Callable[..., Path]) -> Path:
    """A checkpoint of this test's own, to be damaged."""
    return write_model_folder(tmp_path / "model")


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    value = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    value = {key: one for key, one in (value | changes).items() if one is not None}
    path.write_text(json.dumps(value), "utf-8")


class TestFacts:
    def test_of_the_tiny_tokenizer(self, tiny_tokenizer_folder: Path) -> None:
        tokenizer = Tokenizer.load(tiny_tokenizer_folder)
        assert tokenizer.special_tokens.keys() == {"<|im_start|>", "<|im_end|>", "<|endoftext|>"}
        assert tokenizer.stop_ids == {tokenizer.special_tokens["<|im_end|>"]}
        assert tokenizer.vocabulary_size == 403
        assert tokenizer.named_tokens == {"eos_token": "<|im_end|>"}
        assert "<|im_start|>" in str(tokenizer.template)
        assert tokenizer.decode(tokenizer.encode(["a 🙂<|im_end|>"])[0]) == "a 🙂<|im_end|>"

    def test_the_hash_is_stable(self, tiny_tokenizer_folder: Path, folder: Path) -> None:
        assert Tokenizer.load(tiny_tokenizer_folder).sha256() == Tokenizer.load(folder).sha256()

    def test_longer_control_tokens_are_found_first(
        self, tmp_path: Path, write_model_folder: Callable[..., Path]
    ) -> None:
        control = ("<s", "<s>", "<s>>", "</s>")
        pattern = Tokenizer.load(
            write_model_folder(tmp_path, control_tokens=control, stop="</s>")
        ).special_token_pattern()
        assert pattern is not None
        assert [found.group() for found in pattern.finditer("a<s>>b<s>c<sd")] == ["<s>>", "<s>", "<s"]

    def test_tokens_that_are_not_special_are_no_control_tokens(self, folder: Path) -> None:
        fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
        fast.add_tokens(["<think>"])
        fast.save(str(folder / "tokenizer.json"))
        assert "<think>" not in Tokenizer.load(folder).special_tokens


class TestStops:
    def test_generation_settings_come_first(self, folder: Path) -> None:
        edit(folder / "generation_config.json", eos_token_id=[400, 402])
        assert Tokenizer.load(folder).stop_ids == {400, 402}

    def test_then_the_model(self, folder: Path) -> None:
        edit(folder / "generation_config.json", eos_token_id=None)
        edit(folder / "config.json", eos_token_id=[402])
        assert Tokenizer.load(folder).stop_ids == {402}

    def test_then_the_tokenizer(self, folder: Path) -> None:
        (folder / "generation_config.json").unlink()
        edit(folder / "config.json", eos_token_id=None)
        edit(folder / "tokenizer_config.json", eos_token={"content": "<|endoftext|>", "special": True})
        assert Tokenizer.load(folder).stop_ids == {402}

    def test_nothing_says(self, folder: Path) -> None:
        for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
            (folder / name).unlink()
        with pytest.raises(DataError, match="ends a generation") as caught:
            Tokenizer.load(folder)
        assert caught.value.fix is not None


class TestTemplates:
    def test_of_the_settings(self, folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        edit(folder / "tokenizer_config.json", chat_template="{{ messages }}")
        assert Tokenizer.load(folder).template == "{{ messages }}"

    def test_the_file_wins(self, folder: Path) -> None:
        edit(folder / "tokenizer_config.json", chat_template="{{ messages }}")
        assert Tokenizer.load(folder).template == (folder / "chat_template.jinja").read_text("utf-8")

    def test_the_default_of_several(self, folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        named = [{"name": "rag", "template": "a"}, {"name": "default", "template": "b"}]
        edit(folder / "tokenizer_config.json", chat_template=named)
        assert Tokenizer.load(folder).template == "b"

    def test_none(self, folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        assert Tokenizer.load(folder).template is None
        with pytest.raises(TemplateError, match="no chat template"):
            renderer_for(folder, RenderSettings())

    def test_several_and_no_default(self, folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        edit(folder / "tokenizer_config.json", chat_template=[{"name": "rag", "template": "a"}])
        with pytest.raises(TemplateError, match="none is the default") as caught:
            renderer_for(folder, RenderSettings())
        assert caught.value.found == "rag"

    def test_several_and_no_default_can_be_mended_as_the_error_says(self, folder: Path, tmp_path: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        edit(folder / "tokenizer_config.json", chat_template=[{"name": "rag", "template": "a"}])
        (tmp_path / "mine.jinja").write_text(CHATML, "utf-8")
        renderer = renderer_for(folder, RenderSettings(template=str(tmp_path / "mine.jinja")))
        proven(renderer, talk(*pair("a", "b")))


class TestDamage:
    def test_a_file_that_is_no_tokenizer(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{", "utf-8")
        with pytest.raises(DataError, match="cannot be read") as caught:
            Tokenizer.load(folder)
        assert str(caught.value.where).endswith("tokenizer.json")

    @pytest.mark.parametrize("name", ["tokenizer_config.json", "config.json", "generation_config.json"])
    def test_settings_that_are_no_json(self, folder: Path, name: str) -> None:
        (folder / name).write_text("{'a': 1}", "utf-8")
        with pytest.raises(DataError, match="damaged") as caught:
            Tokenizer.load(folder)
        assert str(caught.value.where).endswith(name)


class TestLeftovers:
    """A tokenizer.json may carry the padding and truncation of an earlier run; servers switch both off."""

    conversation = talk(*pair("The customer asks for two tickets", "yes"), *pair("and", "no"))

    def test_padding(self, folder: Path) -> None:
        fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
        fast.enable_padding(pad_id=402, pad_token="<|endoftext|>")
        fast.save(str(folder / "tokenizer.json"))
        examples = proven(renderer_of(folder), self.conversation)
        assert_served(folder, self.conversation, examples, stop="<|im_end|>")

    def test_truncation(self, folder: Path) -> None:
        fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
        fast.enable_truncation(24)
        fast.save(str(folder / "tokenizer.json"))
        examples = proven(renderer_of(folder), self.conversation)
        assert_served(folder, self.conversation, examples, stop="<|im_end|>")


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("generation_config.json", {"eos_token_id": [2, None]}, "eos_token_id"),
        ("generation_config.json", {"eos_token_id": "2"}, "eos_token_id"),
        ("config.json", {"vocab_size": "many"}, "vocab_size"),
        ("config.json", {"vocab_size": -3}, "vocab_size"),
    ],
)
def test_b19_settings_of_another_kind_are_named(folder: Path, file: str, changes: dict[str, Any], named: str) -> None:
    edit(folder / file, **changes)

    with pytest.raises(DataError, match=f"{file} is damaged") as caught:
        Tokenizer.load(folder)

    assert named in str(caught.value.found)


@pytest.mark.parametrize("text", [b"[]", b"5", b"[" * 100_000, b"\xff\xfe"])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_b19_files_that_hold_no_object_are_named(folder: Path, file: str, text: bytes) -> None:
    (folder / file).write_bytes(text)

    with pytest.raises(DataError, match=f"{file} is damaged"):
        Tokenizer.load(folder)


def test_b19_a_template_that_is_not_utf_8_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"caf\xe9")

    with pytest.raises(DataError, match=r"chat_template\.jinja is damaged"):
        Tokenizer.load(folder)


def test_b19_a_list_of_templates_needs_their_names(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", chat_template=[{"template": "{{ messages }}"}])

    with pytest.raises(DataError, match=r"tokenizer_config\.json is damaged"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "generation_config.json", "config.json"])
def test_half_a_surrogate_pair_in_a_checkpoints_file_is_named(folder: Path, file: str) -> None:
    edit(folder / file, bos_token={"content": "<\ud800>"})
    with pytest.raises(DataError, match=f"{file} is damaged") as caught:
        Tokenizer.load(folder)
    assert "surrogate" in str(caught.value.found)

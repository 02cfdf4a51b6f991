"""Settings become a Renderer: which template, which tokens end a reply."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from tutelage.builders.renderer import renderer_for
from tutelage.config import RenderSettings
from tutelage.errors import ConfigError, SourceNotFoundError, TemplateError
from tutelage.render.chat_template.builtin_templates import find_builtin


@pytest.fixture
def base(tmp_path: Path, write_model_folder: Callable[..., Path]) -> Path:
    """A base model: no template, and a stop token that ChatML does not write."""
    tokens = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    return write_model_folder(tmp_path / "base", template=None, control_tokens=tokens, stop="<|endoftext|>")


def stops(folder: Path, **settings: object) -> set[str]:
    tokenizer = renderer_for(folder, RenderSettings(**settings)).tokenizer
    return {tokenizer.decode([stop_token_id]) for stop_token_id in tokenizer.stop_ids}


def test_without_a_template_nothing_is_guessed_and_the_formats_are_named(base: Path) -> None:
    with pytest.raises(TemplateError, match="has no chat template") as caught:
        renderer_for(base, RenderSettings())
    assert "chatml, llama2, llama3, alpaca, vicuna, zephyr, plain, lima" in str(caught.value.fix)


def test_a_format_by_name_brings_its_stop_token(base: Path) -> None:
    renderer = renderer_for(base, RenderSettings(template="chatml"))
    assert renderer.template.source == find_builtin("chatml").source
    assert stops(base, template="chatml") == {"<|im_end|>", "<|endoftext|>"}
    assert stops(base, template="plain") == {"<|endoftext|>"}


def test_a_format_begins_with_bos_where_the_tokenizer_begins_plain_text_with_it(base: Path) -> None:
    """A base model such as Gemma's was pre-trained behind BOS, and templates are encoded without what is added."""
    plain = renderer_for(base, RenderSettings(template="plain")).template.source
    file, settings = base / "tokenizer.json", base / "tokenizer_config.json"
    backend = Tokenizer.from_file(str(file))
    bos = "<|im_start|>"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    backend.save(str(file))
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"bos_token": bos}))
    with_bos = renderer_for(base, RenderSettings(template="plain")).template.source
    assert with_bos == "{{- bos_token }}" + plain
    assert not plain.startswith("{{- bos_token }}")
    assert renderer_for(base, RenderSettings(template="chatml")).template.source == find_builtin("chatml").source


def test_a_format_that_the_tokenizer_cannot_write_is_an_error(base: Path) -> None:
    with pytest.raises(TemplateError, match="needs control tokens"):
        renderer_for(base, RenderSettings(template="llama3"))


def test_a_file_wins_only_when_it_is_written_as_a_path(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("chatml", "chatml.jinja"):
        (tmp_path / name).write_text("{{ messages[0].content }}", "utf-8")
        own = renderer_for(base, RenderSettings(template=f"./{name}")).template.source
        assert own == "{{ messages[0].content }}"
    assert renderer_for(base, RenderSettings(template="chatml")).template.source == find_builtin("chatml").source


def test_a_missing_file_names_the_formats(base: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="chat template is missing") as caught:
        renderer_for(base, RenderSettings(template="nowhere.jinja"))
    assert "chatml" in str(caught.value.expected)


def test_stop_tokens_of_the_settings_join_those_of_the_checkpoint(base: Path) -> None:
    assert stops(base, template="plain", stop_tokens=["<|im_end|>"]) == {"<|im_end|>", "<|endoftext|>"}


def test_a_stop_token_that_is_none_is_an_error(base: Path) -> None:
    with pytest.raises(ConfigError, match="not a token") as caught:
        renderer_for(base, RenderSettings(template="plain", stop_tokens=["<|im_end|>", "<|eot|>"]))
    assert caught.value.found == "<|eot|>"
    assert caught.value.where == "render.stop_tokens"


def test_a_template_that_is_no_text_is_an_error_with_its_place(tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
    path = tmp_path / "broken.jinja"
    path.write_bytes(b"{{ '\xb8' }}")
    with pytest.raises(TemplateError) as caught:
        renderer_for(tiny_tokenizer_folder, RenderSettings(template=str(path)))
    assert caught.value.where == str(path)
    assert "at 4" in str(caught.value.found)

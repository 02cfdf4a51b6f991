"""What a saved folder says about serving: the template that was trained with, and every token that ends a reply."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage.builders.renderer import renderer_for
from tutelage.config import RenderSettings
from tutelage.export.model_folder import TOKENIZER_FILES, write_serving_files
from tutelage.render import Tokenizer

OWN = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"


@pytest.fixture
def saved(tmp_path: Path, write_model_folder: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a checkpoint with an own template, one for tools and another, and saves it with some settings."""
    tokens = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    folder = write_model_folder(tmp_path / "model", template=OWN, control_tokens=tokens, stop="<|endoftext|>")
    (folder / "additional_chat_templates").mkdir()
    for name in ("tool_use", "rag"):
        (folder / "additional_chat_templates" / f"{name}.jinja").write_text(f"{OWN}{{# {name} #}}", "utf-8")
    settings = folder / "tokenizer_config.json"
    value = json.loads(settings.read_text("utf-8")) | {"chat_template": "an older one"}
    settings.write_text(json.dumps(value), "utf-8")

    def save(**settings: object) -> Path:
        target = tmp_path / "saved"
        target.mkdir()
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                (target / name).write_bytes((folder / name).read_bytes())
        write_serving_files(renderer_for(folder, RenderSettings(**settings)), target)
        return target

    return save


def ends(folder: Path) -> list[str]:
    tokenizer = Tokenizer.load(folder)
    value = json.loads((folder / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    listed = value if isinstance(value, list) else [value]
    assert frozenset(listed) == tokenizer.stop_ids
    return [tokenizer.decode([one]) for one in listed]


def test_the_stop_tokens_of_the_run_end_a_generation_of_the_saved_model(saved: Callable[..., Path]) -> None:
    assert ends(saved(stop_tokens=["<|im_end|>"])) == ["<|endoftext|>", "<|im_end|>"]


def test_the_stop_of_a_format_chosen_by_name_does_too(saved: Callable[..., Path]) -> None:
    assert ends(saved(template="chatml")) == ["<|endoftext|>", "<|im_end|>"]


def test_without_further_stops_the_settings_stay(saved: Callable[..., Path]) -> None:
    assert ends(saved()) == ["<|endoftext|>"]


def test_the_checkpoints_own_templates_stay(saved: Callable[..., Path]) -> None:
    templates = Tokenizer.load(saved()).templates
    assert set(templates) == {"default", "tool_use", "rag"}
    assert templates["default"] == OWN


def test_another_template_replaces_all_of_them(saved: Callable[..., Path]) -> None:
    """One for tools that nobody trained with would be served otherwise."""
    templates = Tokenizer.load(saved(template="plain")).templates
    assert set(templates) == {"default"}
    assert templates["default"] != OWN


def test_no_second_template_is_left_in_the_tokenizers_settings(saved: Callable[..., Path]) -> None:
    settings = json.loads((saved() / "tokenizer_config.json").read_text("utf-8"))
    assert "chat_template" not in settings
    assert settings["eos_token"] == "<|endoftext|>"


def test_another_library_reads_the_same(saved: Callable[..., Path]) -> None:
    transformers = pytest.importorskip("transformers", reason="compares with the transformers library")
    folder = saved(template="chatml")
    server = transformers.AutoTokenizer.from_pretrained(folder)
    said = [{"role": "user", "content": "why"}]
    text = server.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n"
    assert transformers.GenerationConfig.from_pretrained(folder).eos_token_id == list(
        server.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    )

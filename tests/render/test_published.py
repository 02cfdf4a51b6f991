"""Published tokenizers and published data, as far as they are here."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from tests.support.serving_oracle import CHATML, CHATML_TOKENS, assert_served, pair, proven, renderer_of, talk
from tutelage.errors import DependencyError
from tutelage.formats import read
from tutelage.ledger import Ledger
from tutelage.model.locate import model_folder
from tutelage.pack import proven_rows
from tutelage.render import Renderer, examples
from tutelage.types import Conversation, Example, Message

MATERIAL = Path(__file__).resolve().parents[2].parent / "shared/material"
needs_material = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the collection of published files is not here")

SAID = [
    talk(*pair("How are you?", "Fine, thanks 🙂."), *pair("  And\tyou?\n\n", "\n\n  def f(x):\n\n      return x\n")),
    talk(Message("system", "Réponds en français. 日本語も。"), *pair("1234567 + 0.5 =", " 1234567.5 ")),
    talk(*pair("", "x"), Message("user", "👩‍👩‍👧 \u2028 \u00a0"), Message("assistant", "é à ü ﬁ", weight=0.5)),
    talk(*pair("{}[]()<>&", '{"a": [1, 2], "b": "\\n"}'), *pair("a" * 50, " " * 30 + "b")),
]


@pytest.fixture(scope="module")
def smollm2() -> Path:
    try:
        return model_folder("smollm2-135m", weights=False)
    except DependencyError as error:
        pytest.skip(f"SmolLM2's tokenizer is not here: {error.what}")


@pytest.fixture(scope="module")
def smollm2_renderer(smollm2: Path) -> Renderer:
    return renderer_of(smollm2)


def with_chatml(tokenizer: Path, folder: Path) -> Path:
    """A folder with the published tokenizer, the ChatML control tokens added where they lack, and the template."""
    fast = FastTokenizer.from_file(str(tokenizer))
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CHATML_TOKENS])
    folder.mkdir()
    fast.save(str(folder / "tokenizer.json"))
    stop = fast.token_to_id("<|im_end|>")
    files: dict[str, dict[str, Any]] = {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"},
        "config.json": {"model_type": "llama", "vocab_size": fast.get_vocab_size(), "eos_token_id": stop},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value), "utf-8")
    (folder / "chat_template.jinja").write_text(CHATML, "utf-8")
    return folder


@needs_material
@pytest.mark.parametrize("name", ["gpt-neox-20b", "laion-pythia-cut", "torchtune"])
def test_a_published_tokenizer_with_chatml(tmp_path: Path, name: str) -> None:
    folder = with_chatml(MATERIAL / f"tokenizers/{name}.tokenizer.json", tmp_path / name)
    renderer = renderer_of(folder)
    for conversation in SAID:
        assert_served(folder, conversation, proven(renderer, conversation), stop="<|im_end|>")


def test_smollm2_as_it_is(smollm2: Path, smollm2_renderer: Renderer) -> None:
    for conversation in SAID:
        assert_served(smollm2, conversation, proven(smollm2_renderer, conversation), stop="<|im_end|>")


def test_smollm2_trains_its_stop_token(smollm2_renderer: Renderer) -> None:
    (one,) = proven(smollm2_renderer, talk(*pair("hi", "yo")))
    assert smollm2_renderer.tokenizer.stop_ids == {2}
    assert one.ids[-1] == 2
    assert one.weights[-1] == 1.0


@dataclasses.dataclass(frozen=True)
class Published:
    """A published file, how it is read, and what is known about it."""

    file: str
    rows: int
    kept: int
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    columns: dict[str, str] | None = None


FILES = [
    Published("fastchat_dummy_conversation.json", 500, 500),
    Published("llamafactory_glaive_toolcall_en_demo.json", 300, 146, {"tool_call_not_in_reply": 153, "too_long": 1}),
    Published("gsm8k_train.jsonl", 7473, 7473),
    Published("flan_cot_gsm8k.tsv", 7473, 7473, columns={"prompt": "0", "response": "2"}),
]


@needs_material
@pytest.mark.parametrize("published", FILES, ids=lambda one: one.file)
def test_published_rows_are_proven(smollm2: Path, smollm2_renderer: Renderer, published: Published) -> None:
    ledger = Ledger()
    sources = [str(MATERIAL / "data" / published.file)]

    def reader(reader_ledger: Ledger) -> Iterator[Conversation]:
        return read(sources, ledger=reader_ledger, columns=published.columns)

    kept = list(proven_rows(reader, smollm2_renderer, ledger, max_seq_length=8192))
    ledger.check()
    assert ledger.rows_in == published.rows
    assert dict(ledger.dropped) == published.dropped
    assert ledger.rows_kept == len(kept) == published.kept
    for conversation, made in random.Random(0).sample(kept, 50):
        assert_served(smollm2, conversation, made, stop="<|im_end|>")


@needs_material
def test_the_tool_template_keeps_the_calls(
    tmp_path: Path, smollm2: Path, write_model_folder: Callable[..., Path]
) -> None:
    """The rows that SmolLM2's own template cannot say are whole under one that writes tool calls."""
    from tests.support.serving_oracle import TOOLS

    folder = tmp_path / "tools"
    shutil.copytree(smollm2, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "chat_template.jinja").write_text(TOOLS, "utf-8")
    ledger = Ledger()
    source = str(MATERIAL / "data/llamafactory_glaive_toolcall_en_demo.json")
    kept: list[tuple[Conversation, tuple[Example, ...]]] = list(
        examples(read([source], ledger=ledger), renderer_of(folder), ledger)
    )
    assert (ledger.rows_in, ledger.rows_dropped, len(kept)) == (300, 0, 300)
    for conversation, made in random.Random(0).sample(kept, 50):
        assert_served(folder, conversation, made, stop="<|im_end|>", written=None)

"""A tiny byte-level tokenizer, trained here, in a folder that any loader accepts. No test needs the network."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest

pytest_plugins = ("tests.support.tiny_runs", "tests.support.written_run")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


SLOW = Path(__file__).with_name("slow.txt")


@pytest.hookimpl(tryfirst=True)  # before the marks choose
def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Mark what `slow.txt` names.

    Raises:
        UsageError: it names a test that is not there.
    """
    lines = SLOW.read_text(encoding="utf-8").splitlines()
    unmet = names = {line for line in lines if line and not line.startswith("#")}
    for item in items:
        if met := names & {item.nodeid, item.nodeid.partition("[")[0]}:
            item.add_marker("slow")
            unmet = unmet - met
    files = {item.nodeid.partition("::")[0] for item in items}
    unmet = {name for name in unmet if name.partition("::")[0] in files}
    if unmet and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"{SLOW.name} names no test: {', '.join(sorted(unmet))}")


def pytest_collection_finish() -> None:
    """Whatever was imported stays: a collection of garbage in a test need not walk through all of torch again."""
    gc.collect()
    gc.freeze()


CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
"""

CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")

WHO = ("The customer", "My sister", "A driver", "Our team", "The old shop", "Nobody", "Every student")
DOES = ("asks for", "returns", "has lost", "would like to order", "cannot find", "writes about", "pays for")
WHAT = ("the blue lamp", "order 4711", "two tickets, please", "a refund?", "an answer!", "12.50 EUR", "the manual")


def corpus() -> list[str]:
    """A few hundred short lines to learn merges from."""
    lines = [f"{who} {does} {what}." for who, does, what in product(WHO, DOES, WHAT)]
    lines += ["Hello\n\n Dear team,\n\n  thanks", "one\n  two\n  three", "a\n\n\nb"] * 9  # merges of white space
    return [*lines, "user", "assistant", "system", "tool", '{"name": "lookup", "arguments": {"city": "Lyon"}}']


def write_model_folder(
    folder: Path,
    *,
    template: str | None = CHATML,
    control_tokens: Sequence[str] = CONTROL_TOKENS,
    stop: str | Sequence[str] = "<|im_end|>",
    bos: str | None = None,
    vocabulary_size: int | None = None,
) -> Path:
    """Train the tokenizer and write the torch-free files of a checkpoint.

    Args:
        folder: made if missing.
        template: the checkpoint's own chat template; None writes none.
        control_tokens: special tokens, after the 400 learned ones.
        stop: what ends a generation; the first is the EOS.
        bos: the BOS token, one of `control_tokens`.
        vocabulary_size: rows of the embedding; None makes it the tokenizer's size.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control_tokens])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    stops = [stop] if isinstance(stop, str) else list(stop)
    stop_ids = [tokenizer.token_to_id(stop) for stop in stops]
    named = {"eos_token": stops[0]} | ({"bos_token": bos} if bos else {})
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 4096,
            **named,
        },
        "config.json": {
            "model_type": "llama",
            "vocab_size": vocabulary_size or tokenizer.get_vocab_size(),
            "eos_token_id": stop_ids[0],
        },
        "generation_config.json": {"eos_token_id": stop_ids if len(stop_ids) > 1 else stop_ids[0]},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@pytest.fixture(scope="session", autouse=True)
def a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs of tests keep what they prepare away from the user's cache; embedded models and traces are shared with it.

    The code that a trace runs through is in its key: a trace of other code is never met here.
    """
    from tutelage.model.embedded import embedded_models
    from tutelage.system.files import cache_folder

    folder, before = tmp_path_factory.mktemp("cache"), os.environ.get("TUTELAGE_CACHE")
    traces, models = cache_folder() / "traces", folder / "models"
    traces.mkdir(parents=True, exist_ok=True)
    (folder / "traces").symlink_to(traces.absolute())
    models.mkdir()
    for name in embedded_models():
        for converted in (cache_folder() / "models").glob(f"{name}-*"):
            (models / converted.name).symlink_to(converted.absolute())
    os.environ["TUTELAGE_CACHE"] = str(folder)
    yield
    os.environ.pop("TUTELAGE_CACHE") if before is None else os.environ.update(TUTELAGE_CACHE=before)


@pytest.fixture(scope="session")
def tiny_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tokenizer.json, tokenizer_config.json, config.json, generation_config.json and chat_template.jinja (ChatML).

    403 tokens; `<|im_start|>`, `<|im_end|>` (the EOS and only stop token) and `<|endoftext|>` are special.
    """
    return write_model_folder(tmp_path_factory.mktemp("tiny") / "tokenizer")


@pytest.fixture(scope="session", name="write_model_folder")
def write_model_folder_fixture() -> Callable[..., Path]:
    """The writer itself, for folders with another template or other control tokens."""
    return write_model_folder


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `tiny_tokenizer_folder` with a seeded 2-layer fp32 Llama (hidden 64, 4 heads, 2 kv heads, tied)."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    stop = json.loads((tiny_tokenizer_folder / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
    folder = tmp_path_factory.mktemp("tiny") / "model"
    shutil.copytree(tiny_tokenizer_folder, folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=416,  # the tokenizer's 403, rounded up to a multiple of 16
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.12,  # with the usual 0.02 a frozen tied head cannot say much, and LoRA learns nothing
        bos_token_id=None,
        eos_token_id=stop,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


TINY_ITEMS = ("lamp", "ticket", "manual", "order", "shop", "driver")


def tiny_rows(first: int, last: int) -> list[dict[str, object]]:
    """Chat rows `first` to `last - 1`: a short question and a JSON reply."""
    rows: list[dict[str, object]] = []
    for number in range(first, last):
        item, count, urgent = TINY_ITEMS[number % 6], number // 6 + 1, number % 2 == 0
        asked = f"My sister asks for {count} {item}s{'!' if urgent else '.'}"
        reply = json.dumps({"item": item, "count": count, "urgent": urgent})
        roles = ("system", "user", "assistant")
        said = ("Answer in JSON.", asked, reply)
        rows.append({"messages": [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]})
    return rows


@pytest.fixture(scope="session")
def tiny_recipe(tiny_model_folder: Path) -> Callable[[Path], Path]:
    """A writer: puts data, a general set and recipe.toml of a run of the tiny model into a folder.

    24 training, 6 validation and 4 task rows; runs land in `folder / "runs"`.
    """
    import tomli_w

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in (("train", (0, 24)), ("validation", (24, 30)), ("task", (0, 4))):
            lines = [json.dumps(row) for row in tiny_rows(*rows)]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        general = [
            {"prompt": "What is 2 + 2?", "checks": [{"kind": "contains_any", "values": ["4", "four"]}]},
            {"prompt": "Say something.", "checks": [{"kind": "min_words", "count": 1}]},
        ]
        (folder / "general.jsonl").write_text("\n".join(map(json.dumps, general)), encoding="utf-8")
        recipe = {
            "name": "tiny",
            "seed": 7,
            "folder": str(folder / "runs"),
            "model": {"name": str(tiny_model_folder), "precision": "fp32", "threads": 1},
            "data": {"train": [str(folder / "train.jsonl")], "validation": [str(folder / "validation.jsonl")]},
            "pack": {"max_seq_length": 256, "row_tokens": 512},
            "train": {"epochs": 4.0, "batch_size": 8, "learning_rate": 1e-2},
            "evaluate": {
                "task": [str(folder / "task.jsonl")],
                "general": [str(folder / "general.jsonl")],
                "max_new_tokens": 40,
            },
        }
        path = folder / "recipe.toml"
        path.write_text(tomli_w.dumps(recipe), encoding="utf-8")
        return path

    return write

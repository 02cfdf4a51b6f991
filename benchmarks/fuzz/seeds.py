"""What is damaged: small good files, a tiny model, and runs of it. All of it is made here."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

SYSTEM = "You answer shop questions in few words."
PAIRS = (("where is order 12", "In the harbour."), ("may I return a chair", "Yes."), ("a number", "Four."),
         ("what color is it", "Blue."), ("open by night?", "No."))  # fmt: skip
TOOL = {"type": "function", "function": {"name": "find", "description": "Find.",
        "parameters": {"type": "object", "properties": {"order": {"type": "integer"}}}}}  # fmt: skip
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": {"order": 12}}}
TEMPLATE = """\
{%- if tools %}<|im_start|>tools
{{ tools | tojson }}<|im_end|>
{% endif -%}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.tool_calls %}{% for c in m.tool_calls %}<call>{{ c.function | tojson }}</call>{% endfor %}{% endif -%}
{{ m.content or '' }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": 3}  # fmt: skip


def turns(question: str, answer: str) -> list[dict[str, Any]]:
    """A short conversation."""
    contents = (("system", SYSTEM), ("user", question), ("assistant", answer))
    return [{"role": role, "content": content} for role, content in contents]


def rows_of_every_shape() -> dict[str, list[dict[str, Any]]]:
    """Good rows by the name of their shape."""
    called = [*turns("where is order 12", "x")[:2], {"role": "assistant", "content": None, "tool_calls": [CALL]},
              {"role": "tool", "tool_call_id": "c1", "content": "harbour"},
              {"role": "assistant", "content": "In the harbour.", "reasoning_content": "Looked."}]  # fmt: skip
    parts = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}, {"role": "assistant", "content": "Hi."}]
    return {
        "messages": [{"messages": turns(*pair), "id": number} for number, pair in enumerate(PAIRS)],
        "tools": [{"messages": called, "tools": [TOOL]}, {"messages": turns("a", "b"), "tools": json.dumps([TOOL])}],
        "parts": [{"messages": parts}, {"messages": json.dumps(parts)}],
        "weights": [{"messages": [*turns("q", "a")[:2], {"role": "assistant", "content": "a", "weight": 0},
                                  *turns("r", "b")[1:]]}],
        "sharegpt": [{"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]} for q, a in PAIRS],
        "alpaca": [{"instruction": q, "input": "", "output": a} for q, a in PAIRS],
        "prompt": [{"prompt": q, "completion": a} for q, a in PAIRS],
        "text": [{"text": f"{q} {a}"} for q, a in PAIRS],
    }  # fmt: skip


def data_files() -> list[tuple[str, bytes]]:
    """Good files of every kind: name and bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files: list[tuple[str, bytes]] = []
    for shape, rows in rows_of_every_shape().items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        files += [(f"{shape}.jsonl", lines), (f"{shape}.json", json.dumps(rows).encode())]
    files.append(("wrapped.json", json.dumps({"data": rows_of_every_shape()["alpaca"]}).encode()))
    files.append(("messages.jsonl.gz", gzip.compress(files[0][1], mtime=0)))
    header = "prompt,completion\n" + "".join(f'"{q}","{a}"\n' for q, a in PAIRS)
    files += [("pairs.csv", header.encode()), ("pairs.tsv", header.replace(",", "\t").encode())]
    files.append(("page.txt", "\n".join(f"{q}\n\n{a}\n" for q, a in PAIRS).encode()))
    for shape in ("messages", "alpaca"):
        stream = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows_of_every_shape()[shape]), stream)
        files.append((f"{shape}.parquet", stream.getvalue()))
    return files


def write_model(folder: Path, kind: str = "llama") -> Path:
    """A tiny model of random numbers, with a tokenizer of one token a byte and a template that writes calls."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoConfig, AutoModelForCausalLM

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [],
        trainers.BpeTrainer(
            vocab_size=260, initial_alphabet=sorted(alphabet), special_tokens=list(MARKS), show_progress=False
        ),
    )
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=260, **TINY)).float()
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
    settings = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **named})
    (folder / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


def recipe(folder: Path, model: Path, *, name: str, method: str = "lora") -> Path:
    """A recipe of six steps on five rows, with a checkpoint after each and a held-out set."""
    rows = folder / "rows.jsonl"
    messages = rows_of_every_shape()["messages"]
    rows.write_text("".join(json.dumps(row) + "\n" for row in messages), encoding="utf-8")
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\nfolder = "{folder / "runs"}"\n'
        f'[model]\nname = "{model}"\nmethod = "{method}"\nprecision = "fp32"\n'
        f'[data]\ntrain = ["{rows}"]\nvalidation = ["{rows}"]\nworkers = 1\n'
        "[train]\nepochs = 6\nbatch_size = 5\ncheckpoint_every = 2\n[evaluate]\nbefore = false\n",
        encoding="utf-8",
    )
    return path


def copied(folder: Path, to: Path) -> Path:
    """A fresh copy of a folder at `to`."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to


def drawn_file(folder: Path, draw: random.Random, *, keep: Callable[[Path], bool] = lambda _: True) -> Path | None:
    """One of the files below a folder; None where there is none."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and keep(path))
    return draw.choice(files) if files else None

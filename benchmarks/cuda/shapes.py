"""Models of published shapes with random weights: speed and memory do not depend on what the weights say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

SHAPES: dict[str, dict[str, Any]] = {
    # Source of each: config.json of the published model.
    "smollm2-135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152, "tie_word_embeddings": True,
    },
    "llama-3.2-1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "llama-3.2-3b": {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "llama-3.1-8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "tie_word_embeddings": False,
    },
}  # fmt: skip

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def write_model(shape: str, tokenizer: Path, folder: Path, *, seed: int = 0) -> Path:
    """A model folder of that shape: weights drawn as transformers does, in bf16, with the tokenizer of another.

    Args:
        shape: a name of `SHAPES`.
        tokenizer: a folder whose tokenizer and template it gets; its vocabulary may be smaller.
        folder: where it goes; one that holds a model is left as it is.
        seed: of the weights.
    """
    from transformers import AutoModelForCausalLM, LlamaConfig

    if (folder / "config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    theirs = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))
    ids = {name: theirs[name] for name in ("bos_token_id", "eos_token_id")}  # a padding token would get zeros
    config = LlamaConfig(**SHAPES[shape], **ids, max_position_embeddings=8192, attention_bias=False)
    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
    return folder


def write_instructions(path: Path, *, count: int, seed: int = 0) -> Path:
    """Alpaca-like rows of random words, of about 200 tokens with the template, lengths as skewed as those of real ones.

    No two begin alike, so that no beginning is shared between rows.

    Args:
        path: JSON lines.
        count: rows.
        seed: of words and lengths.
    """
    generator = torch.Generator().manual_seed(seed)
    words = ["the", "river", "lamp", "order", "seven", "slowly", "north", "paper", "green", "under", "wheel", "open"]

    def text(mean: float) -> str:
        length = int(torch.empty(()).log_normal_(mean, 0.6, generator=generator).clamp(3, 400))
        return " ".join(words[int(one)] for one in torch.randint(len(words), (length,), generator=generator))

    with path.open("w", encoding="utf-8") as stream:
        for index in range(count):
            row = {"instruction": f"{index} {text(4.0)}", "input": "", "output": text(4.6)}
            stream.write(json.dumps(row) + "\n")
    return path

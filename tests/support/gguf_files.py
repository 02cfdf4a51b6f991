"""Small GGUF files with a vocabulary whose merges go across words, digits and spaces, so that every cut shows.

`hard_strings` makes the texts to encode. `ids_by_llama_cpp` asks llama.cpp's own server what it would feed the model.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
UNREACHED = "zyxq"
"""A word that is in the vocabulary, and that no merge makes."""
TEXT = (
    "the order and 12 was not found in this house because WE'VE it's don't rock'n'roll O'Neil's CAN'T I'll zyxq "
    "3 2026 3.14159 1,000,000 007 1234567890 10:30 x² Ⅷ ٣٤٥ ½ १२३ 漢字 日本語テキスト 한국어 Привет naïve café नमस्ते "
    "العربية 😀 🇩🇪 — … “q” http://a.b/c?d=1&e=2 foo_bar fooBar HTTPServer x+=1; if(a!=b){ } // /* $5 €10 50% a@b.c "
    "\\n ~/.x <b> </b> [1] (2) {3} `code` **bold** - 1. 2)"
)
PIECES = TEXT.split()
BLANKS = [
    " ",
    " ",
    " ",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    " \n",
    "\n ",
    "    ",
    "\n\n\n",
    "\u00a0",
    "\u3000",
    "",
]
WIDTH, HEADS, INNER = 32, 4, 64

WITNESS = """
import json, sys, urllib.request, xllamacpp
asked = json.load(sys.stdin)
chosen = xllamacpp.CommonParams()
chosen.model.path, chosen.n_ctx, chosen.n_parallel, chosen.warmup, chosen.verbosity = asked["path"], 64, 1, False, 0
chosen.cpuparams.n_threads = 1
server = xllamacpp.Server(chosen)
def ids(text):
    body = json.dumps({"content": text, "add_special": asked["add_special"], "parse_special": True}).encode()
    request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))["tokens"]
print("IDS" + json.dumps([ids(text) for text in asked["texts"]]))
"""


def hard_strings(count: int, *, seed: int, control: bool = True) -> list[str]:
    """Texts of words, numbers, scripts, code and white space; every third with control tokens in it."""
    draw = random.Random(seed)
    texts = []
    for number in range(count):
        parts = [draw.choice(PIECES) + draw.choice(BLANKS) for _ in range(draw.randint(1, 14))]
        if control and number % 3 == 0:
            parts.insert(0, "<|im_start|>")
            parts.insert(draw.randint(1, len(parts)), "<|im_end|>")
        texts.append("".join(parts))
    return texts


def ids_by_llama_cpp(gguf: Path, texts: list[str], *, add_special: bool = False) -> list[list[int]]:
    """Ids of each text, in a process of its own."""
    asked = json.dumps({"path": str(gguf), "texts": texts, "add_special": add_special})
    done = subprocess.run(
        [sys.executable, "-c", WITNESS], input=asked, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[list[int]] = json.loads(done.stdout.rpartition("IDS")[2])
    return found


@cache
def byte_level_vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level vocabulary that never cuts a text."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _trained(trained, alphabet=pre_tokenizers.ByteLevel.alphabet(), control=CONTROL, space=" ")


@cache
def sentencepiece_vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and merges of a vocabulary of letters, with spaces written as sentencepiece writes them."""
    return _trained(Tokenizer(models.BPE()), alphabet=[], control=[], space="\u2581")


def _trained(
    tokenizer: Tokenizer, *, alphabet: list[str], control: list[str], space: str
) -> tuple[list[str], list[str]]:
    texts = [text.replace(UNREACHED, "").replace(" ", space) for text in hard_strings(3000, seed=1, control=False)]
    trainer = trainers.BpeTrainer(
        vocab_size=4000, initial_alphabet=alphabet, special_tokens=control, max_token_length=12, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return [*tokens, UNREACHED], [" ".join(pair) for pair in model["merges"]]


def write_byte_level(path: Path, pre: str | None, *, add_bos: bool | None = None) -> Path:
    """A GGUF of a tiny Llama with the byte-level vocabulary, whose pre-tokenizer is called `pre`."""
    tokens, merges = byte_level_vocabulary()
    writer = _writer(path, "llama", len(tokens))
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in CONTROL else TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    return _finished(writer, path, "llama", len(tokens), add_bos=add_bos)


def write_sentencepiece(
    path: Path, *, architecture: str = "llama", space_before: bool | None = None, add_bos: bool | None = None
) -> Path:
    """A GGUF of a tiny model with the sentencepiece vocabulary, scored in the order of its merges."""
    trained, _ = sentencepiece_vocabulary()
    whole = [token for token in trained if len(token) > 1 and token != UNREACHED]
    letters = [token for token in trained if len(token) == 1]
    first = ["<unk>", "<|im_start|>", "<|im_end|>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens = [*first, *whole, *letters]
    writer = _writer(path, architecture, len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(first) + [-float(place) for place in range(len(whole))] + [-1e9] * len(letters))
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    writer.add_token_types(kinds + [TokenType.NORMAL] * (len(whole) + len(letters)))
    if space_before is not None:
        writer.add_add_space_prefix(space_before)
    return _finished(writer, path, architecture, len(tokens), add_bos=add_bos)


def _writer(path: Path, architecture: str, vocabulary: int) -> Any:
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    head = _head_width(architecture)
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(vocabulary)
    if architecture == "gemma3":
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_sliding_window(64)
    return writer


def _head_width(architecture: str) -> int:
    """The format does not hold what Gemma's queries are scaled by: heads of 256 are the usual ones."""
    return 256 if architecture == "gemma3" else WIDTH // HEADS


def _finished(writer: Any, path: Path, architecture: str, vocabulary: int, *, add_bos: bool | None) -> Path:
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    head = _head_width(architecture)
    shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v"), (HEADS * head, WIDTH)) | {
        "attn_output": (WIDTH, HEADS * head)
    }
    shapes |= {"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
    norms = {"attn_norm": WIDTH, "ffn_norm": WIDTH}
    if architecture == "gemma3":
        norms |= {"attn_q_norm": head, "attn_k_norm": head}
        norms |= {"post_attention_norm": WIDTH, "post_ffw_norm": WIDTH}
    draw = np.random.default_rng(0)
    tensors = {f"blk.0.{name}.weight": draw.standard_normal(shape) * 0.1 for name, shape in shapes.items()}
    tensors |= {f"blk.0.{name}.weight": np.ones(width) for name, width in norms.items()}
    tensors |= {
        "token_embd.weight": draw.standard_normal((vocabulary, WIDTH)) * 0.1,
        "output_norm.weight": np.ones(WIDTH),
    }
    for name, values in tensors.items():
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

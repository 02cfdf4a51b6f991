"""Tiny random models of every family that can be written as GGUF, each with a tokenizer of its family's kind."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM

from tests.conftest import CHATML
from tests.support.gguf_files import CONTROL, byte_level_vocabulary, sentencepiece_vocabulary
from tutelage.model.gguf_tokenizer import known_pre_tokenizers

SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 1024}  # fmt: skip
LLAMA3_ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 128}  # fmt: skip
WINDOWS = {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 16}
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    # name: (model type, tokenizer, settings beside the sizes)
    "llama": ("llama", "llama-bpe", {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True}),
    "smollm2": ("llama", "smollm", {"tie_word_embeddings": True, "num_attention_heads": 8}),
    "llama-pieces": ("llama", "pieces", {"attention_bias": True}),
    "mistral": ("mistral", "pieces", {"head_dim": 32, "sliding_window": None}),
    "qwen2": ("qwen2", "qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", "qwen2", {"head_dim": 32}),
    "gemma2": ("gemma2", "pieces-bare", WINDOWS),
    "gemma3": ("gemma3_text", "pieces-bare", WINDOWS),
    "phi3": ("phi3", "pieces-phi3", {"original_max_position_embeddings": 1024, "pad_token_id": 2}),
    "phi3-long": ("phi3", "pieces-phi3", {
        "original_max_position_embeddings": 512, "pad_token_id": 2,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 1.0,
                            "original_max_position_embeddings": 512,
                            "long_factor": [1.0 + place / 8 for place in range(32)],
                            "short_factor": [1.0 + place / 64 for place in range(32)]}}),
}  # fmt: skip
PIECES_CONTROL = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_family(folder: Path, name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, **more: Any) -> Path:
    """The folder of a tiny random model of a family, with tokenizer, template and generation settings."""
    model_type, tokenizer, settings = FAMILIES[name]
    vocabulary = write_tokenizer(folder, tokenizer)
    stop = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    config = AutoConfig.for_model(
        model_type,
        **{**SIZES, **settings, "vocab_size": vocabulary + 5, "eos_token_id": stop, "bos_token_id": 1, **more},
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.06)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        # Rows beyond the tokenizer are never trained, so nothing may depend on them being likely.
        model.get_input_embeddings().weight[vocabulary:] = 0
    generation = (folder / "generation_config.json").read_text()
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").write_text(generation)
    return folder


def write_tokenizer(folder: Path, kind: str) -> int:
    """tokenizer.json and what belongs to it; how many tokens it has.

    Args:
        folder: made if missing.
        kind: a name of a pre-tokenizer, "pieces", "pieces-bare" (no space before a text) or "pieces-phi3".
    """
    folder.mkdir(parents=True, exist_ok=True)
    if kind.startswith("pieces"):
        made = _pieces(bare=kind == "pieces-bare", swallowing=kind == "pieces-phi3")
        named = {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>"}
        _write_sentencepiece_model(made, folder / "tokenizer.model")
    else:
        made = _byte_level(kind)
        named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        if kind == "llama-bpe":
            named["bos_token"] = "<|endoftext|>"
    made.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": made.token_to_id("<|im_end|>")}))
    start = "{{ bos_token }}" if "bos_token" in named else ""
    (folder / "chat_template.jinja").write_text(start + CHATML)
    return int(made.get_vocab_size())


def _byte_level(pre: str) -> Tokenizer:
    tokens, merges = byte_level_vocabulary()
    cut = known_pre_tokenizers()[pre]
    model = models.BPE(
        {token: index for index, token in enumerate(tokens)},
        [tuple(merge.split(" ")) for merge in merges],
        ignore_merges=cut.whole_words,
    )
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in cut.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    if pre == "llama-bpe":
        made.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", made.token_to_id("<|endoftext|>"))]
        )
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    made.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    return made


def _pieces(*, bare: bool, swallowing: bool) -> Tokenizer:
    trained, merges = sentencepiece_vocabulary()
    made_of_merges = list(dict.fromkeys("".join(merge.split(" ")) for merge in merges))
    letters = [token for token in trained if len(token) == 1]
    first = [*PIECES_CONTROL, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens = [*first, *made_of_merges, *letters]
    reached = set(tokens)
    pairs = [
        (token[:cut], token[cut:])
        for token in made_of_merges
        for cut in range(1, len(token))
        if token[:cut] in reached and token[cut:] in reached
    ]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replaced = normalizers.Replace(" ", "\u2581")
    made.normalizer = replaced if bare else normalizers.Sequence([normalizers.Prepend("\u2581"), replaced])
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False,
                       rstrip=swallowing and token not in ("<unk>", "<s>", "<|endoftext|>"))
            for token in PIECES_CONTROL
        ]
    )  # fmt: skip
    return made


def _write_sentencepiece_model(made: Tokenizer, path: Path) -> None:
    """The same vocabulary as sentencepiece itself stores it, for converters that read nothing else."""
    vocabulary = sorted(made.get_vocab(with_added_tokens=False).items(), key=lambda entry: entry[1])
    content = b""
    for token, index in vocabulary:
        kind = 2 if token == "<unk>" else 3 if token in PIECES_CONTROL else 6 if token.startswith("<0x") else 1
        place = index - len(PIECES_CONTROL) - 256
        piece = _field(1, token.encode()) + b"\x15" + struct.pack("<f", -float(max(place, 0))) + b"\x18" + bytes([kind])
        content += _field(1, piece)
    trainer = b"\x18\x02" + b"\x98\x02\x01"  # model_type BPE, byte_fallback
    path.write_bytes(content + _field(2, trainer) + _field(3, _field(1, b"identity")))


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field of a protobuf message."""
    size, length = b"", len(value)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + value

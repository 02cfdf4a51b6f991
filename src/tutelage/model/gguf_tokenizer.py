"""A GGUF file's tokenizer with the ids that llama.cpp feeds the model from the same file.

transformers reads vocabulary, merges and special tokens right, but where it does not know the name of the
pre-tokenizer it takes GPT-2's, it leaves out that some vocabularies hold whole words that no merge reaches, and it
ignores whether a space is put before a text. A model tuned on such ids is served on others. What splits the text is
therefore set here, for names whose ids were compared with llama.cpp's; any other name is refused.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, normalizers, pre_tokenizers

from tutelage.errors import DataError

SPACE = "\u2581"
"""What a sentencepiece vocabulary writes for a space."""

WITHOUT_BLANKS_SWALLOWED = "phi3"
"""Architecture whose control tokens swallow the white space after them, which its GGUF does not say; llama.cpp decides
it by the name of the model."""


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """How text is cut before merges: patterns one after the other; whole words before merges; BOS where unsaid."""

    patterns: tuple[str, ...]
    whole_words: bool
    add_bos: bool


def known_pre_tokenizers() -> dict[str, PreTokenizer]:
    """The pre-tokenizers of byte-level vocabularies by their names in a GGUF file, as `tokenizer.ggml.pre`."""
    table = tomllib.loads(files("tutelage.model").joinpath("gguf_pre_tokenizers.toml").read_text(encoding="utf-8"))
    return {
        name: PreTokenizer(tuple(entry["patterns"]), entry["whole_words"], entry["add_bos"])
        for entry in table["family"]
        for name in entry["names"]
    }


def gguf_tokenizer(gguf: Path) -> Any:
    """The tokenizer in `gguf` as a transformers tokenizer of no particular class, so that it loads as it was saved.

    Raises:
        DataError: its kind or the name of its pre-tokenizer is not one whose ids are known to be llama.cpp's.
    """
    from gguf import GGUFReader
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    fields = GGUFReader(gguf).fields
    tokenizer_kind = _text_field(fields, "tokenizer.ggml.model")
    pre_tokenizer: PreTokenizer | None = None
    if tokenizer_kind == "gpt2":
        pre_tokenizer = _named_pre_tokenizer(gguf, _text_field(fields, "tokenizer.ggml.pre"))
    elif tokenizer_kind != "llama" or _text_field(fields, "general.architecture") == WITHOUT_BLANKS_SWALLOWED:
        raise _unknown_tokenizer_error(
            gguf, f"a tokenizer of kind {tokenizer_kind!r} for {_text_field(fields, 'general.architecture')!r}"
        )
    source_tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    backend = source_tokenizer.backend_tokenizer
    if pre_tokenizer is None:
        _as_sentencepiece(backend, space_before=_flag_field(fields, "tokenizer.ggml.add_space_prefix", default=True))
        add_bos = _flag_field(fields, "tokenizer.ggml.add_bos_token", default=True)
    else:
        _as_byte_level(backend, pre_tokenizer)
        add_bos = _flag_field(fields, "tokenizer.ggml.add_bos_token", default=pre_tokenizer.add_bos)
    special_tokens = {
        name: token for name, token in source_tokenizer.special_tokens_map.items() if isinstance(token, str)
    }
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, add_bos_token=add_bos, **special_tokens)
    tokenizer.chat_template = source_tokenizer.chat_template
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def _named_pre_tokenizer(gguf: Path, name: str | None) -> PreTokenizer:
    pre_tokenizer_table = known_pre_tokenizers()
    if name is None or name not in pre_tokenizer_table:
        raise _unknown_tokenizer_error(
            gguf, "no name of a pre-tokenizer" if name is None else f"the pre-tokenizer {name!r}"
        )
    return pre_tokenizer_table[name]


def _as_byte_level(backend: Any, pre_tokenizer: PreTokenizer) -> None:
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in pre_tokenizer.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.model.ignore_merges = pre_tokenizer.whole_words


def _as_sentencepiece(backend: Any, *, space_before: bool) -> None:
    """Cut at control tokens only, and begin each part with a space where the file wants one, as llama.cpp does."""
    space_normalizer = normalizers.Replace(" ", SPACE)
    backend.normalizer = (
        normalizers.Sequence([normalizers.Prepend(SPACE), space_normalizer]) if space_before else space_normalizer
    )
    backend.pre_tokenizer = None
    decoder_steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*decoder_steps, decoders.Strip(" ", 1, 0)] if space_before else decoder_steps)


def _text_field(fields: Any, key: str) -> str | None:
    return str(fields[key].contents()) if key in fields else None


def _flag_field(fields: Any, key: str, *, default: bool) -> bool:
    return bool(fields[key].contents()) if key in fields else default


def _unknown_tokenizer_error(gguf: Path, reason: str) -> DataError:
    return DataError(
        f"The tokenizer of '{gguf.name}' is not one whose token ids are known exactly",
        where=str(gguf),
        found=reason,
        expected=f"a sentencepiece vocabulary, or one of: {', '.join(sorted(known_pre_tokenizers()))}",
        fix="use the safetensors form of this model, which carries its tokenizer.json",
    )

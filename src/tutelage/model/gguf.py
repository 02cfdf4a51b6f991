"""Converts a GGUF file to a folder of safetensors, tokenizer and template, atomically."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from tutelage.errors import DataError, SaveError, cause_of, remedy
from tutelage.model.gguf_tokenizer import gguf_tokenizer
from tutelage.model.load import no_progress_bars
from tutelage.system.files import new_folder


def convert_gguf(gguf: Path, folder: Path, *, beside: Callable[[Path], None] = lambda _folder: None) -> None:
    """Write `folder` from `gguf`; a crash half way leaves no folder of that name.

    Args:
        gguf: the file.
        folder: of what is made of it.
        beside: puts what else belongs to the model, such as its license, into the folder before it has its name.

    Raises:
        DataError: transformers cannot read this GGUF, or reads it as another model, or its token ids are not known
            exactly.
        SaveError: the folder cannot be written (disk full, no permission).
    """
    from transformers import AutoModelForCausalLM

    try:
        with new_folder(folder) as scratch:
            # The reader's own progress bar cannot be switched off.
            with no_progress_bars(), contextlib.redirect_stderr(io.StringIO()):
                tokenizer = gguf_tokenizer(gguf)
                gguf_model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            _require_whole(gguf, gguf_model)
            config, generation, state = gguf_model.config, gguf_model.generation_config, gguf_model.state_dict()
            del config.quantization_config
            # A model read from GGUF refuses save_pretrained: its quantizer cannot write. A fresh one with the same
            # weights can.
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config)
            model.load_state_dict(state, assign=True)
            model.tie_weights()
            model.generation_config = generation
            with no_progress_bars():
                model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            beside(scratch)
    except (OSError, SafetensorError) as error:
        if folder.is_dir():  # another process converted the same file first; its bytes are ours
            return
        raise _not_saved(folder, error) from error
    except DataError:
        raise
    except (ValueError, KeyError, NotImplementedError) as error:
        raise DataError(
            f"The GGUF file '{gguf.name}' cannot be converted",
            where=str(gguf),
            found=str(error).splitlines()[0],
            expected="an architecture and quantisation that transformers reads",
            fix="use the safetensors form of this model",
        ) from error


def _require_whole(gguf: Path, model: Any) -> None:
    """Refuse a file of which transformers passes over something without a word.

    transformers 5.23.0 reads neither the factors of positions, which Llama 3.1 and 3.2 have as a tensor, nor biases of
    a family that usually has none. No GGUF file holds what Gemma's queries are scaled by: its 256 is the usual one, and
    llama.cpp takes the width of a head.

    Raises:
        DataError: weights or scaled positions of the file are not in the model, or the scale of queries is not known.
    """
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    architecture = reader.fields["general.architecture"].contents()
    scaling = reader.fields.get(f"{architecture}.rope.scaling.type")
    factors = [tensor.name for tensor in reader.tensors if tensor.name.startswith("rope_")]
    if scaling is not None and scaling.contents() != "none":
        factors.append(f"rope.scaling.type = {scaling.contents()}")
    parameters = getattr(model.config, "rope_parameters", None) or {}
    kinds = {inner.get("rope_type") for inner in (parameters, *parameters.values()) if isinstance(inner, dict)} - {
        None,
        "default",
    }
    if factors and not kinds:
        raise _read_otherwise(gguf, f"scaled positions, which it reads as plain ones ({', '.join(factors)})")
    scalar, width = (getattr(model.config, name, None) for name in ("query_pre_attn_scalar", "head_dim"))
    if scalar is not None and scalar != width:
        raise _read_otherwise(gguf, f"queries scaled for heads of {scalar}, which are {width} wide in the file")
    stored = sum(int(tensor.n_elements) for tensor in reader.tensors if not tensor.name.startswith("rope_"))
    read = sum(parameter.numel() for parameter in model.parameters())
    if stored != read:
        raise _read_otherwise(gguf, f"{stored:,} weights in the file, {read:,} in the model that it makes of them")


def _read_otherwise(gguf: Path, reason: str) -> DataError:
    return DataError(
        f"transformers reads the GGUF file '{gguf.name}' as another model",
        where=str(gguf),
        found=reason,
        expected="a file of which all is read",
        fix="use the safetensors form of this model",
    )


def _not_saved(folder: Path, error: Exception) -> SaveError:
    return SaveError(
        "The converted model could not be saved",
        where=str(folder),
        found=cause_of(error),
        fix=remedy(error, elsewhere="set TUTELAGE_CACHE to another disk"),
    )

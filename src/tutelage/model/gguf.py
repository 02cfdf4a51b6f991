"""Converts a GGUF file to a folder of safetensors, tokenizer and template, atomically."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

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
        DataError: transformers cannot read this GGUF, or its token ids are not known exactly.
        SaveError: the folder cannot be written (disk full, no permission).
    """
    from transformers import AutoModelForCausalLM

    try:
        with new_folder(folder) as scratch:
            # The reader's own progress bar cannot be switched off.
            with no_progress_bars(), contextlib.redirect_stderr(io.StringIO()):
                tokenizer = gguf_tokenizer(gguf)
                gguf_model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
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


def _not_saved(folder: Path, error: Exception) -> SaveError:
    return SaveError(
        "The converted model could not be saved",
        where=str(folder),
        found=cause_of(error),
        fix=remedy(error, elsewhere="set TUTELAGE_CACHE to another disk"),
    )

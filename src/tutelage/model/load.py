"""Loads a causal language model in the precision it will compute in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tutelage.errors import DataError, DependencyError, cause_of
from tutelage.model.checkpoint_match import require_agreement
from tutelage.model.configuration import CONFIG_FILE, causal_configuration
from tutelage.model.precision import device_here
from tutelage.model.quantization import keep_quantized, parameter_count, stored_bytes
from tutelage.render.tokenizer import read_object
from tutelage.system.openmp_wait import start_contention_watch

NO_SUCH_ATTENTION = "does not support an attention implementation through torch.nn.functional"
"""What transformers says of a kind without PyTorch's attention before it reads weights. Source: its
modeling_utils.py, `_sdpa_can_dispatch`; a test loads such kinds."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded: parameter count, bytes of the weights, the device, and sentences about what was left behind."""

    parameters: int
    weight_bytes: int
    device: str
    notes: tuple[str, ...] = ()


def load(
    folder: Path, *, trust_remote_code: bool = False, onto: str | None = None, quantization: Any = None
) -> tuple[Any, Loaded]:
    """Load the model in `folder` in the precision its weights are stored in, from safetensors only.

    From then on this process looks whether other programs want the cores it computes on (`system.openmp_wait`).

    Args:
        folder: configuration and safetensors.
        trust_remote_code: the folder's own Python code may run.
        onto: where its weights go; None takes what `device_here` says.
        quantization: what `model.quantization.four_bit` gave; None leaves the weights as they are.

    Raises:
        DataError: the folder holds no causal language model that transformers reads, or one whose weights are not
            those that config.json describes.
        DependencyError: a package that this model needs is missing.
    """
    device = onto or device_here()
    start_contention_watch()
    causal_configuration(folder / CONFIG_FILE, trust_remote_code=trust_remote_code)
    if quantization is None:
        _require_ordinary_weights(folder, read_object(folder / CONFIG_FILE).get("quantization_config"))
    model, report = _loaded(folder, trust_remote_code=trust_remote_code, quantization=quantization)
    if quantization is None:
        _require_ordinary_weights(folder, getattr(model.config, "quantization_config", None))
        model.to(device)
    else:  # transformers has put it on the device, where it was quantized
        keep_quantized(model)
    notes = require_agreement(model, folder, report)
    parameters = sum(parameter_count(parameter) for parameter in model.parameters())
    weight_bytes = sum(stored_bytes(parameter) for parameter in model.parameters())
    return model, Loaded(parameters, weight_bytes, device, notes)


def _loaded(folder: Path, *, trust_remote_code: bool, quantization: Any) -> tuple[Any, dict[str, Any]]:
    """The model, and transformers' report about its weights."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModelForCausalLM

    arguments = {
        "dtype": "auto",
        "use_safetensors": True,
        "trust_remote_code": trust_remote_code,
        "local_files_only": True,
        "quantization_config": quantization,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are in the report, and refused with their names
    }
    try:
        with no_progress_bars():
            try:
                model, report = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", **arguments)
            except ValueError as error:
                if NO_SUCH_ATTENTION not in str(error):
                    raise
                model, report = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **arguments)
    except ImportError as error:
        message = " ".join(str(error).split())  # transformers names each package in a paragraph of its own
        raise DependencyError("This model needs another package", where=str(folder), found=message) from error
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        RuntimeError,
        SafetensorError,
        StrictDataclassError,
    ) as error:
        raise DataError(
            "The model cannot be loaded",
            where=str(folder),
            found=cause_of(error),
            expected="config.json of a causal language model, with its safetensors",
            fix="check the folder; a model with its own code needs model.trust_remote_code = true",
        ) from error
    return model, report


def _require_ordinary_weights(folder: Path, stored_as: Any) -> None:
    """Refuse a checkpoint whose weights are stored quantized, where they are to be ordinary numbers."""
    if stored_as is None:
        return
    quantization = stored_as if isinstance(stored_as, dict) else stored_as.to_dict()
    four_bit = bool(quantization.get("load_in_4bit") or quantization.get("_load_in_4bit"))
    how = "in 4 bits" if four_bit else f"quantised ({quantization.get('quant_method', 'in a way of its own')})"
    raise DataError(
        f"The weights of this model are stored {how}",
        where=f"{folder / CONFIG_FILE}: quantization_config",
        expected="weights in fp32, bf16 or fp16",
        fix='set model.method = "qlora", or give the original model' if four_bit else "give the original model",
    )


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing its own bars over ours, and its table of weights that we report on."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()

"""config.json -> the configuration of a model that can be trained, or an error: the one gate in front of all else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tutelage.errors import DataError, cause_of

CONFIG_FILE = "config.json"
MAX_LAYERS = 2_000
"""Many times the layers of any model published; so many are made in seconds, to read or to try what a model is."""


def causal_configuration(file: Path, *, trust_remote_code: bool = False) -> Any:
    """Read a configuration, of a causal language model alone; no weights are looked at.

    Args:
        file: a config.json.
        trust_remote_code: let the model's own Python code run.

    Raises:
        DataError: it cannot be read, what it describes does not write text from text alone, or it has more layers than
            `MAX_LAYERS`.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        written = json.loads(file.read_text(encoding="utf-8"))
        config = AutoConfig.from_pretrained(str(file), trust_remote_code=trust_remote_code, local_files_only=True)
        require_causal(config, written, where=str(file), trust_remote_code=trust_remote_code)
        _require_few_layers(config, file)
    except DataError:
        raise
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        StrictDataclassError,
    ) as error:
        raise DataError(
            "The model's configuration cannot be read",
            where=str(file),
            found=_cause(error)[:200],
            expected="config.json with a model_type that transformers knows",
            fix="check the file; a model with its own code needs model.trust_remote_code = true",
        ) from error
    return config


def _require_few_layers(config: Any, file: Path) -> None:
    """Refuse a number of layers that would take hours to make, before any is made."""
    layers = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > MAX_LAYERS:
        raise DataError(
            "The model's configuration asks for more layers than any model has",
            where=f"{file}: num_hidden_layers",
            found=f"{layers:,}"[:40],
            expected=f"at most {MAX_LAYERS:,}",
            fix="restore config.json from its source",
        )


def _cause(error: Exception) -> str:
    """A failed check of a field says which field in its first line, and what was wrong in its last."""
    from huggingface_hub.errors import StrictDataclassError

    return str(error).strip().split("\n")[-1].strip() if isinstance(error, StrictDataclassError) else cause_of(error)


def require_causal(config: Any, written: dict[str, Any], *, where: str, trust_remote_code: bool) -> None:
    """Refuse what transformers itself says is no causal language model.

    Args:
        config: as transformers reads it.
        written: what config.json says.
        where: the file.
        trust_remote_code: a class of the model's own may stand for it.

    Raises:
        DataError: an encoder with a decoder, a class that generates nothing, or a kind without a class for text alone.
    """
    import transformers
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

    class_names = written.get("architectures") or []
    if not isinstance(class_names, list) or not all(isinstance(class_name, str) for class_name in class_names):
        raise _not_causal_error(where, f"architectures: {class_names!r}"[:200])
    description = f"architectures: {', '.join(class_names) or 'none'}; model_type: {config.model_type}"
    if config.is_encoder_decoder:
        raise _not_causal_error(where, f"{description}; its encoder reads what its decoder answers")
    if trust_remote_code and "AutoModelForCausalLM" in (written.get("auto_map") or {}):
        return
    classes = [getattr(transformers, name) for name in class_names if name in transformers.__all__]
    model_classes: list[Any] = [
        class_ for class_ in classes if isinstance(class_, type) and issubclass(class_, PreTrainedModel)
    ]
    if model_classes and not any(model_class.can_generate() for model_class in model_classes):
        raise _not_causal_error(where, f"{description}; {model_classes[0].__name__} generates no text")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _not_causal_error(
            where, f"{description}; transformers has no class of this kind that reads and writes text alone"
        )


def _not_causal_error(where: str, reason: str) -> DataError:
    return DataError(
        "This model does not write text from text alone, so there is nothing to fine-tune",
        where=where,
        found=reason,
        expected="a causal language model, such as LlamaForCausalLM",
        fix="give the instruction or base model of a decoder, not an encoder, a classifier or a model for pictures",
    )

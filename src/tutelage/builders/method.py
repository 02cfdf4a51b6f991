"""`[model]`, `[lora]`, `[qlora]` and `[prompt]` -> the model of a run: loaded as its method wants it, and adapted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tutelage.builders.base_model import StartAdapter, continued
from tutelage.builders.resolved_run import ResolvedRun
from tutelage.config import Settings
from tutelage.model.adapters.adapter_set import attach_adapter
from tutelage.model.adapters.loftq import init_from_quantization_error
from tutelage.model.adapters.lora import add_lora, make_all_trainable
from tutelage.model.adapters.lora_init import CalibrationData
from tutelage.model.adapters.prompt_tuning import add_prompt
from tutelage.model.adapters.trainable import Trainable, trainable_summary
from tutelage.model.load import Loaded, load
from tutelage.model.precision import DTYPES
from tutelage.model.quantization import check_quantized_share, four_bit
from tutelage.render import Tokenizer


def loaded_base(resolved: ResolvedRun, folder: Path, *, onto: str | None = None) -> tuple[Any, Loaded]:
    """The model in `folder`, its linear layers in 4 bits for qlora.

    Args:
        resolved: the run's.
        folder: the model's.
        onto: the device its weights go to; None takes the one that computes.

    Raises:
        DependencyError: qlora, and bitsandbytes is not installed.
        DataError: the folder holds no model that transformers reads.
    """
    settings, quantisation = resolved.settings, None
    if settings.model.method == "qlora":
        quantisation = four_bit(
            cast_model=DTYPES[resolved.precision],
            double_quantization=settings.qlora.double_quantization,
        )
    onto = onto or resolved.device
    return load(folder, trust_remote_code=settings.model.trust_remote_code, onto=onto, quantization=quantisation)


def adapted_model(
    settings: Settings, model: Any, base: Path, *, calibration: CalibrationData | None = None
) -> tuple[Any, Trainable]:
    """Mark or add what the method trains.

    Args:
        settings: the run's.
        model: from `loaded_base`.
        base: its folder, whose tokenizer reads `prompt.text`, and whose weights tell `lora.init = "loftq"` what was
            rounded.
        calibration: the data that `lora.init` looks at, where it does.

    Raises:
        ConfigError: a target, a pattern or a text that does not fit this model.
    """
    method, lora, prompt = settings.model.method, settings.lora, settings.prompt
    if (adapter := continued(settings)) is not None:
        peft_model = attach_adapter(model, adapter.folder, learns=True)
        return peft_model, trainable_summary(
            peft_model, method, notes=(*_notes_of_base(settings, model), _trained_on(adapter))
        )
    if method == "full":
        return make_all_trainable(model, frozen=settings.model.freeze)
    if method == "prompt":
        ids = None if prompt.text is None else Tokenizer.load(base).encode([prompt.text])[0]
        return add_prompt(model, tokens=prompt.tokens, text_ids=ids)
    peft_model, record = add_lora(
        model,
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        targets=lora.target_modules,
        rslora=lora.rslora,
        dora=lora.dora,
        init=lora.init,
        calibration_data=calibration,
        modules_to_save=lora.modules_to_save,
    )
    if lora.init == "loftq":
        original, _ = load(base, trust_remote_code=settings.model.trust_remote_code, onto="cpu")
        init_from_quantization_error(peft_model, original)
    return peft_model, replace(record, notes=(*_notes_of_base(settings, model), *record.notes))


def _notes_of_base(settings: Settings, model: Any) -> tuple[str, ...]:
    return check_quantized_share(model) if settings.model.method == "qlora" else ()


def _trained_on(adapter: StartAdapter) -> str:
    adapter_config = adapter.config
    summary = (
        f"{adapter_config['num_virtual_tokens']} virtual tokens"
        if adapter.kind == "PROMPT_TUNING"
        else f"rank {adapter_config['r']}, alpha {adapter_config['lora_alpha']}, "
        f"dropout {adapter_config.get('lora_dropout') or 0.0:g}"
    )
    return f"The adapter of {adapter.folder} is trained on as it is: {summary}; its optimizer starts anew"

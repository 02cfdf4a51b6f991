"""Folds an adapter into its base: `W + s B A` is a weight like any other (Hu et al. 2021, LoRA, section 4)."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError

from tutelage.errors import SaveError, cause_of, remedy
from tutelage.model.adapters.adapter_set import attach_adapter
from tutelage.model.load import load, no_progress_bars


def merge_adapter(base: Path, adapter: Path, folder: Path, *, trust_remote_code: bool = False) -> None:
    """Write the model in `base` with `adapter` folded in: safetensors and configuration, in the base's precision.

    Each sum is taken in fp32 and rounded once, by PEFT's own `merge_and_unload`.

    Args:
        base: its folder; the weights are read whole, whatever the adapter was trained beside.
        adapter: an adapter of PEFT for it.
        folder: exists.
        trust_remote_code: the base's own Python code may run.

    Raises:
        DataError: the base cannot be loaded, or the adapter does not belong to it.
        SaveError: the disk is full or refuses.
    """
    model, _ = load(base, trust_remote_code=trust_remote_code, onto="cpu")
    merged = attach_adapter(model, adapter).merge_and_unload()
    try:
        with no_progress_bars():
            merged.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise SaveError(
            "The merged model could not be saved",
            where=str(folder),
            found=cause_of(error),
            fix=remedy(error, elsewhere="set TUTELAGE_CACHE to another disk"),
        ) from error

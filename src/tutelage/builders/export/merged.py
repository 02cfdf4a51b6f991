"""A run -> its whole model in main memory: merged where an adapter was trained, at a value of the dial if asked for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tutelage.builders.base_model import continued, start_folder
from tutelage.builders.dial_model import CONFIG, no_scale, scale_pairs
from tutelage.builders.export.request import ExportRequest
from tutelage.builders.method import loaded_base
from tutelage.builders.resolved_run import resolve
from tutelage.builders.trained_model import require_as_trained, trained_folder
from tutelage.errors import ConfigError, command
from tutelage.evaluate.dial import BASE
from tutelage.model.adapters.merge import cast_weights, dtypes_of, merged_model, set_weights
from tutelage.model.interpolation import require_value, weights_at
from tutelage.model.load import load
from tutelage.model.out_of_memory import release_memory
from tutelage.model.quantization import dequantized_weights

FLOAT16_MOST = torch.finfo(torch.float16).max


@dataclass(frozen=True, slots=True)
class WholeModel:
    """A run's model in one piece.

    Attributes:
        model: in main memory, in the precision it is to be written in.
        start: the folder of the model that the run started from.
        lost_in_four_bits: of a run of QLoRA, by layer: how far the weights of 4 bits, which were trained beside and
            are merged, are from those of the base, as a share of their length.
    """

    model: Any
    start: Path
    lost_in_four_bits: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def whole_in_memory(request: ExportRequest) -> Iterator[WholeModel]:
    """Put it together; it is of use while the block runs.

    Of QLoRA the base is what its 4 bits stand for: the adapter was trained, and measured, beside these weights.

    Raises:
        ConfigError: virtual tokens were trained; there is nothing at this value of the dial; or a weight does not fit
            into float16.
        SourceNotFoundError: nothing was trained yet, or the base is not there any more.
        CheckpointError: what was trained is damaged.
    """
    settings = request.settings
    require_mergeable(request)
    trained = trained_folder(request.run, settings)
    require_as_trained(request.run, trained)
    start = start_folder(settings.model, log=request.screen.log)
    adapter = None if settings.model.method == "full" else trained
    lost: dict[str, float] = {}
    with _at_dial(request, adapter) as (tuned_adapter, interpolates):
        tuned, dtypes = _put_together(request, start, trained, tuned_adapter, lost)
        if not interpolates:
            _cast(tuned, request, dtypes)
            yield WholeModel(tuned, start, lost)
            return
        base, _ = _put_together(request, start, start, _began_with(request), {})
        assert request.dial is not None
        with weights_at(tuned, base, request.dial) as model:
            del base
            _cast(model, request, dtypes)
            yield WholeModel(model, start, lost)


def require_mergeable(request: ExportRequest) -> None:
    """Refuse a run that no whole model can be made of, before anything is loaded.

    Raises:
        ConfigError: that is so.
    """
    if request.settings.model.method == "prompt":
        raise ConfigError(
            "Virtual tokens cannot be folded into a model",
            where="--to",
            found=f"{request.run} was trained with model.method = prompt",
            expected="a run of full, lora or qlora",
            fix=f"write the adapter: {command('export', request.run, '--to', 'adapter', '-o', request.out)}",
        )
    if request.dial is not None:
        require_value(request.dial)
        if request.dial == BASE:
            raise ConfigError(
                "At 0 of the dial is the base itself",
                where="--dial",
                found="0",
                expected="a value above 0",
                fix=f"use the base as it is: {request.settings.model.name}",
            )


@contextmanager
def _at_dial(request: ExportRequest, adapter: Path | None) -> Iterator[tuple[Path | None, bool]]:
    """The adapter with its scale at the dial; or as it is, and that the weights are taken between instead."""
    if request.dial is None or adapter is None or no_scale(adapter, request.settings) is not None:
        yield adapter, request.dial is not None and request.dial != 1.0
        return
    with tempfile.TemporaryDirectory(prefix="dial-") as scratch:
        scaled = Path(scratch) / "adapter"
        shutil.copytree(adapter, scaled)
        scale_pairs(scaled / CONFIG, request.dial)
        yield scaled, False


def _began_with(request: ExportRequest) -> Path | None:
    """The adapter that the run trained on, which belongs to what it started from."""
    adapter = continued(request.settings)
    return None if adapter is None else adapter.folder


def _put_together(
    request: ExportRequest, start: Path, source: Path, adapter: Path | None, lost: dict[str, float]
) -> tuple[Any, dict[str, torch.dtype]]:
    """A whole model, an adapter merged in fp32, and the precision that each weight is stored in."""
    settings = request.settings
    if settings.model.method == "full":
        model, _ = load(source, trust_remote_code=settings.model.trust_remote_code, onto="cpu")
        return model, dtypes_of(model)
    four_bit: dict[str, torch.Tensor] = {}
    if settings.model.method == "qlora":
        request.screen.log("Reading what the 4 bits of the base stand for ...")
        quantized, _ = loaded_base(resolve(settings), start)
        four_bit = dequantized_weights(quantized)
        del quantized
        release_memory()
    model, _ = load(start, trust_remote_code=settings.model.trust_remote_code, onto="cpu")
    dtypes = dtypes_of(model)
    lost |= {name: _lost_share(model.get_submodule(name).weight, weight) for name, weight in four_bit.items()}
    set_weights(model, four_bit)
    if adapter is not None:
        request.screen.log("Merging the adapter into its base, in fp32 ...")
        model = merged_model(model, adapter)
    present = dtypes_of(model)  # a head that was untied is one more
    return model, {name: dtypes.get(name, present[name]) for name in present}


def _lost_share(weight: torch.Tensor, rounded: torch.Tensor) -> float:
    original = weight.detach().float()
    return float((rounded - original).norm() / original.norm().clamp_min(torch.finfo(torch.float32).tiny))


def _cast(model: Any, request: ExportRequest, dtypes: Mapping[str, torch.dtype]) -> None:
    if request.dtype == "float16":
        _require_range(model)
    cast_weights(model, dtypes if request.dtype is None else dict.fromkeys(dtypes, getattr(torch, request.dtype)))


def _require_range(model: Any) -> None:
    """Refuse weights that float16 cannot hold.

    Raises:
        ConfigError: there is one.
    """
    for name, parameter in model.named_parameters():
        most = float(parameter.detach().abs().max()) if parameter.is_floating_point() and parameter.numel() else 0.0
        if most > FLOAT16_MOST:
            raise ConfigError(
                "A weight is too large for float16",
                where=name,
                found=f"{most:g}",
                expected=f"at most {FLOAT16_MOST:g}",
                fix="write --dtype bfloat16",
            )

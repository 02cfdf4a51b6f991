"""A finished run and a value of the dial -> a folder with that model, as it was measured there."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tutelage.builders.base_model import continued, start_folder
from tutelage.builders.dial import opened_for_dial
from tutelage.builders.renderer import renderer_for
from tutelage.builders.trained_model import require_as_trained, trained_folder
from tutelage.config import Settings
from tutelage.config.sections import ModelSettings
from tutelage.errors import ConfigError, SaveError, cause_of, remedy
from tutelage.evaluate.dial import BASE
from tutelage.export.model_folder import copy_model, new_export, save_whole
from tutelage.model.interpolation import nothing_between, require_value, weights_at
from tutelage.model.load import load
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files

CONFIG = "adapter_config.json"
SCALES = ("lora_alpha", "alpha_pattern")
"""What PEFT's configuration says of the scale of pairs: of all, and of some by their names."""


def save_dial_model(run: str | Path, value: float, folder: Path, *, merged: bool = True, screen: Screen) -> Path:
    """Write a run's model at a value of the dial, as other tools load it; returns where.

    A run of all weights is interpolated. An adapter of plain pairs has its scale (`lora_alpha`) times the value, and is
    folded into its base then, or written as it is; of QLoRA into what the 4 bits of its base stand for, beside which it
    was trained and measured. What is no scale of pairs, such as magnitudes of DoRA or whole
    modules, is taken between the base and the merged model, which only a whole model can hold.

    Args:
        run: the folder of a finished run.
        value: above 0, the base, up to `model.interpolation.HIGHEST`.
        folder: made; an empty one is taken.
        merged: fold an adapter into its base; False writes an adapter.
        screen: told what is slow.

    Raises:
        ConfigError: the value is out of range; the run has nothing between its base and what it trained; an adapter
            cannot hold what is at the value; the folder holds something.
        SourceNotFoundError: not a run, or not finished.
        CheckpointError: what the run trained is damaged.
        SaveError: the disk refuses.
    """
    path = run_files.existing_run_folder(str(run))
    settings = run_files.read_settings(path)
    require_value(value)
    if settings.model.method == "prompt":
        raise nothing_between("model.method = prompt: no part of its virtual tokens is the base", fix="leave it out")
    if value == BASE:
        raise ConfigError(
            "At 0 of the dial is the base itself",
            where="--dial",
            found="0",
            expected="a value above 0",
            fix=f"use the base as it is: {settings.model.name}",
        )
    trained = trained_folder(path, settings)
    require_as_trained(path, trained)
    if settings.model.method == "full":
        return _saved_between_weights(path, settings, value, folder, screen)
    if settings.model.method == "qlora" and merged:
        return _saved_beside_four_bits(path, settings, value, folder, screen)
    if (reason := no_scale(trained, settings)) is None:
        return _saved_at_scale(trained, settings, value, folder, merged=merged, screen=screen)
    if not merged:
        raise ConfigError(
            "An adapter cannot hold what is at this value of the dial",
            where="merged",
            found=reason,
            expected="an adapter of plain pairs",
            fix="write a whole model: merged=True",
        )
    return _saved_between_folders(path, settings, value, folder, screen)


def holds_an_adapter(run: Path) -> bool:
    """Whether an adapter alone can be the run's model at values of the dial."""
    settings = run_files.read_settings(run)
    return settings.model.method in ("lora", "qlora") and no_scale(trained_folder(run, settings), settings) is None


def no_scale(trained: Path, settings: Settings) -> str | None:
    """What of the adapter no scale of pairs can be; None where it is all of it."""
    adapter_config = json.loads((trained / CONFIG).read_text(encoding="utf-8"))
    if adapter_config.get("use_dora"):
        return "DoRA, whose magnitudes are no part of a product"
    if adapter_config.get("modules_to_save"):
        return f"modules that were trained whole: {', '.join(adapter_config['modules_to_save'])}"
    if continued(settings) is not None:
        return "an adapter that training began with, of which less is left the higher the value"
    return None


def _saved_at_scale(
    trained: Path, settings: Settings, value: float, folder: Path, *, merged: bool, screen: Screen
) -> Path:
    try:
        with tempfile.TemporaryDirectory(prefix="dial-") as scratch:
            scaled = Path(scratch) / "adapter"
            shutil.copytree(trained, scaled)
            scale_pairs(scaled / CONFIG, value)
            if not merged:
                return copy_model(scaled, folder)
            base = str(start_folder(settings.model, log=screen.log))
            _name_base(scaled / CONFIG, base)
            trust = settings.model.trust_remote_code
            return copy_model(
                start_folder(ModelSettings(name=str(scaled), trust_remote_code=trust), log=screen.log), folder
            )
    except OSError as error:
        if isinstance(error, SaveError):
            raise
        raise SaveError(
            "The model at this value of the dial could not be written",
            where=str(folder),
            found=cause_of(error),
            fix=remedy(error, elsewhere="name another folder"),
        ) from error


def _saved_beside_four_bits(run: Path, settings: Settings, value: float, folder: Path, screen: Screen) -> Path:
    from tutelage.builders.export.request import ExportRequest  # these modules import this one
    from tutelage.builders.export.whole_model import fill_whole_folder

    with new_export(folder) as scratch:
        fill_whole_folder(ExportRequest(run, settings, folder, screen, dial=value), scratch)
    return folder


def scale_pairs(path: Path, value: float) -> None:
    """Multiply the scale of each pair, which is alpha over the rank or, of rsLoRA, over its root."""
    adapter_config = json.loads(path.read_text(encoding="utf-8"))
    adapter_config["lora_alpha"] = _plain(adapter_config["lora_alpha"] * value)
    pattern: dict[str, Any] = adapter_config.get("alpha_pattern") or {}
    adapter_config["alpha_pattern"] = {name: _plain(alpha * value) for name, alpha in pattern.items()}
    _write(path, adapter_config)


def _plain(number: float) -> float:
    """A whole number without a point: some readers take no other."""
    return int(number) if float(number).is_integer() else number


def _name_base(path: Path, base: str) -> None:
    _write(path, json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": base})


def _write(path: Path, adapter_config: dict[str, Any]) -> None:
    path.write_text(json.dumps(adapter_config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _saved_between_weights(run: Path, settings: Settings, value: float, folder: Path, screen: Screen) -> Path:
    opened = opened_for_dial(run, settings, screen)
    with opened.at(value) as model:
        return save_whole(model, opened.renderer, folder)


def _saved_between_folders(run: Path, settings: Settings, value: float, folder: Path, screen: Screen) -> Path:
    """Between what the run started from, an adapter folded in, and what it trained, folded in as well."""
    trust = settings.model.trust_remote_code
    start = settings.model.model_copy(update={"adapter": "merge"})
    tuned = ModelSettings(name=str(run), adapter="merge", trust_remote_code=trust)
    base_model, _ = load(start_folder(start, log=screen.log), trust_remote_code=trust, onto="cpu")
    tuned_folder = start_folder(tuned, log=screen.log)
    tuned_model, _ = load(tuned_folder, trust_remote_code=trust, onto="cpu")
    renderer = renderer_for(tuned_folder, settings.render)
    with weights_at(tuned_model, base_model, value) as model:
        return save_whole(model, renderer, folder)

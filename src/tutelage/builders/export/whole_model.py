"""A run -> the folder of a whole model, as transformers loads it: merged where an adapter was trained."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage.builders.base_model import start_folder
from tutelage.builders.dial_model import save_dial_model
from tutelage.builders.export.request import Exported, ExportRequest
from tutelage.builders.trained_model import require_as_trained, trained_folder
from tutelage.config.sections import ModelSettings
from tutelage.errors import ConfigError, command
from tutelage.export.model_folder import copy_model


def write_whole_model(request: ExportRequest) -> Exported:
    """Write `request.out`.

    Raises:
        TutelageError: see `whole_model`; the folder holds something; the disk refuses.
    """
    with whole_model(request) as source:
        return Exported(copy_model(source, request.out))


@contextmanager
def whole_model(request: ExportRequest) -> Iterator[Path]:
    """A folder with the whole model of a run, for those who write it in another form; not to be changed.

    Raises:
        ConfigError: virtual tokens were trained, or there is nothing at this value of the dial.
        SourceNotFoundError: nothing was trained yet.
        CheckpointError: what was trained is damaged.
        SaveError: the disk refuses.
    """
    if request.settings.model.method == "prompt":
        raise ConfigError(
            "Virtual tokens cannot be folded into a model",
            where="--to",
            found=f"{request.run} was trained with model.method = prompt",
            expected="a run of full, lora or qlora",
            fix=f"write the adapter: {command('export', request.run, '--to', 'adapter', '-o', request.out)}",
        )
    require_as_trained(request.run, trained_folder(request.run, request.settings))
    if request.dial is None:
        trust = request.settings.model.trust_remote_code
        merged = ModelSettings(name=str(request.run), adapter="merge", trust_remote_code=trust)
        yield start_folder(merged, log=request.screen.log)
        return
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        yield save_dial_model(request.run, request.dial, Path(scratch) / "model", screen=request.screen)

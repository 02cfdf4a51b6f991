"""What an export would write, before anything is loaded. Imports without torch."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from tutelage.builders.base_model import start_folder
from tutelage.builders.export.request import ExportRequest
from tutelage.builders.export.targets import TARGETS, require_target
from tutelage.builders.trained_model import trained_folder
from tutelage.errors import ConfigError
from tutelage.model.safetensors_header import read_header

BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "float32": 4, "bfloat16": 2, "float16": 2}
MORE_FILES = ("config.json", "tokenizer.json", "chat_template.jinja", "README.md", "proof.json")


def planned(target: str, request: ExportRequest) -> dict[str, Any]:
    """The form, the files, the bytes of the weights, and how many are free where they would go.

    Raises:
        ConfigError: there is no such form, or its size depends on what is in it.
        SourceNotFoundError: nothing was trained yet, or the base is not there.
    """
    require_target(target)
    if "--type" in TARGETS[target].reads:
        raise ConfigError(
            f"What --to {target} would write is not known before its weights are quantized",
            where="--dry-run",
            expected="--to hf, adapter or dpo-start",
            fix="leave --dry-run out",
        )
    trained = trained_folder(request.run, request.settings)
    whole = request.settings.model.method != "full" and target != "adapter"
    source = start_folder(request.settings.model, log=request.screen.log) if whole else trained
    entries = [entry for path in sorted(source.glob("*.safetensors")) for entry in read_header(path)[0].values()]
    size = sum(
        math.prod(entry["shape"]) * BYTES.get(request.dtype or entry["dtype"], BYTES.get(entry["dtype"], 1))
        for entry in entries
    )
    shards = max(1, math.ceil(size / request.shard_bytes))
    weights = "adapter_model.safetensors" if target == "adapter" else "model.safetensors"
    return {
        "form": TARGETS[target].summary,
        "files": [weights if shards == 1 else f"about {shards} files of weights", *MORE_FILES],
        "bytes": size,
        "free_bytes": shutil.disk_usage(_nearest(request.out)).free,
    }


def _nearest(path: Path) -> Path:
    """The folder that is there, on the way to one that is not."""
    return next((parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists()), Path())

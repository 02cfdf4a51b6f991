"""`--to hf`: a folder with the whole model of a run, as transformers loads it, and the proof that it is that model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage.builders.export.finished import finished
from tutelage.builders.export.merged import require_mergeable, whole_in_memory
from tutelage.builders.export.proving import proof_of
from tutelage.builders.export.request import Exported, ExportRequest
from tutelage.builders.renderer import renderer_for
from tutelage.export.model_folder import copy_texts, fill_whole, new_export

FORM = "This is the whole model: load it with `AutoModelForCausalLM.from_pretrained(folder)`."


def write_whole_model(request: ExportRequest) -> Exported:
    """Write `request.out`.

    Raises:
        TutelageError: see `merged.whole_in_memory`; the folder holds something; the disk refuses.
    """
    require_mergeable(request)
    with new_export(request.out) as scratch:
        lost = fill_whole_folder(request, scratch)
        proof = proof_of(request, scratch) if request.prompts else None
        return finished(request, scratch, proof, form=FORM, lost_in_four_bits=lost)


@contextmanager
def whole_model(request: ExportRequest) -> Iterator[Path]:
    """A folder with the whole model of a run, for those who write it in another form; gone when the block ends.

    Raises:
        TutelageError: see `merged.whole_in_memory`; the disk refuses.
    """
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        folder = Path(scratch) / "model"
        with new_export(folder) as made:
            fill_whole_folder(request, made)
        yield folder


def fill_whole_folder(request: ExportRequest, folder: Path) -> dict[str, float]:
    """Weights, configuration, tokenizer, template, stops, license; returns `WholeModel.lost_in_four_bits`."""
    with whole_in_memory(request) as whole:
        request.screen.log("Writing the weights ...")
        fill_whole(
            whole.model, renderer_for(whole.start, request.settings.render), folder, shard_bytes=request.shard_bytes
        )
        copy_texts(whole.start, folder, code=request.settings.model.trust_remote_code)
        return dict(whole.lost_in_four_bits)
